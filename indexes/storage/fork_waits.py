"""A lock that is free in every forked child, because a fork waits for it.

A forked child has only the thread that forked. A lock that another thread held at that moment stays locked in the child
for ever, and what it protects stays half done. Locks of Python can be made anew in the child; those within a library,
such as SQLite's, cannot. So a call of such a library is made under a lock from here, and a fork waits for all of them.

Every thread has a lock of its own, which it can take several times, so threads wait for forks and never for each other.
It is a lock of the system that only `with` statements take, for the reason that `shared_lock` gives: a context manager
written in Python could be interrupted between its parts, and would hold the lock for as long as a program keeps the
exception, as the interactive interpreter does.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat, starmap, takewhile
from operator import methodcaller
from typing import Any

from semcut.indexes.storage.call_if_free import call_if_free

_PAUSE = 0.0005  # seconds, until a fork tries again
_INTERRUPTS = 100  # how often a fork waits on after an exception, such as one of Ctrl-C

_of_threads: dict[int, Any] = {}  # an RLock for each thread that has used one
_listing: Any = threading.RLock()  # held while an RLock is listed, by finalizers, and during a fork
_guard = threading.RLock()  # held during a fork
_left: deque[Callable[[], object]] = deque()  # calls that finalizers left to `lock`
_held: list[Any] = []  # by the thread that forks: the guard first


def lock() -> Any:
    """Return the lock of the calling thread, for a `with` statement and nothing else; it is reentrant.

    Every fork of this process waits for the end of the block, unless this thread forks.
    """
    thread = threading.get_ident()
    own = _of_threads.get(thread)
    if own is None:
        with _listing:
            own = _of_threads.setdefault(thread, threading.RLock())
    if (_held or _left) and not _holds(own):
        with _guard:  # a fork that waits goes first, however often the lock is taken
            pass
        with own:
            _call_what_was_left()
    return own


def _holds(own: Any) -> bool:
    """Return whether this thread holds a lock that a fork may wait for.

    It must not wait for that fork then. Even code that never takes two locks can: the garbage collector can run in any
    line, and with it a finalizer that opens an index.
    """
    return bool(own._is_owned() or _listing._is_owned())  # as `threading.Condition` asks


def _call_what_was_left() -> None:
    with suppress(IndexError):  # none is left, or another thread was faster
        while True:
            _left.popleft()()


def call_soon(call: Callable[[], object]) -> None:
    """Call a function while no fork happens; where that would have to wait, when any thread uses `lock` next.

    For finalizers: the garbage collector can run them in a thread for which a fork waits, by a lock of a library, and
    Ctrl-C can come in any line.
    """
    if not call_if_free(_listing, call):
        _left.append(call)


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
    if _guard._is_owned() and len(_held) == 2 + len(_of_threads):  # type: ignore[attr-defined]
        return  # the other hook was called; to release the locks once more would let threads go first
    _acquire([_guard], True)  # another thread that forks holds it until its fork is over
    while True:
        _release(1)  # a thread that holds one lock may be about to take another
        if _acquire([_listing], False) and _acquire(list(_of_threads.values()), False):  # no thread lists another one
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
