"""`Store`: the records of one index, in a directory or in memory. Create or open it, change it, close it.

Other packages create, open and change stored indexes through this class. Each operation has a module of its own:
`loaded_index` loads and refreshes an index, `transactions` changes it (and says what survives a crash), `compaction`
and `backup` copy it, `verify` finds damage.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import StorageError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.backup import backup
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.catalogue_connection import integrity_errors
from semcut.indexes.storage.compaction import compact
from semcut.indexes.storage.directory import CATALOGUE, lock_new_directory, new_index, require_index
from semcut.indexes.storage.files_beside import Beside
from semcut.indexes.storage.loaded_index import LoadedIndex, catalogue_identity
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.transactions import NO_ROWS, Durability, Transactions
from semcut.indexes.storage.writer_lock import WriterLock


class Store:
    """The columns and the catalogue of one index; `create` and `open` return one. Changes must not overlap.

    Attributes:
        path: absolute path of the directory, None for a store in memory.
        config: the configuration of the index.
    """

    def __init__(
        self,
        path: Path | None,
        config: IndexConfig,
        catalogue: Catalogue | None,
        durability: Durability,
        lock: WriterLock | None,
    ) -> None:
        self.path, self.config = path, config
        self._beside = Beside.read(path)
        self._index = LoadedIndex(path, config, catalogue)
        self._beside = self._beside.or_mark_of(Beside.read(path))
        self._transactions = Transactions(self._index, durability, lock)

    @staticmethod
    def create(
        path: Path | None,
        config: IndexConfig,
        durability: Durability = "batch",
        fill: Callable[[], None] = lambda: None,
    ) -> Store:
        """Create an empty store, which holds the writer's lock.

        Args:
            path: a new or empty directory; None for a store in memory.
            config: the configuration of the index.
            durability: when changes are committed, see `transactions`.
            fill: writes other files into the directory, before an index is there.

        Raises:
            IndexExistsError: the path exists and is not an empty directory.
            LockedError: another index object is creating an index there.
            StorageError: the directory cannot be created.
        """
        if path is None:
            return Store(None, config, None, durability, None)
        path = path.absolute()
        lock = lock_new_directory(path)
        try:
            with new_index(path, config):
                fill()  # an empty index has neither rows nor cells to write
            catalogue = Catalogue(path / CATALOGUE)
            try:
                return Store(path, catalogue.config, catalogue, durability, lock)
            except BaseException:
                catalogue.close()
                raise
        except BaseException:
            lock.release()
            raise

    @staticmethod
    def open(path: Path, durability: Durability = "batch") -> Store:
        """Open the store in a directory, as of the last commit.

        Args:
            path: the directory.
            durability: when changes are committed, see `transactions`.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: the directory has no index that can be read; the
                message says why.
        """
        path = path.absolute()
        while True:
            found = catalogue_identity(path)
            try:
                store = Store._opened(path, durability)
            except StorageError:
                if catalogue_identity(path) == found:
                    raise
                continue  # another index replaced it, and its files would be mixed with those of the former one
            if catalogue_identity(path) == found:
                return store
            store.close()

    @staticmethod
    def _opened(path: Path, durability: Durability) -> Store:
        require_index(path)
        catalogue = Catalogue(path / CATALOGUE)
        try:
            return Store(path, catalogue.config, catalogue, durability, WriterLock(path))
        except BaseException:
            catalogue.close()
            raise

    @property
    def snapshot(self) -> Snapshot:
        """The index after the last change, or as of the last commit that was read."""
        return self._index.snapshot

    @property
    def writing(self) -> bool:
        """Whether this process may change the store: it holds the lock, or the store is in memory."""
        return self._transactions.writing

    def refresh(self) -> Snapshot:
        """Read the last commit and return its snapshot; see `LoadedIndex.refresh`."""
        before, previous = Beside.read(self.path), self._index.snapshot
        snapshot = self._index.refresh()
        if snapshot is not previous and self.in_same_directory():
            self._beside = before.or_mark_of(Beside.read(self.path))
        return snapshot

    def begin(self) -> None:
        """Prepare for changes: take the lock and recover from crashed writers; see `Transactions.begin`."""
        self._transactions.begin()

    def write(self, encodings: Encodings | None, removed: NDArray[np.int64] = NO_ROWS) -> Snapshot:
        """Add a batch and remove the records in these rows as one change; see `Transactions.write`."""
        return self._transactions.write(encodings, removed)

    def flush(self) -> None:
        """Commit all changes since the last commit; see `Transactions.flush`."""
        self._transactions.flush()

    def compact(self, progress: Progress | None = None) -> Snapshot:
        """Commit all changes, then write the records that were not removed to new files; see `compaction`."""
        self.flush()
        return compact(self._index, progress)

    def beside(self, snapshot: Snapshot) -> Beside:
        """Return the small files beside a snapshot; while it is the last one of this object, nothing may change it."""
        now = Beside.read(self.path)  # before the look at the last commit, so that they fit
        last = self.writing or self.unchanged(snapshot)
        return now if last and self.in_same_directory() else self._beside  # not those of an index that replaced it

    def backup(
        self, path: Path, snapshot: Snapshot, progress: Progress | None = None, beside: Beside | None = None
    ) -> None:
        """Write a snapshot of this store, and what was `beside` it, to a new index; the store itself is only read.

        Raises:
            StorageError: as for `backup`, or the directory is no more that of this store, so other files there are not.
        """
        fits = self._index.require_same_directory
        fits()  # before all is copied
        backup(snapshot, self.path, path.absolute(), progress, beside or self.beside(snapshot), fits)

    def unchanged(self, snapshot: Snapshot) -> bool:
        """Return whether this snapshot is still the last, in memory and on the disk; see `LoadedIndex.unchanged`."""
        return self._index.unchanged(snapshot)

    def in_same_directory(self) -> bool:
        """Return whether the directory still holds this store; see `LoadedIndex.in_same_directory`."""
        return self._index.in_same_directory()

    def catalogue_errors(self) -> list[str]:
        """Return what SQLite's integrity check reports about the catalogue, one sentence each; empty if sound."""
        return [] if self.path is None else integrity_errors(self.path / CATALOGUE)

    def close(self) -> None:
        """Close all files and release the lock. Changes that were not flushed are lost."""
        self._index.close()
        self._transactions.release()
