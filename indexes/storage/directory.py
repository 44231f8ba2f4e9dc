"""The directory of an index: its layout, its column files, and the steps that create it completely or leave it empty.

    index/
        catalogue.sqlite        which rows of the column files belong to the index (see `catalogue`)
        generation-<n>/         one file per column (see `column_files`)
        unfinished.json         there while a command adds records (see `indexes.unfinished`)
        files.jsonl             of which files the records are (see `connector.retrieval.file_facts`)
        semcut.rebuilding       there while the index is replaced (see `marked_scratch`)
        lock                    locked by the process that may write (see `writer_lock`)

`lock_new_directory` and `new_index` create a directory, for an empty index or for a backup:

1. the directory is created, or an empty one is used, and it is locked;
2. an empty catalogue is created under the name `catalogue.new`;
3. the catalogue is filled, and the column files are written and synced;
4. for a backup, the other files of the source directory are copied and synced (see `files_beside`);
5. `catalogue.new` is renamed to `catalogue.sqlite`, and the directory is synced.

Before the end of step 5 the directory is not an index. A crash leaves a directory that is recognised by its
`catalogue.new` and cleared when an index is created there again. An error leaves an empty directory, except for the
lock file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import DamagedIndexError, IndexExistsError, NotAnIndexError, StorageError, shown
from semcut.indexes.storage.atomic_write import sync_to_disk
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.column_files import Column
from semcut.indexes.storage.column_specs import specs
from semcut.indexes.storage.copied_files import begins
from semcut.indexes.storage.files_beside import CATALOGUE as CATALOGUE
from semcut.indexes.storage.files_beside import FACTS as FACTS
from semcut.indexes.storage.files_beside import MARK as MARK
from semcut.indexes.storage.files_beside import OF_CATALOGUE, OWN_SCRATCH, REBUILDING, Beside, copy_others, other_files
from semcut.indexes.storage.files_beside import UNFINISHED as UNFINISHED
from semcut.indexes.storage.generation_folders import (
    GENERATION,
    delete_generation,
    has_generation_name,
    holds_only_columns,
)
from semcut.indexes.storage.kept_column import KEPT, KeptColumn
from semcut.indexes.storage.kept_modes import narrow_mode, take_mode
from semcut.indexes.storage.mapped_columns import ColumnFiles
from semcut.indexes.storage.memory_column import MemoryColumn
from semcut.indexes.storage.writer_lock import NAME as LOCK
from semcut.indexes.storage.writer_lock import WriterLock


def belongs_to_index(file: Path) -> bool:
    """Return whether a file or directory has the name and the kind of a part of an index, so that it may be deleted.

    A user may keep own files beside these, such as `generation-photos/`, `generation-2024/photo.jpg` or
    `catalogue.sqlite.copy`. A link or a FIFO in place of a part has nothing in it.
    """
    mode = os.lstat(file).st_mode
    generation = has_generation_name(file)
    of_index = file.name in (MARK, FACTS) or bool(OF_CATALOGUE.fullmatch(file.name) or OWN_SCRATCH.fullmatch(file.name))
    if stat.S_ISDIR(mode):
        return generation and holds_only_columns(file)
    return of_index or (generation and not stat.S_ISREG(mode))


def delete_index(path: Path) -> None:
    """Delete the parts of an index, and its directory if there is nothing else in it, as far as that is possible."""
    with suppress(OSError):
        for file in path.iterdir():
            if belongs_to_index(file):
                _delete_part(file)
        path.rmdir()


def _delete_part(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        delete_generation(file)
    else:
        file.unlink()


def require_index(path: Path) -> None:
    """Raise `NotAnIndexError` unless the directory has a catalogue; the message says what was found instead."""
    try:
        directory, complete = path.is_dir(), (path / CATALOGUE).is_file()
    except (OSError, ValueError) as error:  # a ValueError means a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotAnIndexError(f"{shown(str(path))} cannot be accessed: {reason}") from None
    if not directory:
        raise NotAnIndexError(f"{path} is not a directory: give the directory of an index")
    if complete:
        return
    if (path / UNFINISHED).exists():
        raise NotAnIndexError(f"{path} is a semcut index whose creation was interrupted: create it there again")
    raise NotAnIndexError(
        f"{path} is not a semcut index: it has no {CATALOGUE}; if it was one, restore it from a backup"
    )


def lock_new_directory(path: Path, source: Path | None = None) -> WriterLock:
    """Create the directory of a new index, lock it, and delete the files of an index that was never completed there.

    Args:
        path: the directory.
        source: directory of the index that is backed up, or None. The new directory is as private.

    Returns:
        The lock, already acquired.

    Raises:
        IndexExistsError: the path exists and is not an empty directory.
        LockedError: another index object is creating an index there.
        StorageError: the directory cannot be created.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(0o777 if source is None else 0o700, parents=True, exist_ok=True)
        for folder in missing:
            sync_path(folder.parent)
        try:
            require_free(path, source)
        except IndexExistsError:
            for folder in missing:  # of a path that leads to an existing one, such as new/../..
                if ".." not in folder.parts:
                    with suppress(OSError):
                        folder.rmdir()
            raise
    except FileExistsError:
        raise _exists(path) from None
    except NotADirectoryError:
        raise StorageError(f"cannot create the directory {path}: a part of its path is a file") from None
    except (OSError, ValueError) as error:  # a ValueError means a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot create the directory {shown(str(path))}: {reason}") from None
    lock = WriterLock(path)
    try:
        lock.acquire()  # Ctrl-C can come when it returns
        require_free(path, source)  # another process may have completed an index before the lock was taken
        _clear(path)
        if source is not None:
            (take_mode if path in missing else narrow_mode)(path, source)
    except BaseException:
        lock.release()
        raise
    return lock


