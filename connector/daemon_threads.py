"""`DaemonThreads`: runs calls in threads that never delay the end of the process, and `leave`, which ends it at once.

Python waits at its end for every call that a `ThreadPoolExecutor` has begun: after Ctrl-C, for images that take
seconds to decode. The calls here compute something and write nothing, so nothing is lost if they are dropped.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_T = TypeVar("_T")
_Call = tuple["Future[Any]", Callable[[], Any]]

_running: set[Future[Any]] = set()
"""The calls that have begun, in the whole process."""


class DaemonThreads:
    """A number of threads, and a queue of calls for them. The threads end when the object is stopped or not used.

    Args:
        threads: their number.
        name: their name.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=_work, args=(self._calls,), name=name, daemon=True).start()
        self._end = weakref.finalize(self, _end, self._calls, threads)

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Run a call as soon as a thread is free; it can be cancelled until then."""
        future: Future[_T] = Future()
        self._calls.put((future, call))
        return future

    def stop(self) -> None:
        """Cancel the calls that wait, and wait for none that has begun. Submit nothing afterwards."""
        self._end()


def result_of(future: Future[_T]) -> _T:
    """Wait for the result of a call, and look twice a second whether Ctrl-C came just before the wait began."""
    while not future.done():
        wait((future,), timeout=0.5)
    return future.result()


def _end(calls: SimpleQueue[_Call | None], threads: int) -> None:
    with contextlib.suppress(Empty):
        while waiting := calls.get_nowait():
            waiting[0].cancel()
    for _ in range(threads):
        calls.put(None)


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (submitted := calls.get()) is not None:
        _run(*submitted)
        del submitted  # and the result with it, while the thread waits


def _run(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    _running.add(future)
    try:
        result = call()
    except BaseException as error:
        _running.discard(future)
        future.set_exception(error)
    else:
        _running.discard(future)
        future.set_result(result)


def leave(status: int, message: str = "") -> None:
    """If a call still runs, print a message on standard error and end the process; otherwise do nothing.

    Call this when everything is closed. A thread that comes back from C++ while Python takes itself apart would crash
    the process, so that does not happen; what is registered with `atexit` is called.
    """
    if _running:
        if message:
            print(f"{message}\n", end="", file=sys.stderr)  # in one piece: threads still run and may print too
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a closed pipe
                stream.flush()
        os._exit(status)
