"""Call a function under a lock only if the lock is free, with no moment at which Ctrl-C leaves the lock held.

A `with` statement is safe, because CPython never interrupts between taking a lock of the system and the block, see
`shared_lock`; but it waits. `acquire(blocking=False)` does not wait, but Ctrl-C can come when it returns: before the
result is stored, or before a `try` is entered. So here the lock is acquired and remembered by one call of C, and
released and forgotten by another one, for which everything is ready before; CPython interrupts between such calls only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import methodcaller
from typing import Any


def call_if_free(lock: Any, call: Callable[[], object]) -> bool:
    """Call a function while holding a lock, unless that would have to wait for another thread.

    Args:
        lock: a `threading.Lock` or `threading.RLock`.
        call: what to call.

    Returns:
        Whether the function was called.
    """
    held: list[Any] = []
    acquiring = filter(methodcaller("acquire", False), (lock,))
    releasing = map(methodcaller("release"), held)
    try:
        held.extend(acquiring)
        if held:
            call()
        return bool(held)
    finally:
        deque(releasing, 0)