def _exists(path: Path) -> IndexExistsError:
    return IndexExistsError(
        f"{path} exists already and is not an empty directory: open the index there, or choose another path"
    )


def require_free(path: Path, source: Path | None = None) -> None:
    """Raise `IndexExistsError` unless a directory is empty, or has nothing but an index that was never completed.

    A backup that was interrupted may also have copied other files of its source, perhaps not to their end.
    """
    files = [file for file in path.iterdir() if file.name not in (LOCK, REBUILDING)]
    names = {file.name for file in files}
    if names and (UNFINISHED not in names or CATALOGUE in names):
        raise _exists(path)
    copied = {file.name: file for file in other_files(source)} if files else {}
    for file in files:
        if not belongs_to_index(file) and not (file.name in copied and begins(file, copied[file.name])):
            raise IndexExistsError(
                f"the creation of an index in {path} was interrupted, and {shown(file.name)} there belongs to no "
                "index: move it away, or choose another path"
            )


def _clear(path: Path) -> None:
    """Delete an index that was not completed. The catalogue is deleted last, because it identifies such a directory."""
    for file in path.iterdir():
        if has_generation_name(file) and belongs_to_index(file):
            with suppress(OSError):
                _delete_part(file)
    for name in (MARK, FACTS, f"{UNFINISHED}-journal", UNFINISHED):
        with suppress(OSError):
            (path / name).unlink()


