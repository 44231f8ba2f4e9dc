"""Move an open index from FAISS's scanner to the compiled search as soon as its kernels are ready.

Searches call `EngineSwitch.look` before they start; it never waits. Where it finds no kernels, it has a process in the
background compile them (`kernel_cache.start_compiling`). Where it finds them, it starts a thread, which loads the
kernels, fills a compiled scanner with the codes of the index, and hands the scanner to the index.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.choose import apply_changes, build_scanner, changed_rows

if TYPE_CHECKING:
    from semcut.indexes.faiss_index import FaissIndex
    from semcut.indexes.scanners.choose import AnyScanner
    from semcut.indexes.storage.snapshot import Snapshot

_LOOK_SECONDS = 0.2
"""Seconds between two looks for kernels."""
_RETRY_SECONDS = 0.02
"""Seconds until the next attempt to hand over the scanner, after the index was found in the middle of a change."""

# A process that is forked while another thread holds a lock never sees that lock released. So forking waits for this
# lock, which is held while a process is started and while the thread may hold any other lock: of the import system, of
# numba, of an index or of its state.
_fork_lock = threading.RLock()
os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release)


class EngineSwitch:
    """Moves one index to the compiled search. It does not keep the index alive.

    Args:
        index: the index to move.
    """

    def __init__(self, index: FaissIndex) -> None:
        self._index = weakref.ref(index)
        self._next_look = 0.0
        self._done = False
        self._thread: threading.Thread | None = None

    def look(self) -> bool:
        """Start what can be started now, without waiting for it.

        Returns:
            Whether there is still something to look for: False after the index was moved, or cannot be moved.
        """
        now = time.monotonic()
        if now < self._next_look or not _fork_lock.acquire(blocking=False):
            return True
        try:
            self._next_look = now + _LOOK_SECONDS
            if self._done:
                return False
            if self._thread is not None and self._thread.is_alive():  # False in a process forked during the move
                return True
            if kernel_cache.ready_directory() is not None:
                self._thread = threading.Thread(target=self._move, name="semcut engine switch")
                self._thread.start()
                return True
            return kernel_cache.start_compiling()
        finally:
            _fork_lock.release()

    def _move(self) -> None:
        try:
            with _fork_lock:
                from semcut.indexes.warmup import load_kernels

                load_kernels()
            self._hand_over()
        except Exception as error:
            kernel_cache.warn_once(
                f"compiled search kernels cannot be used, FAISS scans on, several times slower: {error}"
            )
        finally:
            self._done = True

    def _hand_over(self) -> None:
        """Fill a compiled scanner, bring it up to date with each change meanwhile, and hand it to the index.

        References to the index are dropped between steps, so that an index that is no longer used can be freed while
        its codes are copied. The loop ends with the main thread, since Python waits for this thread at exit.
        """
        scanner: AnyScanner | None = None
        before: Snapshot | None = None
        while threading.main_thread().is_alive():
            with _fork_lock:
                index = self._index()
                state = None if index is None else index._current()
                del index
                if state is None:
                    return
                if scanner is None or before is None or state.committed.generation != before.committed.generation:
                    scanner = build_scanner(state, "compiled", "cpu")
                elif state is not before:
                    apply_changes(scanner, state, *changed_rows(before, state))
                before = state
                index = self._index()
                if index is None or index._adopt(scanner, state):
                    return
                del index
            time.sleep(_RETRY_SECONDS)
