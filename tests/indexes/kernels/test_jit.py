"""The private parts of numba that kernels need exist, and the installed version of numba was tested."""

from __future__ import annotations

import importlib
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes.scanners.engine_names import available_engines

if "compiled" not in available_engines():
    pytest.skip("numba is not installed", allow_module_level=True)

from semcut.indexes.kernels import jit
from semcut.indexes.kernels.jit import NUMBA_TESTED, PRIVATE_PARTS, read_only
from semcut.indexes.scanners import lists_numba

ROOT = Path(__file__).parents[3]


def test_the_installed_numba_is_a_version_that_was_tested():
    """Fails with a newer numba: run all tests with it, then raise `NUMBA_TESTED`."""
    major, minor = map(int, version("numba").split(".")[:2])
    oldest, newest = NUMBA_TESTED
    assert oldest <= (major, minor) <= newest


def test_the_oldest_numba_that_was_tested_is_the_one_that_the_package_asks_for():
    (wanted,) = re.findall(r'"numba>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert NUMBA_TESTED[0] == tuple(map(int, wanted))


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in PRIVATE_PARTS for name in PRIVATE_PARTS[module]]
)
def test_the_private_parts_of_numba_that_kernels_need_are_there(module, name):
    found = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"numba {version('numba')} has no {module}.{name}"
        found = getattr(found, part)


def test_a_compiled_function_has_the_attributes_from_which_its_files_are_listed():
    file = lists_numba.search._cache._cache_file
    assert Path(file._index_path).parent == jit.DIRECTORY
    assert callable(file._load_index)
    assert Path(file._data_path("name")).parent == jit.DIRECTORY


def test_numba_is_imported_by_one_module_only():
    for file in (ROOT / "indexes").glob("**/*.py"):
        if file.name != "jit.py":
            assert not re.search(r"(import|from) (numba|llvmlite)\b", file.read_text()), file


def test_a_read_only_view_shares_its_memory_and_leaves_the_array_writable():
    array = np.zeros(3)
    view = read_only(array)
    array[1] = 5
    assert view.tolist() == [0, 5, 0]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
