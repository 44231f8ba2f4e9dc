"""A lock for the threads of one process, which any number of readers or one writer can hold.

A waiting writer takes the lock before readers that request it later, so that a stream of searches cannot delay an add
for ever.

Ctrl-C can interrupt Python code after any step, so a reader that counts itself in and out would sometimes stay counted,
and writers would wait for ever. This lock counts nothing. Every reading thread has a lock of its own, which it holds
while it reads; a writer closes a gate, so that no reader starts, and takes the lock of every thread once. All of these
are locks of the system that only `with` statements take and release, which CPython interrupts before or after, never
between taking a lock and the block. That is why a reader writes its own loop, and a writer passes a function: a context
manager written in Python could be interrupted between its parts.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class SharedLock:
    """A lock that readers hold together and a writer holds alone.

    It is not reentrant: a function that runs under the lock must not request it again.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._of_threads: dict[int, Any] = {}  # an RLock for each thread that has read
        self._writer: int | None = None
        _LOCKS.add(self)

    def of_this_thread(self) -> Any:
        """Return the RLock of the calling thread. A reader holds it, and reads if `is_open`; else it must `wait`.

        while True:
            with lock.of_this_thread():
                if lock.is_open():
                    return ...  # what the reader does
            lock.wait()
        """
        thread = threading.get_ident()
        own = self._of_threads.get(thread)
        return self._of_threads.setdefault(thread, threading.RLock()) if own is None else own

    def is_open(self) -> bool:
        """Return whether a reader that holds the lock `of_this_thread` may read."""
        return not self._gate.locked()

    def wait(self) -> None:
        """Wait for the writer, without holding the lock `of_this_thread`."""
        with self._gate:
            pass

    def write(self, call: Callable[[], _T]) -> _T:
        """Call a function while holding the lock alone, and return its result."""
        with self._gate:
            try:
                self._writer = threading.get_ident()
                for own in list(self._of_threads.values()):
                    with own:
                        pass
                return call()
            finally:
                self._writer = None

    def after_fork(self) -> None:
        """Forget, in a forked child, the locks of threads that the child does not have.

        The gate may be held by a reader that waits at it, which Python cannot see. So it is always made anew, unless
        this thread is the writer. What another thread was writing is incomplete: see `Changes.after_fork`.
        """
        if self._writer != threading.get_ident():
            self._gate, self._writer = threading.Lock(), None
        self._of_threads = {}


_LOCKS: weakref.WeakSet[SharedLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_LOCKS):
        lock.after_fork()


os.register_at_fork(after_in_child=_after_fork)
