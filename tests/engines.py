"""Which modules of tests run once for each engine: a hook and a fixture for the `conftest.py` of their rooms."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines
from tests.thorough import THOROUGH

SEARCHING = ("index", "digits", "faiss_index", "fuzz", "life", "many_users")
"""Modules of tests that run with each engine of the processor, one after the other."""

STORING = (
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
"""Modules that search what they have stored: with the default engine, and with each engine when tests are thorough."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let the modules that are named above run once for each engine."""
    name = metafunc.module.__name__.rpartition(".test_")[2]
    if name in SEARCHING or (name in STORING and THOROUGH):
        others = [*available_engines()[1:], *(("torch", "flat") if THOROUGH else ())]
        engines = [os.environ[ENGINE_VARIABLE]] if os.environ.get(ENGINE_VARIABLE) else ["auto", *others]
        metafunc.parametrize("engine_of_the_module", engines, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def engine_of_the_module(request) -> Iterator[None]:
    """Search every index, also those of other processes, with the default engine and then with each other engine."""
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "auto") != "auto":
            patch.setenv(ENGINE_VARIABLE, request.param)
        yield
