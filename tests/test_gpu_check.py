"""scripts/gpu_check.py runs as a whole on the CPU, and reports engines that cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from semcut.indexes import DeviceError
from semcut.indexes.scanners import hamming_faiss_gpu, hamming_torch_gpu

pytestmark = pytest.mark.guides

ROOT = Path(__file__).parents[1]


def check(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_script_runs_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    done = check(
        "--device", "cpu", "--records", "3000,6000", "--classes", "5", "--batches", "1,8", "--seconds", 0.02,
        "--out", out,
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert report["correct"] == {"torch": True, "flat": True}
    assert [(row["records"], row["batch"]) for row in report["speed"]] == [(3000, 1), (3000, 8), (6000, 1), (6000, 8)]
    for row in report["speed"]:
        whole = ["torch, whole searches", "flat, whole searches"] if row["records"] == 3000 else []
        for name in ("torch, shortlists", "flat, shortlists", "limit, reading", "limit, multiplying", *whole):
            assert row[name] > 0
    assert report["network"]["training, images/s"] > 0
    for name in ("torch", "flat"):
        assert f"{name}: the same results as brute force" in done.stdout
    assert "Queries/s, CPU" in done.stdout


def test_without_a_gpu_each_engine_says_why_it_cannot_run() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    done = check(status=1)
    for name, scanner in (("torch", hamming_torch_gpu), ("flat", hamming_faiss_gpu)):
        with pytest.raises(DeviceError, match="cuda:0") as error:
            scanner.devices_named("cuda:0")
        assert f"{name}: {error.value}" in done.stderr
