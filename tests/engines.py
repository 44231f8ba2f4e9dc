"""Run some test modules once for each engine: a hook and a fixture, which `conftest.py` files import."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines
from tests.thorough import THOROUGH

SEARCH_MODULES = ("index", "digits", "faiss_index", "fuzz", "life", "many_users")
"""Test modules that run with each CPU engine in turn; thorough tests also run the GPU engines."""

STORAGE_MODULES = (
    "backup",
    "concurrency",
    "corruption",
    "crash",
    "damage",
    "failed_change",
    "index_commands",
    "killed_writer",
    "layout",
    "not_an_index",
)
"""Test modules that search stored indexes: with the default engine, and with each engine when tests are thorough."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the modules named in `SEARCH_MODULES` and `STORAGE_MODULES` once for each engine."""
    name = metafunc.module.__name__.rpartition(".test_")[2]
    if name in SEARCH_MODULES or (name in STORAGE_MODULES and THOROUGH):
        others = [*available_engines()[1:], *(("torch", "flat") if THOROUGH else ())]
        engines = [os.environ[ENGINE_VARIABLE]] if os.environ.get(ENGINE_VARIABLE) else ["auto", *others]
        metafunc.parametrize("engine_of_the_module", engines, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine_of_the_module(request) -> Iterator[None]:
    """Search every index, in child processes too, with the engine that is the parameter; "auto" is the default one."""
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "auto") != "auto":
            patch.setenv(ENGINE_VARIABLE, request.param)
        yield
