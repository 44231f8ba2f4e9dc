"""A process that compiles kernels is replaced if it ends too early, a limited number of times."""

from __future__ import annotations

import re

import numpy as np
import pytest

from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines
from tests.indexes.generate import classified
from tests.indexes.kernels.processes import compiling, directory_in, kill_compiling, wait_for_lock

if "compiled" not in available_engines():
    pytest.skip("numba is not installed", allow_module_level=True)

CONFIG = IndexConfig(classes=10, bits=64, dim=8)


def test_after_three_processes_that_failed_none_is_started(processes, tmp_path):
    """Processes fail like this if numba cannot compile."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import os, sys\nif sys.argv[:1] == ['-c'] and len(sys.argv) > 3:\n    os._exit(1)\n")
    script = """
index = FaissIndex.create(None, config)
index.add(records)
answer(index)
def start_later():
    kernel_cache._next_check = 0.0
    return kernel_cache.start_compiling()
print(engine(index), *[start_later() for _ in range(3)])
"""
    out, err = processes.output(tmp_path / "cache", script, PYTHONPATH=str(tmp_path))
    assert out == ["IvfScanner True True False"]
    assert len(re.findall("KernelCacheWarning: search kernels could not be compiled, 3 processes that tried", err)) == 1
    assert compiling(tmp_path / "cache") == []


STALLED = """
import os, time
if os.fork():
    os._exit(0)
time.sleep(600)  # in place of: from semcut.indexes.warmup import compile_kernels
"""


def test_a_process_that_compiles_is_replaced_when_it_has_died(tmp_path, monkeypatch):
    """Searches of one open index, as in a server, start a process again: at most three in all, one after the other."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    monkeypatch.setattr(kernel_cache, "_COMPILE", STALLED)
    monkeypatch.setattr(kernel_cache, "_next_check", 0.0)
    warnings: list[str] = []
    monkeypatch.setattr(kernel_cache, "warn_once", warnings.append)
    rng = np.random.default_rng(0)
    records = classified(rng, CONFIG, 50)

    def search(*, recheck: bool) -> None:
        index._switch._next_look = 0.0
        if recheck:
            kernel_cache._next_check = 0.0
        index.search(records[:2])

    try:
        with FaissIndex.create(None, CONFIG) as index:
            index.add(records)
            seen: list[int] = []
            for _ in range(3):
                search(recheck=True)
                (worker,) = compiling(tmp_path)
                assert worker not in seen
                seen.append(worker)
                search(recheck=True)
                assert compiling(tmp_path) == [worker]
                kill_compiling(tmp_path)
                wait_for_lock(directory_in(tmp_path) / "lock")
                search(recheck=False)  # the index has checked just before, and does not check again yet
                assert compiling(tmp_path) == []
            assert index._switch is not None
            assert warnings == []
            search(recheck=True)
            assert compiling(tmp_path) == []
            assert index._switch is None
            assert len(warnings) == 1
            assert "3 processes that tried have ended too early" in warnings[0]
    finally:
        kill_compiling(tmp_path)
