"""Replace a stored index by a backup, in one step, while other processes search the index.

Copying the files of a backup over those of an index cannot be made safe: a process that has the index open maps these
files into its memory, and would read a mixture, or be killed by the system where a file becomes shorter. So `restore`

1. writes a checked copy of the backup beside the index;
2. takes the writer's lock of the index, so that no writer is at work;
3. exchanges the two directories by one call of the system, or, where the file system cannot do that, by two renames;
4. deletes the previous directory. Processes that have it open still read the previous state, until they open the index
   again.

A crash leaves the previous index or the restored one at the path, and perhaps the other one beside it, under the name
`NAME.restoring` or, between two renames, the previous one as `NAME.replaced`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from semcut.indexes.errors import IndexExistsError, StorageError, shown
from semcut.indexes.progress import Progress
from semcut.indexes.storage.directory import (
    CATALOGUE,
    GENERATION,
    MARK,
    UNFINISHED,
    delete_tree,
    require_index,
    sync_path,
)
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.writer_lock import NAME as LOCK
from semcut.indexes.storage.writer_lock import WriterLock

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def restore(backup: Path, path: Path, progress: Progress | None = None) -> int:
    """Replace the index at a path by a copy of a backup.

    Args:
        backup: the directory of the backup, which stays as it is.
        path: the directory of the index; damaged, or missing, is allowed.
        progress: called with the number of records copied so far, and the total number of records.

    Returns:
        The number of records of the restored index.

    Raises:
        NotAnIndexError, FormatVersionError, DamagedIndexError: the backup is not a sound index.
        IndexExistsError: there is something at the path that is not an index, or a file in it that is not of an index.
        LockedError: a writer has the index open.
        StorageError: the disk refuses; the index is as it was.
    """
    path = path.absolute()
    present = os.path.lexists(path)
    if present:
        _require_replaceable(path, backup)
    scratch = path.with_name(f"{path.name}.restoring")
    require_index(backup)
    store = Store.open(backup)
    try:
        if scratch.is_symlink():
            scratch.unlink()
        delete_tree(scratch)  # a restoration that was interrupted left it
        store.backup(scratch, store.snapshot, progress)
        records = len(store.snapshot)
    finally:
        store.close()
    try:
        if present:
            _replace(path, scratch)
        else:
            os.rename(scratch, path)
            sync_path(path.parent)
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {error.strerror}") from None
    finally:
        delete_tree(scratch)
    return records


def _require_replaceable(path: Path, backup: Path) -> None:
    """Check that nothing but an index is deleted with a directory. A file that is also in the backup is replaced."""
    if path.is_symlink() or not path.is_dir() or not (path / LOCK).exists():
        raise IndexExistsError(f"{path} is not the directory of an index: give the index to replace, or a new path")
    if backup.exists() and path.samefile(backup):
        raise IndexExistsError(f"{path} is the backup itself: give the index to replace, or a new path")
    names = sorted(file.name for file in path.iterdir())
    others = [name for name in names if not _is_of_an_index(name) and not (backup / name).is_file()]
    if others:
        raise IndexExistsError(
            f"{path} has what belongs neither to an index nor to the backup and would be deleted, such as "
            f"{shown(others[0])}: move it away"
        )


def _is_of_an_index(name: str) -> bool:
    return name in (LOCK, MARK) or name.startswith((CATALOGUE, UNFINISHED, GENERATION))


def _replace(path: Path, scratch: Path) -> None:
    lock = WriterLock(path)
    lock.acquire()
    try:
        if not _exchange(path, scratch):
            previous = path.with_name(f"{path.name}.replaced")
            os.rename(path, previous)
            os.rename(scratch, path)
            os.rename(previous, scratch)
        sync_path(path.parent)
    finally:
        lock.release()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories by one call, and return whether the file system can do that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # glibc before 2.28
        return False
    if libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), os.fspath(one))
