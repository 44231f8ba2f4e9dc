"""Locks that are free in every forked child, because a fork waits for them.

A forked child has only the thread that forked. A lock that another thread held at that moment stays locked in the child
for ever, and what it protects stays half done. Locks of Python can be made anew in the child; those within a library,
such as SQLite's, cannot. So a call of such a library is made under a lock from here, and a fork waits for all of them.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PAUSE = 0.0005  # seconds, until a fork tries again

_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()
_listing = threading.RLock()  # held while the set is used
_guard = threading.RLock()  # held during a fork
_thread = threading.local()  # `.depth`: the number of locks that the thread holds
_held: list[Any] = []


class ForkWait:
    """A reentrant lock for which every fork of this process waits, unless the forking thread holds it.

    A thread may hold several.
    """

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        with _holding(_listing):
            _LOCKS.add(self._lock)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock during the block."""
        if not getattr(_thread, "depth", 0):
            with _guard:  # a fork that waits goes first, however often the lock is taken
                pass
        with _holding(self._lock):
            yield


@contextmanager
def _holding(lock: Any) -> Iterator[None]:
    """Hold a lock that forks wait for; until it is released, this thread takes other locks without waiting for forks.

    The garbage collector can run in any line, and with it the finalizer of a catalogue, which takes a lock. So the
    depth is larger for longer than the lock is held.
    """
    depth = getattr(_thread, "depth", 0)
    try:
        _thread.depth = depth + 1
        with lock:
            yield
    finally:
        _thread.depth = depth


def _before_fork() -> None:
    _guard.acquire()
    while not _all_acquired():
        while _held:  # a thread that holds one lock may be about to take another
            _held.pop().release()
        time.sleep(_PAUSE)


def _all_acquired() -> bool:
    with _listing:
        locks = list(_LOCKS)
    for lock in locks:
        if not lock.acquire(blocking=False):
            return False
        _held.append(lock)
    return True


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _guard.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
