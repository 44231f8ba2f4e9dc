"""What holds for all tests.

Ctrl-C reaches the commands that they start, also where a shell that ignores it runs the tests in its background. And
kernels are compiled before the first of them, so that they test the compiled engine and none of them waits for it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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
