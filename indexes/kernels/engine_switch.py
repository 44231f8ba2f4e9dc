"""Moves an open index from FAISS's scanner to the compiled engine once the kernels of that are ready.

Searches look now and then. The first one that finds no kernels has a process beside compile them. The first one that
finds them starts a thread, which loads them, fills an engine with the codes, and hands it to the index.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.choose import advance, changed, engine_of

if TYPE_CHECKING:
    from semcut.indexes.faiss_index import FaissIndex
    from semcut.indexes.scanners.choose import AnyScanner
    from semcut.indexes.storage.snapshot import Snapshot

_EVERY = 0.2  # seconds between two looks
_BUSY = 0.02  # seconds after which to try again, when the index was being changed

# Held while a process is started, and while the thread may hold any other lock: of the import system, of numba, of an
# index or its state. A process that was forked meanwhile would never see that one released; so forking waits.
_no_fork = threading.RLock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)


class EngineSwitch:
    """Moves one index, which it does not keep alive."""

    def __init__(self, index: FaissIndex) -> None:
        self._index = weakref.ref(index)
        self._next = 0.0
        self._done = False
        self._thread: threading.Thread | None = None

    def look(self) -> bool:
        """Start what can be started now, without waiting for it; says whether there is anything left to look for."""
        now = time.monotonic()
        if now < self._next or not _no_fork.acquire(blocking=False):
            return True
        try:
            self._next = now + _EVERY
            if self._done:
                return False
            if self._thread is not None and self._thread.is_alive():  # not in a process that was forked meanwhile
                return True
            if kernel_cache.found() is not None:
                self._thread = threading.Thread(target=self._move, name="semcut engine switch")
                self._thread.start()
                return True
            return kernel_cache.start()
        finally:
            _no_fork.release()

    def _move(self) -> None:
        try:
            with _no_fork:
                from semcut.indexes.kernels.warmup import load

                load()
            self._hand_over()
        except Exception as error:
            kernel_cache.warn(f"compiled search kernels cannot be used, FAISS scans on, several times slower: {error}")
        finally:
            self._done = True

    def _hand_over(self) -> None:
        engine: AnyScanner | None = None
        before: Snapshot | None = None
        while threading.main_thread().is_alive():  # not after the end of the program, which waits for this thread
            with _no_fork:
                index = self._index()
                state = None if index is None else index._current()
                del index  # it may be let go of while its codes are copied
                if state is None:
                    return
                if engine is None or before is None or state.committed.generation != before.committed.generation:
                    engine = engine_of(state, "compiled", "cpu")
                elif state is not before:
                    advance(engine, state, *changed(before, state))
                before = state
                index = self._index()
                if index is None or index._adopt(engine, state):
                    return
                del index
            time.sleep(_BUSY)
