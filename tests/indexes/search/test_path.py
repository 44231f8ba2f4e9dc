"""The path of a search through the modules, as the page on the architecture lists it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.scanners.engine_names import available_engines
from tests.indexes.generate import classified, filled

ROOT = Path(__file__).parents[3]
CONFIG = IndexConfig(classes=6, bits=64, dim=8)
MOST = 8


def listed(path: str) -> list[tuple[str, str]]:
    """Modules and functions of a table in docs/architecture.md, from the public call on."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split(f"<!-- {path}: begin -->")[1].split(f"<!-- {path}: end -->")[0]
    return re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)` \|", table)


def modules_on_the_stack(frame: FrameType | None) -> list[str]:
    """Modules of the calls that lead here, from the public call on; one that calls itself counts once in a row."""
    found: list[str] = []
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.startswith("semcut."):
            file = name.removeprefix("semcut.").replace(".", "/") + ".py"
            if found[:1] != [file]:
                found.insert(0, file)
        frame = frame.f_back
    return found


def recording(function: Callable[..., Any], stacks: list[list[str]]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        stacks.append(modules_on_the_stack(sys._getframe(1)))
        return function(*arguments, **named)

    return call


def search_with(engine: str, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Search with one query, and give the path to the function `name` of `owner`."""
    rng = np.random.default_rng(0)
    index = filled(FaissIndex.create(None, CONFIG, engine=engine), [classified(rng, CONFIG, 500)])
    stacks: list[list[str]] = []
    monkeypatch.setattr(owner, name, recording(getattr(owner, name), stacks))
    index.search(classified(rng, CONFIG, 1), k=5, shortlist=20)
    assert stacks
    assert all(stack == stacks[0] for stack in stacks)
    return stacks[0]


@pytest.mark.skipif("compiled" not in available_engines(), reason="numba is not installed")
def test_a_compiled_search_reaches_its_kernel_as_the_page_says(monkeypatch):
    from semcut.indexes.search import compiled

    table = listed("path of a search")
    modules = [module for module, _ in table]
    assert len(modules) == len(set(modules))
    kernel = next(place for place, module in enumerate(modules) if module.endswith("search_numba.py"))
    path = search_with("compiled", compiled, "search", monkeypatch)
    assert path == modules[:kernel]
    assert len(path) + 1 <= MOST
    steps = import_module("semcut.indexes.search.search_numba")
    for module, function in table[kernel + 1 :]:
        kernel_function = getattr(steps, function).py_func
        assert kernel_function.__module__ == "semcut." + module.removesuffix(".py").replace("/", ".")


def test_a_vectorised_search_reaches_its_scanner_as_the_page_says(monkeypatch):
    from semcut.indexes.scanners.hamming_faiss_cpu import IvfScanner

    modules = [module for module, _ in listed("path of a vectorised search")]
    path = search_with("faiss", IvfScanner, "search", monkeypatch)
    assert [*path, "indexes/scanners/hamming_faiss_cpu.py"] == modules
    assert len(modules) == len(set(modules))
    assert len(modules) <= MOST


@pytest.mark.parametrize("path", ["path of a search", "path of a vectorised search"])
def test_every_function_that_is_listed_exists(path):
    for module, function in listed(path):
        owner: Any = import_module("semcut." + module.removesuffix(".py").replace("/", "."))
        for name in function.split("."):
            owner = getattr(owner, name)
        assert callable(owner)
