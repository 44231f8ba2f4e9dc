"""Move an open index from FAISS's scanner to the compiled search as soon as its kernels are ready.

Each search calls `EngineSwitch.look` before it starts; `look` never waits. If the kernels are not ready, `look` starts
a background process that compiles them (`kernel_cache.start_compiling`). If they are ready, `look` starts a thread,
which loads the kernels, fills a compiled scanner with the codes of the index, and hands the scanner to the index.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from semcut.indexes.errors import InvalidParameterError, shown
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.choose import apply_changes, build_scanner, changed_rows
from semcut.indexes.scanners.engine_names import choose_engine

if TYPE_CHECKING:
    from semcut.indexes.faiss_index import FaissIndex
    from semcut.indexes.scanners.choose import AnyScanner
    from semcut.indexes.storage.snapshot import Snapshot

_LOOK_SECONDS = 0.2
"""Minimum time between two checks for kernels, in seconds."""
_RETRY_SECONDS = 0.02
"""Time until the next attempt to hand over the scanner, in seconds, if a change of the index was running."""

# In a forked process, a lock that another thread held at the fork is never released. So forking waits for this lock.
# It is held while a process is started, and while the thread may hold any other lock: of the import system, of numba,
# of an index or of its snapshot.
_fork_lock = threading.RLock()
_moving = threading.Lock()
"""Held by the thread that moves an index together with `_fork_lock`, so that `look` need not wait for that lock."""
os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release)


class EngineSwitch:
    """Moves one index to the compiled search. Has only a weak reference to the index.

    Args:
        index: the index to move.
    """

    def __init__(self, index: FaissIndex) -> None:
        self._index = weakref.ref(index)
        self._next_look = 0.0
        self._done = False
        self._thread: threading.Thread | None = None

    def look(self) -> bool:
        """Check for kernels, and start the compilation or the move if possible, without waiting for either.

        Returns:
            Whether to call this again: False if the index was moved or cannot be moved.
        """
        now = time.monotonic()
        if now < self._next_look or _moving.locked():
            return True
        with _fork_lock:
            self._next_look = now + _LOOK_SECONDS
            if self._done:
                return False
            if self._thread is not None and self._thread.is_alive():  # False in a fork of this process
                return True
            if kernel_cache.ready_directory() is not None:
                self._thread = threading.Thread(target=self._move, name="semcut engine switch")
                self._thread.start()
                return True
            return kernel_cache.start_compiling()

    def _move(self) -> None:
        try:
            with _fork_lock, _moving:
                from semcut.indexes.warmup import load_kernels

                load_kernels()
            self._hand_over()
        except Exception as error:
            kernel_cache.warn_once(
                f"compiled search kernels cannot be used, FAISS keeps scanning, several times slower: {error}"
            )
        finally:
            self._done = True

    def _hand_over(self) -> None:
        """Fill a compiled scanner, apply the changes that were made meanwhile, and hand the scanner to the index.

        References to the index are dropped between steps, so that an index that is no longer used can be freed while
        its codes are copied. The loop ends with the main thread, since Python waits for this thread at exit.
        """
        scanner: AnyScanner | None = None
        before: Snapshot | None = None
        while threading.main_thread().is_alive():
            with _fork_lock, _moving:
                index = self._index()
                state = None if index is None else index._current()
                del index
                if state is None:
                    return
                if scanner is None or before is None or state.columns.sources is not before.columns.sources:
                    scanner = build_scanner(state, "compiled", "cpu")
                elif state is not before:
                    apply_changes(scanner, state, *changed_rows(before, state))
                before = state
                index = self._index()
                if index is None or index._adopt(scanner, state):
                    return
                del index
            time.sleep(_RETRY_SECONDS)


def engine_given(given: str, device: str) -> str:
    """Return the name of the engine for an index, see `choose_engine`; compile its kernels if it was named.

    Raises:
        InvalidParameterError, MissingDependencyError: as for `choose_engine`.
    """
    if not isinstance(given, str):
        raise InvalidParameterError(f"engine = {shown(given)}, expected a name")
    if not isinstance(device, str):
        raise InvalidParameterError(f"device = {shown(device)}, expected cpu, cuda or cuda with a number")
    name = choose_engine(given, device)
    if name == "compiled":
        from semcut.indexes.warmup import compile_if_missing

        compile_if_missing()
    return name
