"""Settings for every process that runs tests, made before other modules are imported.

- `tests.thorough` chooses how many cases the tests try.
- OpenMP threads without work sleep, and each of several test processes has one OpenMP thread. Otherwise waiting threads
  would take processor time from other tests.
- Ctrl-C reaches the commands that tests start, even if a shell that ignores Ctrl-C runs the tests in the background.
- Kernels are compiled before the first test that may use them, so that all such tests use the compiled engine.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

import tests.thorough  # noqa: F401

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is loaded, which some tests do before semcut does
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

gc.disable()  # until the tests are collected: what is imported is kept

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


_WARMUP = "SEMCUT_TESTS_WARMUP"
"""The variable of the environment that names the process that compiles the kernels, until it is known to have ended."""
_warmup = pytest.StashKey["subprocess.Popen[bytes]"]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start to compile the kernels, unless they are ready, before any worker of pytest-xdist is started."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or find_spec("numba") is None:
        return
    command = [Path(sys.executable).with_name("semcut"), "warmup"]
    config.stash[_warmup] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    os.environ[_WARMUP] = str(config.stash[_warmup].pid)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the compilation, if no test has waited for it."""
    if _warmup in config.stash:
        with config.stash[_warmup] as warmup:
            warmup.terminate()


def _is_early(item: pytest.Item) -> bool:
    """Return whether a test needs no kernels, so that it can run while they are compiled."""
    return item.path.parent.name in ("data", "models", "training")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Wait until the kernels are compiled."""
    if _is_early(item) or _WARMUP not in os.environ:
        return
    with suppress(ProcessLookupError):  # it has ended
        process = os.pidfd_open(int(os.environ[_WARMUP]))
        select.select([process], [], [])
        os.close(process)
    del os.environ[_WARMUP]
    from semcut.indexes.kernels import kernel_cache

    if kernel_cache.ready_directory() is None:
        item.session.shouldfail = "`semcut warmup` has failed"
        pytest.fail(item.session.shouldfail)


def pytest_collection_finish() -> None:
    """Leave modules, tests and fixtures, which are kept to the end, out of all garbage collections."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tests that need no kernels first, in each worker of pytest-xdist a part of them, and then the longest.

    A worker gets a part of all tests in their order. If the longest come early, none is still running alone at the end.
    """
    long = (
        "test_kernel_cache.py",
        "test_faults.py",
        "test_documents.py",
        "test_typing.py",
        "test_packaging.py",
        "test_gpu_check.py",
    )
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    early = [item for item in items if _is_early(item)]
    later = sorted((item for item in items if not _is_early(item)), key=lambda item: item.path.name not in long)
    items[:] = [
        item
        for worker in range(workers)
        for part in (early, later)
        for item in part[len(part) * worker // workers : len(part) * (worker + 1) // workers]
    ]
