"""What has to be settled before anything else is imported, in every process that runs tests.

How much is tried. That threads without work sleep, and that OpenMP has one in each of several processes of tests: they
would otherwise take the processor from other tests. That Ctrl-C reaches the commands that tests start, also where a
shell that ignores it runs the tests in its background. And that kernels are compiled before the first test, so that all
test the compiled engine and none waits for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tests.thorough  # noqa: F401

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels, where they are not ready, before any worker of pytest-xdist is started."""
    config = session.config
    if hasattr(config, "workerinput") or config.option.collectonly or find_spec("numba") is None:
        return
    done = subprocess.run([Path(sys.executable).with_name("semcut"), "warmup"], capture_output=True, text=True)
    if done.returncode:
        pytest.exit(f"`semcut warmup` has failed:\n{done.stdout}{done.stderr}", done.returncode)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process goes on alone in the end."""
    long = ("test_documents.py", "test_typing.py", "test_packaging.py", "test_gpu_check.py")
    items.sort(key=lambda item: item.path.name not in long)
