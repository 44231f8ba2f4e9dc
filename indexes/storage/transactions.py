"""Change an index so that a crash at any moment leaves all of a change or none of it.

**On the disk** (`directory`): `catalogue.sqlite` stores the version, the current generation and the number of valid
rows of every column. `generation-<n>/` has the column files; committed rows never change there. The writer holds the
lock on the file `lock`.

**A change** adds records, removes records, or does both at once:

1. `begin` takes the lock, reads the last commit, and deletes the generations that crashed writers left;
2. `write` appends rows to the column files, after the valid rows; a removal appends tombstones (row numbers of the
   removed records) to the column `removed`;
3. `_commit` syncs every file that was written to;
4. `_commit` changes the catalogue in one SQLite transaction: the numbers of valid rows, checksums and cells.

With durability "batch", `write` commits. With durability "close", steps 3 and 4 wait for `flush`, which commits all
changes since the last commit together; `FaissIndex.close` calls it.

**A crash** leaves:

- in step 1: the index as it was; the operating system releases the lock.
- in step 2 or 3: the index as it was. The column files may have bytes after the valid rows; these bytes are never
  read, and the next append cuts them off.
- in step 4: the index as it was, or with the whole change. SQLite's rollback journal decides when the catalogue is
  opened next.
- after step 4: the index with the whole change.
- before a `flush` with durability "close": the index as of the last commit, without any of the later changes.
- in a compaction (`compaction`): the previous generation or the new one, and the directory of the other generation,
  which `begin` deletes.
- in a backup or in `create` (`directory`): a directory that is not an index. An index can be created there again.

**Recovery** needs no step of its own: opening an index reads what was committed, and `begin` and the first append of
the next writer delete the rest. An error leaves the files as a crash at the same step would, and the open index as it
was before the change; after a failed `flush`, the index must be opened again.

An index in memory takes the same steps without files.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings, count_unnormalised
from semcut.indexes.errors import (
    ConcurrentWriteError,
    DamagedIndexError,
    InvalidParameterError,
    StorageError,
    shown,
)
from semcut.indexes.storage.catalogue_format import Committed
from semcut.indexes.storage.column_specs import names_of
from semcut.indexes.storage.generation_folders import GENERATION, delete_generation, generations
from semcut.indexes.storage.loaded_index import LoadedIndex
from semcut.indexes.storage.mapped_columns import Columns
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.stored_rows import StoredRows, column_values
from semcut.indexes.storage.writer_lock import WriterLock
from semcut.indexes.stored_values import norm_tolerance

NO_ROWS = np.empty(0, np.int64)

Durability = Literal["batch", "close"]
"""When changes are committed: "batch", each change by the call that makes it; "close", all together by `flush`."""


def durability_given(given: Durability) -> Durability:
    """Check the name of a durability, as callers give it."""
    if not isinstance(given, str) or given not in ("batch", "close"):
        raise InvalidParameterError(f'durability = {shown(given)}, expected "batch" or "close"')
    return given


class Transactions:
    """The transactions of one open index, which must not overlap.

    Args:
        index: the open index.
        durability: when changes are committed.
        lock: the writer's lock of the directory; None for an index in memory, which needs no lock.
    """

    def __init__(self, index: LoadedIndex, durability: Durability, lock: WriterLock | None) -> None:
        self._index, self._durability, self._lock = index, durability, lock
        # Since the last commit: positions of cells that may have changed, and columns that were written to.
        self._changed_cells: list[NDArray[np.int64]] = []
        self._unsynced: set[str] = set()

    @property
    def writing(self) -> bool:
        """Whether this process may change the index: it holds the lock, or the index is in memory."""
        return self._lock is None or self._lock.held

    def begin(self) -> None:
        """Take the writer's lock, read the last commit, and delete the generations that crashed writers left.

        The lock is kept until `release`.

        Raises:
            LockedError: another writer holds the lock.
            StorageError: the directory is not writable, or another index has replaced it.
        """
        if self.writing:
            return
        path = self._index.path
        assert self._lock is not None
        assert path is not None
        try:
            self._lock.acquire()  # Ctrl-C can come when it returns
            self._index.require_same_directory()
            generation = self._index.refresh().committed.generation
            current = path / f"{GENERATION}{generation}"
            if not all(os.access(current / name, os.W_OK) for name in names_of(self._index.config)):
                raise StorageError(f"files of {path} may not be written to: the index can be read, not changed")
            for folder in generations(path):
                if folder != current:
                    delete_generation(folder)
        except BaseException:
            self._lock.release()
            raise

    def write(self, encodings: Encodings | None, removed: NDArray[np.int64]) -> Snapshot:
        """Add a batch and remove records as one change. An error leaves the index unchanged.

        Args:
            encodings: the batch, with ids; None to add nothing.
            removed: (n,) rows of records to remove, each once.

        Returns:
            The snapshot after the change.

        Raises:
            ConcurrentWriteError: another process has changed the index in spite of the lock.
            StorageError: the disk refuses.
        """
        index = self._index
        index.require_same_directory()
        known = index.committed.committed.version
        if index.catalogue is not None and index.catalogue.version() != known:  # before any byte of a file is changed
            raise ConcurrentWriteError(
                f"another process has changed {index.path} in spite of the lock: open the index again"
            )
        before, columns = index.snapshot.committed, index.snapshot.columns
        cells, unnormalised = before.cells, before.unnormalised
        values: dict[str, NDArray[Any]] = {}
        vocabulary = None
        changed_cells = NO_ROWS
        if encodings is not None:
            vocabulary, new_values = columns.vocabulary.extended(encodings.attributes or {})
            rows = StoredRows.of(index.config, encodings, vocabulary)
            cells, positions = cells.extended(rows.by_class(index.config))
            changed_cells = np.unique(positions).astype(np.int64)
            unnormalised += count_unnormalised(encodings.features, norm_tolerance(index.config))
            values = column_values(rows, positions, before.extents)
            if len(new_values):
                values["vocabulary"] = new_values
        if len(removed):
            values["removed"], present = removed, cells
            cells = columns.reading(lambda: present.without(columns.cells[removed]))
            unnormalised -= self._count_unnormalised(removed)
        columns.require_uncut()  # the caller has read the columns too, to find the rows
        extents = dict(before.extents)
        for name, added in values.items():
            if len(added):
                extents[name] = index.files[name].append(extents[name], added)
        unnormalised = max(0, min(unnormalised, extents["ids"].rows - extents["removed"].rows))
        after = Committed(before.version + 1, before.generation, extents, unnormalised, cells)
        snapshot = Snapshot(after, Columns(index.files, extents))
        if vocabulary is not None:
            snapshot.columns.vocabulary = vocabulary  # which is not read from the column again
        self._unsynced |= set(values)
        earlier = self._changed_cells
        self._changed_cells = [*earlier, changed_cells]
        if self._durability == "batch":
            try:
                self._commit(snapshot)
            except BaseException:
                self._changed_cells = earlier
                raise
        index.snapshot = snapshot
        return snapshot

    def _count_unnormalised(self, rows: NDArray[np.int64]) -> int:
        """Count the records in these rows whose feature is not L2-normalised; return 0 if a feature is damaged.

        So damaged records can be removed. The stored number may then be too large until the index is compacted.
        """
        snapshot = self._index.snapshot
        if snapshot.committed.unnormalised == 0:
            return 0
        if snapshot.committed.unnormalised == len(snapshot):
            return len(rows)
        try:
            features, places = snapshot.columns.features(rows)
            return count_unnormalised(features[places], norm_tolerance(self._index.config))
        except DamagedIndexError:
            return 0

    def _commit(self, snapshot: Snapshot) -> None:
        """Sync the columns that were written to, then commit the snapshot to the catalogue."""
        index = self._index
        for name in names_of(index.config):
            if name in self._unsynced:
                index.files[name].sync()
        changed_cells = np.unique(np.concatenate([NO_ROWS, *self._changed_cells]))
        if index.catalogue is not None:
            index.catalogue.commit(index.committed.committed, snapshot.committed, changed_cells)
        index.committed, self._changed_cells, self._unsynced = snapshot, [], set()

    def flush(self) -> None:
        """Commit all changes since the last commit. After an error they are lost, and the index must be opened again.

        Raises:
            StorageError: the disk refuses, or the changes were made before this process was forked.
        """
        index = self._index
        if index.committed is index.snapshot:
            return
        if not self.writing:
            raise StorageError(
                f"the changes to {index.path} were made before this process was forked: flush them in the process "
                "that made them"
            )
        index.require_same_directory()
        self._commit(index.snapshot)

    def release(self) -> None:
        """Release the writer's lock."""
        if self._lock is not None:
            self._lock.release()
