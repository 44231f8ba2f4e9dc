"""Settings for every process that runs tests, made before other modules are imported.

- `tests.thorough` chooses how many cases the tests try.
- OpenMP threads without work sleep, and each of several test processes has one OpenMP thread. Otherwise waiting threads
  would take processor time from other tests.
- Ctrl-C reaches the commands that tests start, even if a shell that ignores Ctrl-C runs the tests in the background.
- Kernels are compiled before the first test, so that all tests use the compiled engine and no test waits for it.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
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


_warmup = pytest.StashKey["subprocess.Popen[str]"]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start to compile the kernels, unless they are ready, while the tests are collected, here or in the workers."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or find_spec("numba") is None:
        return
    command = [Path(sys.executable).with_name("semcut"), "warmup"]
    config.stash[_warmup] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Wait for the kernels before the first test runs, here or in any worker of pytest-xdist."""
    warmup = session.config.stash.get(_warmup, None)
    if warmup is not None and warmup.wait():
        assert warmup.stdout is not None
        pytest.exit(f"`semcut warmup` has failed:\n{warmup.stdout.read()}", warmup.returncode)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the compilation, if the tests could not be collected."""
    if _warmup in config.stash:
        with config.stash[_warmup] as warmup:
            warmup.terminate()


def pytest_collection_finish() -> None:
    """Leave modules, tests and fixtures, which are kept to the end, out of all garbage collections."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no process is still running alone at the end."""
    long = (
        "test_kernel_cache.py",
        "test_faults.py",
        "test_documents.py",
        "test_typing.py",
        "test_packaging.py",
        "test_gpu_check.py",
    )
    items.sort(key=lambda item: item.path.name not in long)
