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
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat, starmap, takewhile
from operator import methodcaller
from typing import Any

_PAUSE = 0.0005  # seconds, until a fork tries again
_INTERRUPTS = 100  # how often a fork waits on after an exception, such as one of Ctrl-C

_LOCKS: weakref.WeakSet[Any] = weakref.WeakSet()
_listing = threading.RLock()  # held while the set is used, and during a fork
_guard = threading.RLock()  # held during a fork
_thread = threading.local()  # `.depth`: the number of locks that the thread holds
_left: deque[tuple[Any, Callable[[], object]]] = deque()  # calls for `_call_what_was_left`, each with its lock
_held: list[Any] = []  # by the thread that forks: the guard first


class ForkWait:
    """A reentrant lock for which every fork of this process waits, unless the forking thread holds it.

    A thread may hold several.
    """

    def __init__(self) -> None:
        self._lock: Any = threading.RLock()
        _call_what_was_left()
        with _holding(_listing):
            _LOCKS.add(self._lock)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock during the block."""
        if not getattr(_thread, "depth", 0):
            with _guard:  # a fork that waits goes first, however often the lock is taken
                pass
            _call_what_was_left()
        with _holding(self._lock):
            yield

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call a function under the lock; where that would have to wait, when any of these locks is made or taken next.

        For finalizers: the garbage collector can run them in a thread for which a fork waits, by a lock of a library,
        and Ctrl-C can come in any line.
        """
        held: list[Any] = []
        try:
            held.extend(takewhile(methodcaller("acquire", False), (_guard, self._lock)))
            if len(held) == 2:
                call()
            else:
                _left.append((self._lock, call))
        finally:
            while held:
                try:  # Ctrl-C comes at the end of a call, so it must not be one that makes ready for it
                    deque(map(methodcaller("release"), starmap(held.pop, repeat((), len(held)))), 0)
                except BaseException:  # noqa: PERF203, S112
                    continue


def _call_what_was_left() -> None:
    while _left:
        try:
            lock, call = _left.popleft()
        except IndexError:  # another thread was faster
            return
        with _holding(lock):
            call()


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
    interrupt = None
    for _ in range(_INTERRUPTS):
        try:
            _wait_for_all()
            break
        except BaseException as error:  # the system forks nevertheless
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _wait_for_all() -> None:
    _acquire([_guard], True)  # another thread that forks holds it until its fork is over
    while True:
        _release(1)  # a thread that holds one lock may be about to take another
        if _acquire([_listing], False) and _acquire(list(_LOCKS), False):  # none is listed until the fork is over
            return
        time.sleep(_PAUSE)


def _acquire(locks: list[Any], blocking: bool) -> bool:
    """Acquire locks up to the first that is not free; return whether all were.

    Ctrl-C comes between two lines of Python: each lock is acquired and remembered, or released and forgotten, by one.
    """
    before = len(_held)
    _held.extend(takewhile(methodcaller("acquire", blocking), locks))
    return len(_held) - before == len(locks)


def _release(left: int) -> None:
    """Release the locks that were acquired last, until this number of them is left."""
    deque(map(methodcaller("release"), starmap(_held.pop, repeat((), max(0, len(_held) - left)))), 0)


def _after_fork() -> None:
    for _ in range(_INTERRUPTS):
        with suppress(BaseException):
            _release(0)
            return


for _ in range(2):  # Ctrl-C can come before the first line of a function that is called at a fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
