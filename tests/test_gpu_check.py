"""scripts/gpu_check.py, from one end to the other, on the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def check(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_check.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_it_runs_on_the_processor(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    done = check(
        "--device", "cpu", "--records", "3000,6000", "--classes", "5", "--batches", "1,8", "--seconds", 0.02,
        "--out", out,
    )  # fmt: skip
    report = json.loads(out.read_text())
    assert report["right"] == {"torch": True, "flat": True}
    assert [(row["records"], row["batch"]) for row in report["speed"]] == [(3000, 1), (3000, 8), (6000, 1), (6000, 8)]
    for row in report["speed"]:
        whole = ["torch, whole searches", "flat, whole searches"] if row["records"] == 3000 else []
        for name in ("torch, shortlists", "flat, shortlists", "limit, reading", "limit, multiplying", *whole):
            assert row[name] > 0
    assert report["network"]["training, images/s"] > 0
    assert "as brute force" in done.stdout
    assert "Queries/s, the processor" in done.stdout


def test_without_a_card_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a card: here is one")
    done = check(status=1)
    assert "torch: device = cuda:0 is not here: torch finds no card that it can use" in done.stderr
    assert "flat: device = cuda:0 is not here: FAISS finds no card, or is faiss-cpu" in done.stderr
