"""Ctrl-C at every moment of a call at which CPython can notice it, kept as the interactive interpreter keeps it."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class _Interrupt:
    """Raises `KeyboardInterrupt` at one of the moments, the n-th, and counts up to it."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_return"):  # a function of Python begins or goes on, one of C ends
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def ends(call: Callable[[], object]) -> bool:
    """Return whether a function ends without an error in another thread."""
    ended: list[object] = []
    thread = threading.Thread(target=lambda: ended.append(call()), daemon=True)
    thread.start()
    thread.join(10)
    return bool(ended)


def interrupted_everywhere(call: Callable[[], object], check: Callable[[], object]) -> int:
    """Call a function until it is no longer interrupted, each time at a later moment; return the number of interrupts.

    All exceptions are kept, and with them the frames and the generators that they went through.

    Args:
        call: what is interrupted.
        check: called in another thread after each interrupt; must not wait for ever.
    """
    kept: list[BaseException] = []
    gc.collect()
    gc.freeze()  # else each of many collections looks at all that other tests have left
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # a finalizer's is lost
    try:
        for moment in itertools.count(1):
            interrupt = _Interrupt(moment)
            try:
                sys.setprofile(interrupt)
                try:
                    call()
                finally:
                    sys.setprofile(None)
            except KeyboardInterrupt as error:
                kept.append(error)
            if interrupt.left > 0:
                break
            assert ends(check), f"after an interrupt at moment {moment}"
    finally:
        sys.unraisablehook = hook
    return len(kept)
