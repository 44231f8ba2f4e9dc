"""Write a snapshot to a new index (backup), and compare all columns with their checksums while they are copied.

A backup only reads the index, so changes and searches may run at the same time. A crash or an error leaves a directory
that is not an index (see `directory`). A complete backup is a normal index, of the same version and generation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from semcut.indexes.errors import DamagedIndexError, StorageError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.directory import lock_new_directory, new_index
from semcut.indexes.storage.files_beside import Beside
from semcut.indexes.storage.snapshot import COPY_BYTES, Snapshot


def backup(
    snapshot: Snapshot,
    source: Path | None,
    target: Path,
    progress: Progress | None,
    beside: Beside,
    fits: Callable[[], None],
) -> None:
    """Write a snapshot to a new index, and copy all other files in the directory of the index.

    Args:
        snapshot: the snapshot to write.
        source: absolute path of the index that the snapshot belongs to, None for an index in memory.
        target: absolute path of the new index: a new or empty directory.
        progress: called with the number of records copied so far, and the total number of records.
        beside: the small files beside the snapshot, as they were when it was the last one.
        fits: raises `StorageError` if the files in `source` are those of another index by now.

    Raises:
        IndexExistsError: the target exists and is not an empty directory.
        DamagedIndexError: a column does not match its checksums; there is no backup then.
        StorageError: the target is inside the index itself, or cannot be written; or `fits` raises it.
    """
    with suppress(
        OSError, ValueError, RuntimeError
    ):  # `lock_new_directory` reports these; a RuntimeError: links in a ring
        if source is not None and Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source)):
            raise StorageError(f"{target} is inside the index itself: choose a path outside of it")
    committed = snapshot.committed
    lock = lock_new_directory(target, source)
    try:
        config, generation, version = snapshot.cells.config, committed.generation, committed.version
        with new_index(target, config, generation, source, version, beside, fits) as (catalogue, files):
            extents = _copy_columns(snapshot, files, progress)
            catalogue.commit(catalogue.read(), committed._replace(extents=extents), np.arange(len(snapshot.cells)))
    finally:
        lock.release()


def _copy_columns(snapshot: Snapshot, files: dict[str, Column], progress: Progress | None) -> dict[str, Extent]:
    """Copy all columns, compare them with their checksums, and return the extents of the copy."""
    columns = snapshot.columns
    extents = {}
    for name, column in columns.files().items():
        column.require(columns.extents[name].rows)
    for name, array in columns.raw().items():
        extent, source = Extent(), columns.sources[name]
        size = max(1, COPY_BYTES // files[name].spec.row_bytes)
        for start in range(0, len(array), size):
            rows = min(size, len(array) - start)
            part = source.stretch(start, rows) if isinstance(source, Column) else array[start : start + rows]
            extent = files[name].append(extent, part)
            columns.release_pages()
            if progress is not None and name == "features":  # one of the two largest columns
                progress(extent.rows, len(columns))
        expected = columns.extents[name].crcs
        if columns.files() and not np.array_equal(extent.crcs, expected):
            block = int(np.argmax(extent.crcs != expected))
            raise DamagedIndexError(
                f"the column {name} is damaged from row {block * files[name].spec.block} on: the backup was not made; "
                "`semcut verify` lists what is damaged"
            )
        extents[name] = extent
    return extents
