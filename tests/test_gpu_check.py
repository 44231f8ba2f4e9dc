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
    assert next(iter(report)) == "semcut_gpu_check"
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


def test_only_a_report_of_the_script_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    for content in ('{"mine": 1}', "my list"):
        out.write_text(content)
        done = check("--out", out, status=2)
        assert f"{out} exists, and is not a report of this script: choose another name, or delete it" in done.stderr
        assert out.read_text() == content
    done = check("--out", tmp_path, status=2)
    assert f"{tmp_path} is a directory: give the name of a file" in done.stderr


def test_without_a_gpu_each_engine_says_why_it_cannot_run() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    done = check(status=1)
    for name, scanner in (("torch", hamming_torch_gpu), ("flat", hamming_faiss_gpu)):
        with pytest.raises(DeviceError, match="cuda:0") as error:
            scanner.devices_named("cuda:0")
        assert f"{name}: {error.value}" in done.stderr
