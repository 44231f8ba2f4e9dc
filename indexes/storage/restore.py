"""Replace a stored index by a backup, in one step, while other processes search the index.

Copying the files of a backup over those of an index cannot be made safe: a process that has the index open maps these
files into its memory, and would read a mixture, or be killed by the system where a file becomes shorter. So `restore`

1. writes a checked copy of the backup beside the index;
2. takes the writer's lock of the index, so that no writer is at work, and gives the copy the modes of the index;
3. exchanges the two directories, see `directory_exchange`;
4. deletes the previous directory. Processes that have it open still read the previous state, until they open the index
   again.

A crash leaves the previous index or the restored one at the path, and perhaps the other one beside it, under the name
`NAME.restoring` or, between two renames, the previous one as `NAME.replaced`.
"""

from __future__ import annotations

import os
from pathlib import Path

from semcut.indexes.errors import IndexExistsError, StorageError, shown
from semcut.indexes.progress import Progress
from semcut.indexes.storage.directory import belongs_to_index, require_index, sync_path
from semcut.indexes.storage.directory_exchange import exchange_directories
from semcut.indexes.storage.files_beside import other_files
from semcut.indexes.storage.kept_modes import take_mode
from semcut.indexes.storage.marked_scratch import Marks, created, is_left
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.writer_lock import NAME as LOCK
from semcut.indexes.storage.writer_lock import WriterLock


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
        IndexExistsError: there is something at the path that is not an index, or a file in it that is neither of an
            index nor in the backup; or something at `NAME.restoring` that an interrupted restoration did not leave.
        LockedError: a writer has the index open, or another command replaces it.
        StorageError: the backup is the index or at `NAME.restoring`, or inside, or the disk refuses; the index is as it
            was.
    """
    path = path.absolute()
    present = os.path.lexists(path)
    if present:
        _require_replaceable(path, backup)
    scratch = path.with_name(f"{path.name}.restoring")
    for place in (scratch, path):
        if Path(os.path.realpath(backup)).is_relative_to(os.path.realpath(place)):
            raise StorageError(
                f"{backup} is {place} itself or inside of it, which is deleted: move the backup away first"
            )
    if os.path.lexists(scratch) and (not is_left(scratch) or _others(scratch, backup)):
        raise IndexExistsError(f"{scratch} is not what an interrupted `semcut restore` leaves: move it away")
    require_index(backup)
    store = Store.open(backup)
    try:
        with created(scratch) as marks:
            store.backup(scratch, store.snapshot, progress)
            records = len(store.snapshot)
            store.close()
            if present:
                _replace(path, scratch, marks)
            else:
                take_mode(scratch, backup)
                os.rename(scratch, path)
                sync_path(path.parent)
                marks.unmark(path)
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {error.strerror}") from None
    finally:
        store.close()
    return records


def _require_replaceable(path: Path, backup: Path) -> None:
    """Check that nothing but an index is deleted with a directory. A file that is also in the backup is replaced."""
    if not _is_directory(path) or not (path / LOCK).exists():
        raise IndexExistsError(f"{path} is not the directory of an index: give the index to replace, or a new path")
    others = _others(path, backup)
    if others:
        raise IndexExistsError(
            f"{path} has what belongs neither to an index nor to the backup and would be deleted, such as "
            f"{shown(others[0])}: move it away"
        )


def _others(path: Path, backup: Path) -> list[str]:
    """Name what is neither a part of an index nor a file that is also in the backup."""
    try:
        in_backup = {file.name for file in other_files(backup)} if backup.is_dir() else set()
        return sorted(
            file.name
            for file in path.iterdir()
            if not belongs_to_index(file) and (file.name not in in_backup or file.is_symlink() or not file.is_file())
        )
    except OSError as error:
        raise StorageError(f"cannot list {error.filename}: {error.strerror}") from None


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _replace(path: Path, scratch: Path, marks: Marks) -> None:
    lock = WriterLock(path)
    try:
        lock.acquire()  # Ctrl-C can come when it returns
        _require_replaceable(path, scratch)  # again, because the copy takes a while
        with marks.marked(path):
            exchange_directories(path, scratch)
    finally:
        lock.release()
