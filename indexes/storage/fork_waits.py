"""Locks that are free in every forked child, because a fork waits for them.

A forked child has only the thread that forked. A lock that another thread held at that moment stays locked in the child
for ever, and what it protects stays half done. Locks of Python can be made anew in the child; those within a library,
such as SQLite's, cannot. So a call of such a library is made under a lock from here, and a fork waits for all of them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()
_guard = threading.RLock()  # held while the set grows, and during a fork
_held: list[Any] = []


class ForkWait:
    """A reentrant lock for which every fork of this process waits, unless the forking thread holds it."""

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        with _guard:
            _LOCKS.add(self._lock)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock during the block."""
        if not self._lock._is_owned():
            with _guard:  # a fork that waits for this lock goes first, however often the lock is taken
                pass
        with self._lock:
            yield


def _before_fork() -> None:
    _guard.acquire()
    for lock in list(_LOCKS):
        lock.acquire()
        _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _guard.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
