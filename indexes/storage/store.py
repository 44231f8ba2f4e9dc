"""The records of an index, stored in a directory or in memory, and what survives a crash. `making` has the directory.

**A change** (records added, removed, or both at once):

1. rows are written to the column files, behind the rows that count;
2. every file written to is synced to the disk;
3. one SQLite transaction changes what counts, with checksums and cells.

A crash before the end of step 3 leaves the index as it was: rows that do not count are never read, and the next change
cuts them off. A crash after it leaves the change whole. With durability "close", steps 2 and 3 wait until `flush` or
`close`, for all changes since the last one together: a crash loses all of them, never some.

**Removal** appends the rows of the records to the column `removed`. **Compaction** writes the records that are left to
a new generation beside the old one, syncs it, and lets the new one count in one transaction. The old files are deleted
then; whoever has them open goes on reading them. A crash before the transaction leaves the old generation and a
directory that the next writer deletes; a crash after it the new generation and the old directory, likewise deleted.

Readers take no lock: they see the last commit at the time when they opened or refreshed. A writer takes the lock before
its first change and keeps it until it is closed. An index in memory takes the same path without files.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings, count_unnormalised
from semcut.indexes.errors import ConcurrentWriteError, DamagedIndexError, NotAnIndexError, StorageError, shown
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage.catalogue import Catalogue, Committed, check
from semcut.indexes.storage.column_files import NAMES, Column, Extent, MemoryColumn, specs
from semcut.indexes.storage.directory import (
    CATALOGUE,
    GENERATION,
    UNFINISHED,
    Files,
    close_files,
    make_files,
    occupy,
    sync,
    sync_path,
    write_new,
)
from semcut.indexes.storage.mapped_columns import Columns, column_values
from semcut.indexes.storage.snapshot import Progress, Snapshot, counted
from semcut.indexes.storage.writer_lock import WriterLock

_NO_ROWS = np.empty(0, np.int64)

Durability = Literal["batch", "close"]


class Store:
    """Columns and catalogue of one index; `create` or `open` it. One change at a time.

    Attributes:
        path: its directory, None in memory.
        config: what the index is.
        state: the index as of the last change.
    """

    def __init__(
        self, path: Path | None, catalogue: Catalogue, durability: Durability, lock: WriterLock | None
    ) -> None:
        self.path, self.config = path, catalogue.config
        self._identity = None if path is None else _identity(path)
        self._catalogue, self._durability, self._lock = catalogue, durability, lock
        self._files, self.state = self._load()
        self._stored = self.state  # what the catalogue says
        self._touched: list[NDArray[np.int64]] = []
        self._unsynced: set[str] = set()

    @staticmethod
    def create(path: Path | None, config: IndexConfig, durability: Durability = "batch") -> Store:
        """Make an empty store: in a directory that is new or empty, or in memory.

        Raises:
            IndexExistsError: there is something at the path.
            LockedError: somebody else is making an index there.
            StorageError: the directory cannot be made.
        """
        if path is None:
            return Store(None, Catalogue.create(None, config), durability, None)
        path = path.absolute()
        with ExitStack() as on_error:
            lock = occupy(path)
            on_error.callback(lock.release)
            write_new(path, config, None)
            catalogue = Catalogue(path / CATALOGUE)
            on_error.callback(catalogue.close)
            store = Store(path, catalogue, durability, lock)
            on_error.pop_all()
        return store

    @staticmethod
    def open(path: Path, durability: Durability = "batch") -> Store:
        """Open the store in a directory, as it was at the last commit.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
        """
        path = path.absolute()
        try:
            directory, complete = path.is_dir(), (path / CATALOGUE).is_file()
        except (OSError, ValueError) as error:  # a ValueError is a zero byte in the path
            reason = error.strerror if isinstance(error, OSError) else error
            raise NotAnIndexError(f"{shown(str(path))} cannot be looked at: {reason}") from None
        if not directory:
            raise NotAnIndexError(f"{path} is not a directory: give the directory of an index")
        if not complete:
            if (path / UNFINISHED).exists():
                raise NotAnIndexError(f"{path} is a semcut index whose making was cut off: make it again there")
            raise NotAnIndexError(
                f"{path} is not a semcut index: it has no {CATALOGUE}; if it was one, restore it from a backup"
            )
        catalogue = Catalogue(path / CATALOGUE)
        try:
            return Store(path, catalogue, durability, WriterLock(path))
        except BaseException:
            catalogue.close()
            raise

    def _load(self) -> tuple[Files, Snapshot]:
        """The files and the state that the catalogue tells of."""
        while True:
            committed = self._catalogue.read()
            try:
                files = self._open_files(committed)
            except DamagedIndexError:  # or a compaction has just deleted them
                if self._catalogue.version() == committed.version:
                    raise
                continue
            try:
                return files, counted(committed, Columns(files, committed.extents), None)
            except BaseException:
                close_files(files)
                raise

    def _open_files(self, committed: Committed) -> Files:
        if self.path is None:
            return {name: MemoryColumn(spec) for name, spec in specs(self.config).items()}
        files: dict[str, Column] = {}
        try:
            for name, spec in specs(self.config).items():
                where = self.path / f"{GENERATION}{committed.generation}" / name
                files[name] = Column(where, spec, writable=os.access(where, os.W_OK))
                files[name].mark_unverified(committed.extents[name])
        except BaseException:
            close_files(files)
            raise
        return files

    @property
    def writing(self) -> bool:
        """Whether this store may be changed: it is in memory, or has the lock."""
        return self._lock is None or self._lock.held

    def begin(self) -> None:
        """Take the writer's lock, clear away what crashed writers left, and catch up with the last commit.

        Raises:
            LockedError: another writer has it.
            StorageError: the directory cannot be written to.
        """
        if self.writing:
            return
        assert self._lock is not None
        assert self.path is not None
        self._lock.acquire()
        try:
            self._check_identity()
            self.refresh()
            current = self.path / f"{GENERATION}{self.state.committed.generation}"
            if not all(os.access(current / name, os.W_OK) for name in NAMES):
                raise StorageError(f"files of {self.path} may not be written to: the index can be read, not changed")
            for left in self.path.glob(f"{GENERATION}*"):
                if left != current:
                    shutil.rmtree(left, ignore_errors=True)
        except BaseException:
            self._lock.release()
            raise

    def _check_identity(self) -> None:
        """A directory that was moved away and made anew must not be touched by whoever had the old one open."""
        if self.path is not None and _identity(self.path) != self._identity:
            raise StorageError(f"{self.path} is not the index that was opened here, it was replaced: open it again")

    def refresh(self) -> Snapshot:
        """Catch up with the last commit. The same object comes back if there was none since; that costs one query."""
        if self._stored is self.state and self._catalogue.version() != self.state.committed.version:
            committed = self._catalogue.read()
            if committed.generation == self.state.committed.generation:
                for name, file in self._files.items():
                    file.mark_unverified(committed.extents[name], self.state.columns.extents[name].rows)
                self.state = counted(committed, Columns(self._files, committed.extents), self.state)
            else:  # the files before are closed when the last state that reads them is gone
                self._files, self.state = self._load()
            self._stored = self.state
        return self.state

    def write(self, encodings: Encodings | None, removed: NDArray[np.int64] = _NO_ROWS) -> Snapshot:
        """Add a batch and remove records, as one change. When it raises nothing has changed.

        Args:
            encodings: the batch, with ids, or None.
            removed: (n,) rows of records to remove, each once.
        """
        self._check_identity()
        if self._catalogue.version() != self._stored.committed.version:  # before a byte of a file is changed
            raise ConcurrentWriteError(
                f"another process has changed {self.path} in spite of the lock: open the index again"
            )
        before = self.state.committed
        columns, cells, gone = self.state.columns, before.cells, before.loose
        values: dict[str, NDArray[Any]] = {}
        touched = _NO_ROWS
        if encodings is not None:
            cells, numbers = cells.extended(encodings.probabilities)
            touched = np.unique(numbers).astype(np.int64)
            gone += count_unnormalised(encodings.features)
            values = column_values(encodings, numbers, before.extents["uri_bytes"].rows)
        if len(removed):
            values["removed"] = removed
            cells = cells.without(columns.cells[removed])
            gone -= self._loose(removed)
        extents = dict(before.extents)
        for name, added in values.items():
            if len(added):
                extents[name] = self._files[name].append(extents[name], added)
        gone = max(0, min(gone, extents["ids"].rows - extents["removed"].rows))
        after = Committed(before.version + 1, before.generation, extents, gone, cells)
        state = Snapshot(after, Columns(self._files, extents))
        self._unsynced |= set(values)
        earlier = self._touched
        self._touched = [*earlier, touched]
        if self._durability == "batch":
            try:
                self._commit(state)
            except BaseException:
                self._touched = earlier
                raise
        self.state = state
        return state

    def _loose(self, rows: NDArray[np.int64]) -> int:
        """How many of these records have a feature that is not of length 1."""
        if self.state.committed.loose in (0, len(self.state)):
            return len(rows) if self.state.committed.loose else 0
        try:
            features, at = self.state.columns.features(rows)
            return count_unnormalised(features[at])
        except DamagedIndexError:  # damaged records can be removed; until compaction some are taken for not of length 1
            return 0

    def _commit(self, state: Snapshot) -> None:
        for name in NAMES:
            if name in self._unsynced:
                self._files[name].sync()
        touched = np.unique(np.concatenate([_NO_ROWS, *self._touched]))
        self._catalogue.commit(self._stored.committed, state.committed, touched)
        self._stored, self._touched, self._unsynced = state, [], set()

    def flush(self) -> None:
        """Make all changes durable. When it raises, those since the last one are lost and the store is of no more use.

        Raises:
            StorageError: the disk refused.
        """
        if self._stored is self.state:
            return
        if not self.writing:
            raise StorageError(f"the changes to {self.path} were made before this process was forked: flush them there")
        self._check_identity()
        self._commit(self.state)

    def compact(self, progress: Progress | None = None) -> Snapshot:
        """Write the records that are left to a new generation, with cells as tight as can be. When it raises nothing
        has changed."""
        self.flush()
        before = self.state
        generation = before.committed.generation + 1
        with ExitStack() as on_error:
            folder = None
            if self.path is not None:
                self._check_identity()
                folder = self.path / f"{GENERATION}{generation}"
                on_error.callback(self._discard, folder, before)
            files = make_files(folder, self.config)
            on_error.callback(close_files, files)
            extents, cells, slack = dict.fromkeys(NAMES, Extent()), Cells.empty(self.config), 0
            for rows in before.parts(progress):
                batch = before.columns.records(rows)
                cells, numbers = cells.extended(batch.probabilities)
                slack += count_unnormalised(batch.features)
                values = column_values(batch, numbers, extents["uri_bytes"].rows)
                for name, added in values.items():
                    extents[name] = files[name].append(extents[name], added)
            after = Committed(before.committed.version + 1, generation, extents, slack, cells)
            state = Snapshot(after, Columns(files, extents))
            sync(files, folder)
            if self.path is not None:
                sync_path(self.path)
            self._catalogue.commit(before.committed, after, _NO_ROWS)
            on_error.pop_all()
        self._files, self.state, self._stored = files, state, state
        if self.path is not None:
            shutil.rmtree(self.path / f"{GENERATION}{before.committed.generation}", ignore_errors=True)
        return state

    def _discard(self, folder: Path, before: Snapshot) -> None:
        """Delete a generation that did not come to count; where that cannot be known, the next writer will."""
        if self.unchanged(before):
            shutil.rmtree(folder, ignore_errors=True)

    def backup(self, path: Path, state: Snapshot, progress: Progress | None = None) -> None:
        """Write a state to a new index, and with it whatever other files lie in the directory. Reads only.

        Raises:
            IndexExistsError: there is something at the path.
            DamagedIndexError: what was read does not match its checksums; the backup is not made.
            StorageError: it cannot be written.
        """
        path = path.absolute()
        with suppress(OSError, ValueError):  # which are reported below
            if self.path is not None and path.resolve().is_relative_to(self.path.resolve()):
                raise StorageError(f"{path} lies in the index itself: choose a place outside of it")
        lock = occupy(path)
        try:
            write_new(path, self.config, state, self.path, progress)
        finally:
            lock.release()

    @staticmethod
    def files_of(path: Path) -> tuple[dict[str, Column | DamagedIndexError], dict[str, Extent]]:
        """The column files of an index that `open` refuses, or why one is not there, and what of each should count.

        Raises:
            DamagedIndexError: the catalogue is damaged itself.
        """
        catalogue = Catalogue(path / CATALOGUE)
        try:
            committed = catalogue.read()
        finally:
            catalogue.close()
        files: dict[str, Column | DamagedIndexError] = {}
        for name, spec in specs(catalogue.config).items():
            try:
                files[name] = Column(path / f"{GENERATION}{committed.generation}" / name, spec, writable=False)
            except DamagedIndexError as error:  # noqa: PERF203
                files[name] = error
        return files, committed.extents

    def unchanged(self, state: Snapshot) -> bool:
        """Whether nothing has become of a change that was interrupted: this state is still the last, here and there."""
        with suppress(StorageError):
            return self.state is state and self._catalogue.version() == self._stored.committed.version
        return False

    def complaints(self) -> list[str]:
        """What SQLite finds wrong with the catalogue."""
        return [] if self.path is None else check(self.path / CATALOGUE)

    def close(self) -> None:
        """Close every file and let go of the lock; what was not flushed is lost."""
        self._catalogue.close()
        close_files(self._files)
        if self._lock is not None:
            self._lock.release()


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells the catalogue in a directory from any other file."""
    try:
        found = os.stat(path / CATALOGUE)
    except OSError:
        return None
    return found.st_dev, found.st_ino
