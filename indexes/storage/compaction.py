"""Write the records that were not removed to a new generation of column files, in order of cells (compaction).

1. the records are written to the directory of the next generation whose name is free, cell after cell, so that a
   search reads few and contiguous parts of the files. Cells are computed again: their bounds become as tight as
   possible;
2. the new files, their directory and the directory of the index are synced;
3. one transaction of the catalogue replaces the previous generation by the new one;
4. the previous files are deleted; a process that has them open can still read them.

A crash before step 3 leaves the previous generation, a crash after step 3 the new one. In both cases the directory of
the other generation may remain, and the next writer deletes it (`Transactions.begin`).
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import tee
from pathlib import Path

import numpy as np

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import count_unnormalised
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.cell_table import cell_numbers
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage.catalogue_format import Committed
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.directory import (
    close_columns,
    create_columns,
    memory_columns,
    sync_columns,
    sync_path,
)
from semcut.indexes.storage.generation_folders import GENERATION, delete_generation, free_generation
from semcut.indexes.storage.kept_categories import KeptCategories
from semcut.indexes.storage.loaded_index import LoadedIndex
from semcut.indexes.storage.mapped_columns import ColumnFiles, Columns
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.stored_rows import column_values
from semcut.indexes.stored_values import decoded_features, norm_tolerance


def compact(index: LoadedIndex, progress: Progress | None) -> Snapshot:
    """Replace the generation of an index by one without removed records. An error leaves the index unchanged.

    Args:
        index: the open index, without changes that wait for `flush`; the caller holds the writer's lock.
        progress: called with the number of records written so far, and the total number of records.

    Returns:
        The snapshot after the compaction.

    Raises:
        DamagedIndexError: a record that was not removed is damaged, or another program has changed a file meanwhile.
        StorageError: the disk refuses.
    """
    before = index.snapshot
    generation = before.committed.generation + 1
    with ExitStack() as on_error:
        files: ColumnFiles
        if index.path is None:
            files = memory_columns(index.config)
        else:
            index.require_same_directory()
            generation = free_generation(index.path, generation)
            folder = index.path / f"{GENERATION}{generation}"
            on_error.callback(_delete_uncommitted, index, folder, before)
            like = index.path / f"{GENERATION}{before.committed.generation}"
            files = create_columns(folder, index.config, like, replaced=True)
        on_error.callback(close_columns, files)
        unchanged = _times(before)
        after = write_records(before, generation, files, progress)
        if _times(before) != unchanged:
            raise DamagedIndexError(
                f"another program has changed files of {index.path} during the compaction, which was not made: restore "
                "the index with `semcut restore`"
            )
        snapshot = Snapshot(after, Columns(files, after.extents))
        if index.path is not None:
            sync_columns(files)
            sync_path(folder)
            sync_path(index.path)
        if index.catalogue is not None:
            index.catalogue.commit(before.committed, after, np.empty(0, np.int64))
        on_error.pop_all()
    index.adopt(snapshot)
    if index.path is not None:
        delete_generation(index.path / f"{GENERATION}{before.committed.generation}")
    return snapshot


def write_records(
    before: Snapshot,
    generation: int,
    files: ColumnFiles,
    progress: Progress | None,
    wider: IndexConfig | None = None,
) -> Committed:
    """Append the records of a snapshot to empty columns and return what to commit.

    Args:
        before: the snapshot.
        generation: number of the new generation.
        files: the columns.
        progress: called with the number of records written so far, and the total number of records.
        wider: the configuration of the columns, if it has more classes than the snapshot; they get probabilities of 0.

    Raises:
        DamagedIndexError: a record is damaged.
        StorageError: the disk refuses.
    """
    former = before.cells.config
    config = wider or former
    extents, cells, unnormalised = dict.fromkeys(files, Extent()), Cells.empty(config), 0
    categories = KeptCategories.of(before)
    if len(categories.lines):
        extents["vocabulary"] = files["vocabulary"].append(extents["vocabulary"], categories.lines)
    parts, rows = tee(before.row_batches(progress))
    for batch, part in zip(before.stored_batches(parts), rows, strict=True):
        features = decoded_features(batch.features, config.feature_step)
        if not batch.possible(former, features):
            raise DamagedIndexError(
                "the index has records that it cannot have stored: restore it from a backup, or remove the records "
                "that `semcut verify` names"
            )
        if wider is None:
            cells, positions = cells.extended(batch.by_class(config))
            numbers = cells.numbers[positions]
        else:
            numbers, _ = cell_numbers(former, batch.by_class(former))
        # Compared batch by batch: forged records could belong to far more cells than the catalogue has.
        if not np.array_equal(numbers, before.cells.numbers[before.columns.cells[part]]):
            raise DamagedIndexError(
                "records are outside of their cell: `semcut verify` names them; restore the index from a backup"
            )
        if wider is not None:
            batch = batch.widened(former, wider)
            cells, positions = cells.extended(batch.by_class(wider))
        unnormalised += count_unnormalised(
            decoded_features(batch.features, config.feature_step), norm_tolerance(config)
        )
        batch = batch._replace(attributes=categories.renumbered(batch.attributes))
        for name, added in column_values(batch, positions, extents).items():
            extents[name] = files[name].append(extents[name], added)
    return Committed(before.committed.version + 1, generation, extents, unnormalised, cells)


def _times(snapshot: Snapshot) -> list[tuple[int, int]]:
    """Return the sizes of all column files, and when they were last written to: by nobody while the writer compacts."""
    return [file.written() for file in snapshot.columns.files().values()]


def _delete_uncommitted(index: LoadedIndex, folder: Path, before: Snapshot) -> None:
    """Delete a generation that was not committed. If the catalogue cannot be read, leave this to the next writer."""
    if index.unchanged(before):
        delete_generation(folder)
