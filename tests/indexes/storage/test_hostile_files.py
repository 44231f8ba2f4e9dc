"""Forged indexes by the hundred are used or refused, never a crash: see `hostile_files`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semcut.indexes.scanners.engine_names import available_engines
from tests.thorough import THOROUGH

ROOT = Path(__file__).parents[3]


def use_forged(directory: Path, first: int, count: int, engine: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.indexes.storage.hostile_files", directory, str(first), str(count), engine],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"seed {lines[-1:]}, exit status {done.returncode}: {done.stderr[-3000:]}"
    assert count * 0.1 < int(lines[-1].split()[1]) < count * 0.9


@pytest.mark.parametrize("engine", ["auto", "faiss"])
def test_forged_indexes_are_used_or_refused(tmp_path, engine):
    use_forged(tmp_path, 0 if engine == "auto" else 10_000, 1000 if THOROUGH else 40, engine)


@pytest.mark.long
@pytest.mark.skipif("compiled" not in available_engines(), reason="numba is not installed")
def test_no_kernel_reads_or_writes_out_of_bounds(tmp_path):
    """Kernels are compiled anew, with a check of every index."""
    cache = tmp_path / "cache"
    use_forged(tmp_path, 20_000, 300, "compiled", NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(cache))
