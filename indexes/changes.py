"""`Changes`: how one change of a `FaissIndex` at a time goes from the store to the searches.

A change is written to the store, which commits it, and is then published to searches. If it fails, the index is as it
was before; where that cannot be known, the index is closed, and opening it again tells.
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
    """The changes of one index.

    Args:
        store: where a change is written.
        searchable: what searches see.

    Attributes:
        lock: held by a change from before its first byte is written until it is published; reentrant.
    """

    def __init__(self, store: Store, searchable: Searchable) -> None:
        self._store, self._searchable = store, searchable
        self.lock = threading.RLock()
        self._running = False

    @contextmanager
    def change(self) -> Iterator[None]:
        """Make a change in the block: alone, as the writer, starting from the last committed snapshot.

        Raises:
            InvalidParameterError: the block of another change calls this, from its progress callback.
            LockedError, StorageError: the store cannot be written.
        """
        with self.lock:
            self._searchable.check_open()
            if self._running:
                raise InvalidParameterError("an index cannot be changed by its own progress callback: do so afterwards")
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
                        "there is not enough memory for this change: it was made whole or not at all"
                        + ("; open the index again to see" if closed else "")
                    ) from None
                raise
            finally:
                self._running = False

    def publish(self, after: Snapshot) -> None:
        """Let searches see a snapshot; if that fails, close the index."""
        if after is self._searchable.snapshot:
            return
        try:
            self._searchable.publish(after)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Close the index at once; what the store has not committed is lost."""
        with self._searchable.lock.exclusive():
            self._searchable.closed = True
            self._store.close()

    def adopt(self, scanner: AnyScanner, snapshot: Snapshot) -> bool:
        """Search with the compiled scanner from now on. Waits for nothing.

        Args:
            scanner: holds the codes of the snapshot.
            snapshot: what searches should be seeing.

        Returns:
            Whether it was done: not while a change runs, nor after one, nor in a closed index.
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
