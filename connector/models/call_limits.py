"""`CallLimits`: ends a call that takes too much processor time or memory, also one that loops in Python for ever.

What a description from outside has torch and other libraries do is bounded by what they call back: `check` raises an
error there. A loop that calls nothing back is ended from another thread, with an exception that Python raises in the
thread of the call between two steps. That can come at any step, also while a library puts something back, so it is the
last resort: it comes only when the call has gone on for `_GRACE` seconds beyond a limit without a check.

Not even this ends a single operation of C; what one takes is limited by the sizes of settings and tensors.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from semcut.indexes.errors import CheckpointError

_T = TypeVar("_T")
_GRACE, _AGAIN, _LOOK_SECONDS, _BYTES = 3.0, 3.0, 0.25, 2 << 30
"""Seconds of processor time until the last resort, and between two of them; seconds between two looks; and how much a
process may grow."""


class _Over(BaseException):
    """Ends a call; never leaves this module. No handler of `Exception` takes it for an error of its own."""


class CallLimits:
    """Limits for what the thread that creates this object does from now on.

    Args:
        seconds: of processor time.
        sentence: the message of the error, with `{}` where the limit stands, such as "60 s".
    """

    def __init__(self, seconds: float, sentence: str) -> None:
        self._thread, self._clock = threading.get_ident(), _clock_of_this_thread()
        self._end = self._clock() + seconds
        self._most = _memory() + _BYTES
        self._late = sentence.format(f"{seconds} s")
        self._large = sentence.format(f"{_BYTES >> 20:,} MiB of memory")
        self._lock, self._runs, self._reason = threading.Lock(), False, ""

    def check(self) -> None:
        """Raise an error if a limit was passed; for calls back, in the same thread.

        Raises:
            CheckpointError: it was.
        """
        if not self._reason and self._clock() > self._end:
            self._reason = self._late
        if self._reason:
            raise CheckpointError(self._reason)

    def run(self, call: Callable[[], _T]) -> _T:
        """Return what a call returns.

        Raises:
            CheckpointError: it takes more than a limit.
        """
        left = threading.Event()
        watch = threading.Thread(target=self._watch, args=(left,), name="limits", daemon=True)
        try:
            self._runs = True
            try:
                watch.start()
                return call()
            finally:
                self._stop()
        except BaseException as error:  # the first stop may itself be what was ended, by Ctrl-C or the last resort
            self._stop()
            if isinstance(error, _Over):
                raise CheckpointError(self._reason) from None
            raise
        finally:
            left.set()
            if watch.is_alive():
                watch.join()

    def _stop(self) -> None:
        """Have the watch raise nothing more, and take back what it has raised and is still to come."""
        while self._runs:
            with contextlib.suppress(_Over), self._lock:
                _raise_in(self._thread, None)
                self._runs = False
        # CPython 3.11 goes on looking for an exception that was taken back: one that comes ends that
        with contextlib.suppress(_Over):
            _raise_in(self._thread, _Over)
            for _ in range(100):
                pass

    def _watch(self, left: threading.Event) -> None:
        next_time: float | None = None
        while not left.wait(_LOOK_SECONDS):
            now = self._clock()
            if next_time is None:
                if now <= self._end and _memory() <= self._most:
                    continue
                self._reason, next_time = self._late if now > self._end else self._large, now + _GRACE
            # again, if a handler of all exceptions has taken the last one; far later in the time of that thread, so
            # that none comes while it deals with one
            if now >= next_time:
                next_time = now + _AGAIN
                with self._lock:
                    if self._runs:
                        _raise_in(self._thread, _Over)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have a thread raise an exception at its next step; None takes back one that is still to come."""
    value = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)


def _clock_of_this_thread() -> Callable[[], float]:
    """Return a clock of the processor time of this thread for all threads; that of the process on macOS."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.process_time
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime(clock)


def _memory() -> int:
    """Return the memory that this process has, in bytes; the most that it had where that is not said."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
