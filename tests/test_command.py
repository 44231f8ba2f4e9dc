"""The installed `semcut` prints and exits like the command that tests call in their own process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from semcut.indexes import FaissIndex, IndexConfig
from tests.command import SEMCUT, semcut


@pytest.fixture
def place(tmp_path: Path) -> Path:
    FaissIndex.create(tmp_path / "index", IndexConfig(classes=3, bits=32, dim=4)).close()
    return tmp_path


@pytest.mark.parametrize(("arguments", "status"), [(["index"], 0), (["nowhere"], 1), ([], 2)])
def test_a_process_prints_and_exits_as_the_command_in_this_process_does(
    arguments: list[str], status: int, place: Path
) -> None:
    here = semcut("info", *arguments, cwd=place, status=status)
    there = subprocess.run(
        [SEMCUT, "info", *arguments], cwd=place, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert (there.returncode, there.stdout, there.stderr) == (status, here.stdout, here.stderr)
    assert bool(here.stdout) is not bool(here.stderr)
