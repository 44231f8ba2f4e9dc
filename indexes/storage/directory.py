"""Making the directory of an index: empty, as a backup of a state, or a new generation in one that is there.

    index/
        catalogue.sqlite        what counts (see `catalogue`)
        generation-<n>/         one file per column (see `columns`)
        lock                    held by the one writer (see `lock`)

1. the directory is made, if it is not there, and locked;
2. an empty catalogue is made under the name `catalogue.new`;
3. column files are written and synced, and so are other files that a backup takes along;
4. the catalogue is filled;
5. it is renamed to `catalogue.sqlite`, and the directory synced.

Before the end of step 5 the directory is no index. What a crash leaves has a `catalogue.new`, by which it is known, and
is cleared away when an index is made there again; what an error leaves is cleared away at once.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import DamagedIndexError, IndexExistsError, StorageError, shown
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.column_files import Column, Extent, MemoryColumn, specs
from semcut.indexes.storage.snapshot import COPY_BYTES, Progress, Snapshot
from semcut.indexes.storage.writer_lock import NAME as LOCK
from semcut.indexes.storage.writer_lock import WriterLock

CATALOGUE = "catalogue.sqlite"
UNFINISHED = "catalogue.new"
GENERATION = "generation-"

Files = dict[str, Column] | dict[str, MemoryColumn]


def occupy(path: Path) -> WriterLock:
    """A directory for a new index, locked; leftovers of an index that was never completed are cleared away."""
    exists = IndexExistsError(
        f"{path} exists already and is not an empty directory: open the index there, or choose another path"
    )
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_path(folder.parent)
        _refuse_if_occupied(path, exists)
        lock = WriterLock(path)
        lock.acquire()
    except (FileExistsError, NotADirectoryError):
        raise exists from None
    except (OSError, ValueError) as error:  # a ValueError is a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot make the directory {shown(str(path))}: {reason}") from None
    try:
        _refuse_if_occupied(path, exists)
        _clear(path)
    except BaseException:
        lock.release()
        raise
    return lock


def _clear(path: Path) -> None:
    """Delete what there is of an index that was not completed, its unfinished catalogue last."""
    for left in path.glob(f"{GENERATION}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in path.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            left.unlink()


def _refuse_if_occupied(path: Path, error: IndexExistsError) -> None:
    names = {file.name for file in path.iterdir()} - {LOCK}
    unfinished = UNFINISHED in names and CATALOGUE not in names
    if names and not unfinished:
        raise error


def write_new(
    path: Path,
    config: IndexConfig,
    state: Snapshot | None,
    source: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write an index, empty or holding a state, into a directory that was occupied for it; or leave nothing there."""
    try:
        _complete(path, config, state, source, progress)
    except BaseException:
        if not (path / CATALOGUE).exists():
            for extra in _extras(source):
                with suppress(OSError):
                    (path / extra.name).unlink(missing_ok=True)
            _clear(path)
        raise


def _extras(source: Path | None) -> list[Path]:
    """Files that others keep in the directory of an index."""
    ours = (CATALOGUE, UNFINISHED, LOCK)
    files = [] if source is None else [file for file in source.iterdir() if file.is_file()]
    return [file for file in files if not file.name.startswith(ours)]


def _complete(
    path: Path, config: IndexConfig, state: Snapshot | None, source: Path | None, progress: Progress | None
) -> None:
    generation = 0 if state is None else state.committed.generation
    folder = path / f"{GENERATION}{generation}"
    with ExitStack() as finally_close:
        catalogue = Catalogue.create(path / UNFINISHED, config)
        finally_close.callback(catalogue.close)
        sync_path(path)
        files = make_files(folder, config)
        finally_close.callback(close_files, files)
        extents = {} if state is None else _copy(state, files, progress)
        sync(files, folder)
        if state is not None:
            content = state.committed._replace(extents=extents)
            catalogue.commit(catalogue.read(), content, np.arange(len(state.cells)))
    try:
        for extra in _extras(source):
            shutil.copy2(extra, path / extra.name)
            sync_path(path / extra.name)
        sync_path(path)
        os.rename(path / UNFINISHED, path / CATALOGUE)
        sync_path(path)
    except OSError as error:
        raise StorageError(f"cannot complete the index {path}: {error.strerror}") from None


def _copy(state: Snapshot, files: Files, progress: Progress | None) -> dict[str, Extent]:
    """Copy all columns, compare what was read with its checksums, and say what counts in the copy."""
    total, extents = len(state.columns), {}
    for name, file in state.columns.files().items():
        file.require(state.columns.extents[name].rows)
    for name, view in state.columns.raw().items():
        extent = Extent()
        size = max(1, COPY_BYTES // files[name].spec.row_bytes)
        for start in range(0, len(view), size):
            extent = files[name].append(extent, view[start : start + size])
            state.columns.release_pages()
            if progress is not None and name == "features":  # by far the most bytes
                progress(extent.rows, total)
        given = state.columns.extents[name].crcs
        if state.columns.files() and not np.array_equal(extent.crcs, given):
            block = int(np.argmax(extent.crcs != given))
            raise DamagedIndexError(
                f"the column {name} is damaged from row {block * files[name].spec.block} on: the backup was not made; "
                "`semcut verify` lists what is damaged"
            )
        extents[name] = extent
    return extents


def make_files(folder: Path | None, config: IndexConfig) -> Files:
    """Empty columns, in a new directory (one that a crash left is replaced) or in memory."""
    if folder is None:
        return {name: MemoryColumn(spec) for name, spec in specs(config).items()}
    files: dict[str, Column] = {}
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, spec in specs(config).items():
            files[name] = Column(folder / name, spec, create=True)
    except OSError as error:
        close_files(files)
        raise StorageError(f"cannot make {folder}: {error.strerror}") from None
    except BaseException:
        close_files(files)
        raise
    return files


def sync(files: Files, folder: Path | None) -> None:
    """Return when the columns, and the directory that they are in, are on the disk."""
    for file in files.values():
        file.sync()
    if folder is not None:
        sync_path(folder)


def sync_path(path: Path) -> None:
    """Return when a directory, or a file that was written elsewhere, is on the disk as it is now."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"cannot write {path} to disk: {error.strerror}") from None


def close_files(files: Files) -> None:
    """Close all columns."""
    for file in files.values():
        file.close()
