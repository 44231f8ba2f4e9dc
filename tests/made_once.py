"""What is costly to make is made once for all processes of a test run, by the first process that needs it.

No test may change what is made, so that no result depends on the order of the tests.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the directory `name`, empty before `make(directory)` was called for it; other processes wait for that."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    place, finished = root / name, root / f"{name}.finished"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            place.mkdir()
            make(place)
            finished.touch()
    return place
