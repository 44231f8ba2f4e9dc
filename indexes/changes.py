"""`Changes`: makes the changes of a `FaissIndex`, one after the other.

A change is written to the store, and is then published to searches. Which snapshot the store has, before the change or
after it, decides whether the change was made. Errors, and Ctrl-C at any moment, leave:

- an index in memory as it was before the change, or with the whole change: `settle` makes searches see the snapshot of
  the store, from scratch if the scanner was being changed;
- a stored index the same way, unless it is unknown whether the change was committed. Then the index is closed, and
  opening it again shows the committed state.

Locks are taken by `with` alone, and changes are functions that are passed in, for the reason that `shared_lock` gives.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidParameterError, LockedError, SemcutError, StorageError
from semcut.indexes.id_checks import refuse_known, refuse_unknown
from semcut.indexes.progress import Progress
from semcut.indexes.scanners.choose import AnyScanner
from semcut.indexes.searchable import Searchable
from semcut.indexes.storage.call_if_free import call_if_free
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.store import Store


class Changes:
    """Makes the changes of one index.

    Args:
        store: stores the records.
        searchable: the snapshot that searches see.

    Attributes:
        lock: held during a change, from before the first write until the change is published; reentrant.
        forked: whether this process is a child of the process that opened the index. It may search the index, refresh
            and close it.
    """

    def __init__(self, store: Store, searchable: Searchable) -> None:
        self._store, self._searchable = store, searchable
        self.lock = threading.RLock()
        self._running = threading.Lock()  # held during a change
        self._settled = True
        self.forked = False
        _ALL.add(self)

    def begin(self) -> None:
        """Become the writer, with the last committed snapshot.

        Raises:
            InvalidParameterError, LockedError, StorageError: as for `compact`.
        """
        self._run(lambda: None)

    def add(self, encodings: Encodings, *, replace: bool) -> None:
        """Add a batch with ids.

        Args:
            encodings: the batch.
            replace: whether records with these ids are replaced; otherwise they are refused.

        Raises:
            DuplicateIdError: an id is in the index already.
            InvalidParameterError, LockedError, StorageError: as for `compact`.
        """
        ids = encodings.ids
        assert ids is not None

        def change() -> None:
            rows = self._rows(ids)
            if not replace:
                refuse_known(ids, rows)
            self.publish(self._store.write(encodings, rows[rows >= 0]))

        self._run(change)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove records.

        Raises:
            UnknownIdError: an id is not in the index.
            InvalidParameterError, LockedError, StorageError: as for `compact`.
        """

        def change() -> None:
            rows = self._rows(ids)
            refuse_unknown(ids, rows)
            self.publish(self._store.write(None, rows))

        self._run(change)

    def _rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        columns = self._searchable.snapshot.columns
        return columns.reading(lambda: self._searchable.id_map().rows(ids))

    def compact(self, progress: Progress | None) -> None:
        """Commit postponed changes, and compact the store.

        Raises:
            InvalidParameterError: a change is running in this thread, and its progress callback calls this.
            LockedError, StorageError: the store cannot be written. If postponed changes could not be committed, they
                are lost, and the index is closed.
        """

        def change() -> None:
            self.flush()
            self.publish(self._store.compact(progress))

        self._run(change)

    def flush(self) -> None:
        """Commit the changes that durability "close" has postponed; the caller holds `lock`.

        Raises:
            StorageError: the changes cannot be written. They are lost, and the index is closed.
        """
        try:
            self._store.flush()
        except BaseException:
            if self._store.path is not None:
                self.abandon()
            raise

    def _run(self, change: Callable[[], None]) -> None:
        """Call a function as a change: alone, as the writer, starting from the last committed snapshot."""
        with self.lock:
            self._searchable.check_open()
            self._refuse_after_fork()
            if self._running.locked():
                raise InvalidParameterError("an index cannot be changed by its own progress callback: wait for its end")
            with self._running:
                self._settled = False
                try:
                    self._store.begin()
                    self.publish(self._store.snapshot)
                    change()
                except BaseException as error:
                    self._end_after(error)
                    raise
                self._settled = True

    def _end_after(self, error: BaseException) -> None:
        """Bring the index into a known state after an error, or close it; a `MemoryError` becomes a `StorageError`."""
        if isinstance(error, SemcutError) and not isinstance(error, StorageError):
            self._settled = True
            return
        closed = False
        if self._store.path is None:
            self._restore()
        elif self._store.writing and not self._store.unchanged(self._searchable.snapshot):
            closed = True
            self.abandon()
        self._settled = True
        if isinstance(error, MemoryError):
            raise StorageError(
                "there is not enough memory for this change, which was made completely or not at all"
                + ("; open the index again to see" if closed else "")
            ) from None

    def settle(self) -> None:
        """Finish what an interrupted change has left undone; do nothing while a change is running."""
        if self._settled or self._running.locked():
            return
        with self.lock:
            if not self._searchable.closed:
                self._restore()
            self._settled = True

    def _restore(self) -> None:
        try:
            self._searchable.restore(self._store.snapshot)
        except MemoryError:
            self.abandon()
            raise

    def publish(self, after: Snapshot) -> None:
        """Make searches see a snapshot; if that fails, close a stored index, unless it is a reader's and unchanged."""
        if after is self._searchable.snapshot:
            return
        try:
            self._searchable.publish(after)
        except BaseException:
            if self._store.path is not None and (self._store.writing or not self._searchable.whole):
                self.abandon()
            raise

    def abandon(self) -> None:
        """Close the index at once. Changes that the store has not committed are lost."""

        def close() -> None:
            self._searchable.closed = True
            self._store.close()

        self._searchable.lock.write(close)

    def adopt(self, scanner: AnyScanner, snapshot: Snapshot) -> bool:
        """Search with the compiled scanner from now on, unless that would have to wait for a change.

        Args:
            scanner: the scanner, with the codes of the snapshot.
            snapshot: the snapshot that searches are expected to see.

        Returns:
            Whether searches use the scanner now. They do not if a change is running, if a change has replaced the
            snapshot, or if the index is closed.
        """
        adopted = False

        def adopt() -> None:
            nonlocal adopted
            searchable = self._searchable
            if not searchable.closed and searchable.snapshot is snapshot and self._settled:
                searchable.adopt(scanner)
                adopted = True

        call_if_free(self.lock, adopt)
        return adopted

    def _refuse_after_fork(self) -> None:
        if not self.forked:
            return
        path = self._store.path
        raise LockedError(
            "the index in memory was made before this process was forked, and only the process that made it can change "
            "it: change it there, or store it with backup() and open it in both"
            if path is None
            else f"the index {path} was opened before this process was forked: open it again here"
        )

    def after_fork(self) -> None:
        """Make the index searchable in a forked child, whatever threads were doing that the child does not have.

        A change of such a thread is not continued here. `settle` makes searches see the last snapshot of the store,
        with a new scanner if the thread was changing it.
        """
        self._searchable.after_fork()
        self.forked = True
        if not call_if_free(self.lock, lambda: None):
            self.lock, self._running, self._settled = threading.RLock(), threading.Lock(), False


_ALL: weakref.WeakSet[Changes] = weakref.WeakSet()


def _after_fork() -> None:
    for changes in list(_ALL):
        changes.after_fork()


os.register_at_fork(after_in_child=_after_fork)
