"""How much is tried is known before anything that asks is imported. Ctrl-C reaches the commands that tests start, also
where a shell that ignores it runs the tests in its background."""

from __future__ import annotations

import signal

import tests.thorough  # noqa: F401

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
