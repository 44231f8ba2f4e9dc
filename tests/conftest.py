"""What has to be settled before anything else is imported, in every process that runs tests.

How much is tried. That threads without work sleep: those of OpenMP would otherwise take the processor from other tests.
And that Ctrl-C reaches the commands that tests start, also where a shell that ignores it runs the tests in its
background.
"""

from __future__ import annotations

import os
import signal

import pytest

import tests.thorough  # noqa: F401

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no process goes on alone in the end."""
    long = ("test_readme.py", "test_packaging.py", "test_gpu_check.py")
    items.sort(key=lambda item: item.path.name not in long)