@contextmanager
def new_index(
    path: Path,
    config: IndexConfig,
    generation: int = 0,
    source: Path | None = None,
    version: int = 0,
    beside: Beside | None = None,
    fits: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Catalogue, dict[str, Column]]]:
    """Yield an empty catalogue and empty columns, and complete the index when the block ends.

    An error, in the block or after it, leaves the directory empty except for the lock file.

    Args:
        path: the directory, from `lock_new_directory`, whose lock the caller holds.
        config: the configuration of the index.
        generation: number of the directory of column files.
        source: directory of the index that is backed up, or None. Files there that do not belong to the index, such as
            the link to its network, are copied.
        version, beside: of the snapshot that is backed up, see `files_beside`.
        fits: called when all is copied; raises an error if `source` has other files than those of the snapshot by now.

    Raises:
        StorageError: the disk refuses.
    """
    folder = path / f"{GENERATION}{generation}"
    copied: list[Path] = []
    try:
        with ExitStack() as finally_close:
            catalogue = Catalogue.create(path / UNFINISHED, config, private=source is not None)
            finally_close.callback(catalogue.close)
            if source is not None:
                take_mode(path / UNFINISHED, source / CATALOGUE)
            sync_path(path)
            files = create_columns(folder, config, None if source is None else source / folder.name)
            finally_close.callback(close_columns, files)
            yield catalogue, files
            sync_columns(files)
            sync_path(folder)
        try:
            if source is not None:
                copy_others(source, path, version, beside or Beside(), copied)
                fits()
            for file in copied:
                sync_path(file)
            sync_path(path)
            os.rename(path / UNFINISHED, path / CATALOGUE)
            sync_path(path)
        except OSError as error:
            of = f" ({error.filename})" if error.filename else ""
            raise StorageError(f"cannot complete the index {path}: {error.strerror}{of}") from None
    except BaseException:
        if not (path / CATALOGUE).exists():
            for file in copied:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
            _clear(path)
        raise


def open_columns(path: Path, config: IndexConfig, generation: int) -> dict[str, Column]:
    """Open all column files of a generation, for appending too where a file is writable.

    Raises:
        DamagedIndexError: a file is missing.
        StorageError: a file cannot be opened.
    """
    files: dict[str, Column] = {}
    folder = path / f"{GENERATION}{generation}"
    if folder.is_symlink():  # its files could be those of another index
        raise DamagedIndexError(f"{folder} is a symbolic link, expected a directory: restore the index from a backup")
    try:
        for name, spec in specs(config).items():
            file = folder / name
            files[name] = _column(name)(file, spec, writable=os.access(file, os.W_OK))
    except BaseException:
        close_columns(files)
        raise
    return files


def _column(name: str) -> type[Column]:
    return KeptColumn if name in KEPT else Column


def memory_columns(config: IndexConfig) -> dict[str, MemoryColumn]:
    """Create empty columns in memory."""
    return {name: MemoryColumn(spec) for name, spec in specs(config).items()}


def create_columns(
    folder: Path, config: IndexConfig, like: Path | None = None, *, replaced: bool = False
) -> dict[str, Column]:
    """Create empty column files in a new directory, which replaces a directory that a crash left there.

    Args:
        folder: the directory.
        config: the configuration of the index.
        like: a directory of column files whose modes the new ones get, or None.
        replaced: whether the new ones replace these, and belong to the same user.

    Raises:
        StorageError: there is something else of that name, or the disk refuses.
    """
    files: dict[str, Column] = {}
    try:
        if holds_only_columns(folder):
            delete_generation(folder)
        folder.mkdir(0o777 if like is None else 0o700)
        for name, spec in specs(config).items():
            files[name] = _column(name)(folder / name, spec, create=True)
            if like is not None:
                take_mode(folder / name, like / name, owner=replaced)
        if like is not None:
            take_mode(folder, like, owner=replaced)
    except OSError as error:
        close_columns(files)
        raise StorageError(f"cannot create {folder}: {error.strerror}") from None
    except BaseException:
        close_columns(files)
        raise
    return files


def sync_columns(files: ColumnFiles) -> None:
    """Force all columns to the disk.

    Raises:
        StorageError: the disk refuses.
    """
    for file in files.values():
        file.sync()


def sync_path(path: Path) -> None:
    """Force a directory, or a file that is not a column, to the disk, as `sync_to_disk` with another error.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        sync_to_disk(path)
    except OSError as error:
        raise StorageError(f"cannot write {path} to disk: {error.strerror}") from None


def close_columns(files: ColumnFiles) -> None:
    """Close all columns."""
    for file in files.values():
        file.close()
