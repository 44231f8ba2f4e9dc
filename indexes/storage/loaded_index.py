"""An index that is open in this process: its catalogue, its column files and its last snapshot.

Readers take no lock. They see the commit that was the last when they opened or refreshed the index: SQLite reads the
catalogue in one transaction, and committed rows never change on the disk. After a compaction the files of the previous
generation are deleted, but a reader that has them open can still read them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import DamagedIndexError, StorageError
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.catalogue_format import Committed
from semcut.indexes.storage.column_files import Column
from semcut.indexes.storage.directory import CATALOGUE, close_columns, memory_columns, open_columns
from semcut.indexes.storage.mapped_columns import ColumnFiles, Columns
from semcut.indexes.storage.snapshot import Snapshot, load_snapshot
from semcut.indexes.storage.sparse_files import require_stored


class LoadedIndex:
    """An open index: its catalogue, its column files and its snapshot, which can be refreshed.

    Args:
        path: absolute path of the directory, None for an index in memory.
        config: the configuration of the index.
        catalogue: the catalogue of the index, which `close` closes; None for an index in memory.

    Attributes:
        path, config, catalogue: as given.
        snapshot: the index after the last change.
        committed: the snapshot of the last commit; while changes wait for `flush`, it is earlier than `snapshot`.

    Raises:
        DamagedIndexError: files are missing, or contradict the catalogue.
        StorageError: files cannot be read.
    """

    def __init__(self, path: Path | None, config: IndexConfig, catalogue: Catalogue | None) -> None:
        self.path, self.config, self.catalogue = path, config, catalogue
        self._identity = catalogue_identity(path)
        self.snapshot: Snapshot
        self.committed: Snapshot
        if catalogue is None:
            empty = Committed.empty(config)
            self.adopt(Snapshot(empty, Columns(memory_columns(config), empty.extents)))
        else:
            self._load(catalogue)

    @property
    def files(self) -> ColumnFiles:
        """The columns of the current generation."""
        return self.snapshot.columns.sources

    def _load(self, catalogue: Catalogue) -> None:
        """Read the catalogue, open the files of its generation, and adopt their snapshot."""
        assert self.path is not None
        while True:
            committed = catalogue.read()
            try:
                files = open_columns(self.path, self.config, committed.generation)
            except DamagedIndexError:
                if catalogue.version() == committed.version:
                    raise
                continue  # a compaction deleted the files after the catalogue had been read
            try:
                require_stored(files, committed.extents)
                for name, file in files.items():
                    file.mark_unverified(committed.extents[name])
                snapshot = load_snapshot(committed, Columns(files, committed.extents), None)
            except BaseException:
                close_columns(files)
                raise
            self.adopt(snapshot)
            return

    def adopt(self, snapshot: Snapshot) -> None:
        """Use a committed snapshot and its files from now on.

        The previous files are not closed here, because snapshots that are still in use read them. They are closed when
        the last of these snapshots is deleted.
        """
        self.committed = snapshot
        self.snapshot = snapshot

    def refresh(self) -> Snapshot:
        """Read the last commit, unless changes wait for `flush`, and return the current snapshot.

        If there was no commit since the last refresh, the same object is returned; this check takes one query. If
        another program has cut a file while it was read, all files are opened again.

        Raises:
            DamagedIndexError: the last commit is damaged; the previous snapshot stays in use.
        """
        before, catalogue = self.snapshot, self.catalogue
        if catalogue is None:
            return before
        cut = before.columns.cut
        if self.committed is before and (cut or catalogue.version() != before.committed.version):
            committed = catalogue.read()
            if not cut and _continues(committed, before.committed) and self._same_rows(before.committed):
                require_stored(before.columns.files(), committed.extents)
                for name, file in self.files.items():
                    file.mark_unverified(committed.extents[name], before.columns.extents[name].rows)
                self.adopt(load_snapshot(committed, Columns(self.files, committed.extents), before))
            else:
                self._load(catalogue)
        return self.snapshot

    def _same_rows(self, before: Committed) -> bool:
        """Return whether the rows of an earlier commit that share a block with later rows are still the same.

        All other blocks of that commit have the same checksums as before, which `_continues` has compared.
        """
        for name, file in self.files.items():
            extent = before.extents[name]
            if isinstance(file, Column) and len(extent.crcs) and file.fault(extent, len(extent.crcs) - 1):
                return False
        return True

    def require_same_directory(self) -> None:
        """Raise `StorageError` unless the catalogue at the path is still the file that was opened."""
        if not self.in_same_directory():
            raise StorageError(
                f"{self.path} is not the index that was opened here, it was replaced or deleted: open it again"
            )

    def in_same_directory(self) -> bool:
        """Return whether the catalogue at the path is still the file that was opened; True for an index in memory."""
        return catalogue_identity(self.path) == self._identity

    def unchanged(self, snapshot: Snapshot) -> bool:
        """Return whether this snapshot is still the last one, in this process and in the catalogue.

        This shows whether a change that was interrupted had any effect. False if the catalogue cannot be read.
        """
        if self.catalogue is None:
            return self.snapshot is snapshot
        with suppress(StorageError):
            return self.snapshot is snapshot and self.catalogue.version() == self.committed.committed.version
        return False

    def close(self) -> None:
        """Close the catalogue and the files; changes that were not flushed are lost."""
        if self.catalogue is not None:
            self.catalogue.close()
        close_columns(self.files)


def catalogue_identity(path: Path | None) -> tuple[int, int] | None:
    """Return the device and inode of the catalogue in a directory, which distinguish it from every other file."""
    if path is None:
        return None
    try:
        found = os.stat(path / CATALOGUE)
    except (OSError, ValueError):  # a ValueError means a zero byte in the path
        return None
    return found.st_dev, found.st_ino


def _continues(committed: Committed, before: Committed) -> bool:
    """Return whether a commit extends an earlier one; otherwise the files are those of another index by now."""
    if committed.generation != before.generation or committed.version < before.version:
        return False
    for name, extent in before.extents.items():
        whole = max(0, len(extent.crcs) - 1)  # the last block may have been filled up
        now = committed.extents[name]
        if now.rows < extent.rows or not np.array_equal(now.crcs[:whole], extent.crcs[:whole]):
            return False
    return np.array_equal(committed.cells.numbers[: len(before.cells)], before.cells.numbers)
