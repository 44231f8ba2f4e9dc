"""`Changes`: makes the changes of a `FaissIndex`, one after the other.

A change is written to the store, which commits it, and is then published to searches. If a change fails, the index is
as it was before. Where it is unknown whether the change was committed, the index is closed; opening it again shows the
committed state.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from semcut.indexes.errors import InvalidParameterError, SemcutError, StorageError
from semcut.indexes.scanners.choose import AnyScanner
from semcut.indexes.searchable import Searchable
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.store import Store


class Changes:
    """Makes the changes of one index.

    Args:
        store: stores the records.
        searchable: the snapshot that searches see.

    Attributes:
        lock: held during a change, from before the first write until the change is published; reentrant.
    """

    def __init__(self, store: Store, searchable: Searchable) -> None:
        self._store, self._searchable = store, searchable
        self.lock = threading.RLock()
        self._running = False

    @contextmanager
    def change(self) -> Iterator[None]:
        """Run the block as a change: alone, as the writer, starting from the last committed snapshot.

        Raises:
            InvalidParameterError: a change is running in this thread, and its progress callback calls this.
            LockedError, StorageError: the store cannot be written.
        """
        with self.lock:
            self._searchable.check_open()
            if self._running:
                raise InvalidParameterError("an index cannot be changed by its own progress callback: wait for its end")
            self._running = True
            try:
                self._store.begin()
                self.publish(self._store.snapshot)
                yield
            except BaseException as error:
                if isinstance(error, SemcutError) and not isinstance(error, StorageError):
                    raise
                closed = self._store.writing and not self._store.unchanged(self._searchable.snapshot)
                if closed:
                    self.abandon()
                if isinstance(error, MemoryError):
                    raise StorageError(
                        "there is not enough memory for this change, which was made completely or not at all"
                        + ("; open the index again to see" if closed else "")
                    ) from None
                raise
            finally:
                self._running = False

    def publish(self, after: Snapshot) -> None:
        """Make searches see a snapshot; if that fails, close the index."""
        if after is self._searchable.snapshot:
            return
        try:
            self._searchable.publish(after)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Close the index at once. Changes that the store has not committed are lost."""
        with self._searchable.lock.exclusive():
            self._searchable.closed = True
            self._store.close()

    def adopt(self, scanner: AnyScanner, snapshot: Snapshot) -> bool:
        """Search with the compiled scanner from now on, unless that would have to wait for a change.

        Args:
            scanner: the scanner, with the codes of the snapshot.
            snapshot: the snapshot that searches are expected to see.

        Returns:
            Whether searches use the scanner now. They do not if a change is running, if a change has replaced the
            snapshot, or if the index is closed.
        """
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._searchable.closed or self._searchable.snapshot is not snapshot:
                return False
            self._searchable.adopt(scanner)
            return True
        finally:
            self.lock.release()
