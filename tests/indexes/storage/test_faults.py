"""Every call that touches the disk may fail, or be the last call of the process: see `faults`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.indexes.storage.faults import MODES
from tests.thorough import THOROUGH

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("mode", MODES)
def test_every_call_that_touches_the_disk_may_fail_or_be_the_last(tmp_path, mode):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.indexes.storage.faults", tmp_path, mode],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert len(counts) == 7
    assert min(calls for calls, _ in counts.values()) >= 20
    assert all(failed == calls if THOROUGH else failed > calls / 6 for calls, failed in counts.values())
