"""Directories in which an index is built that replaces another: semcut deletes only those that it has made.

A user may have an own index with the name of such a directory. So semcut marks a directory when it creates it, by an
empty file `semcut.rebuilding`, and deletes what is in one only if it is marked. The mark is deleted last.

When two directories are exchanged, both are marked, since the previous index is deleted then. A crash can leave the
mark in an index, where the next rebuilding or restoration deletes it; no backup has it.

Two commands may want the same name at the same time, and one may still delete what the next has found. So a command
holds an `flock` on each mark, from its creation until the directory is deleted, and nobody deletes what is in a
directory without the lock of its mark. The system releases the lock when the process ends, however it ends. A directory
without a mark, new or nearly deleted, is removed by `rmdir` alone, which fails if it is in use meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semcut.indexes.errors import LockedError, StorageError
from semcut.indexes.regular_files import open_descriptor
from semcut.indexes.storage.directory import sync_path
from semcut.indexes.storage.files_beside import REBUILDING
from semcut.indexes.storage.generation_folders import delete_tree


class Marks:
    """The marks of one command, each of which it has made and locked. Their directories may be exchanged meanwhile."""

    def __init__(self) -> None:
        self._opened: list[int] = []  # descriptors
        self._locked: list[int] = []  # those of them that have the lock

    @contextmanager
    def marked(self, index: Path) -> Iterator[None]:
        """Mark an index while it is exchanged with a new one that is marked; what has its path then loses the mark.

        Args:
            index: the index, whose writer's lock the caller holds.

        Raises:
            OSError, StorageError: the mark cannot be written.
        """
        unmark(index)  # a crash, or someone else, may have left something there
        try:
            self.mark(index)
            yield
        finally:
            self.unmark(index)

    def mark(self, folder: Path) -> None:
        """Mark a directory that has no mark, and lock the mark; errors as for `marked`."""
        self._opened.append(open_descriptor(folder / REBUILDING, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        _lock(self._opened[-1], folder)
        self._locked.append(self._opened[-1])
        sync_path(folder)

    def unmark(self, folder: Path) -> None:
        """Delete the mark of a directory, if it is one of these and that is possible."""
        if self.on(folder):
            unmark(folder)

    def on(self, folder: Path) -> bool:
        """Return whether the mark of a directory is one of these."""
        return any(_is_mark_of(descriptor, folder) for descriptor in self._locked)

    def release(self) -> None:
        """Release all locks."""
        self._locked.clear()
        while self._opened:
            with suppress(OSError):
                fcntl.flock(self._opened[-1], fcntl.LOCK_UN)  # a forked child has the descriptor, too
            os.close(self._opened.pop())


@contextmanager
def created(scratch: Path) -> Iterator[Marks]:
    """Create a directory in place of one that was left, and delete what has its name after the block.

    Yields:
        The marks of this command: that of the directory, and, later, that of the index which it replaces.

    Raises:
        LockedError: another command uses the name.
        OSError, StorageError: something else has the name, or the disk refuses.
    """
    marks = Marks()
    try:
        with _left(scratch) as (left, marked):
            if marked:
                _delete(scratch)
            elif left:
                with suppress(OSError):  # another command has marked it meanwhile: it is in use
                    scratch.rmdir()
        try:
            scratch.mkdir(0o700)
            marks.mark(scratch)
        except (FileExistsError, FileNotFoundError):
            if scratch.parent.is_dir():
                raise _in_use(scratch) from None
            raise
        yield marks
    finally:
        try:
            if marks.on(scratch):
                _delete(scratch)
        finally:
            marks.release()


def unmark(folder: Path) -> None:
    """Delete the mark of a directory, if it has one and that is possible."""
    with suppress(OSError):
        (folder / REBUILDING).unlink()


def is_left(scratch: Path) -> bool:
    """Return whether a path is a directory that semcut has marked, or one with nothing in it.

    Raises:
        LockedError: another command uses the directory.
        StorageError: the directory cannot be read, or its mark cannot be locked.
    """
    with _left(scratch) as (left, _):
        return left


@contextmanager
def _left(scratch: Path) -> Iterator[tuple[bool, bool]]:
    """Yield what `is_left` returns, and whether there is a mark, which is locked during the block."""
    descriptor = None
    try:
        try:
            left, marked = _kind(scratch)
            if marked:
                descriptor = open_descriptor(scratch / REBUILDING, os.O_RDWR)
                _lock(descriptor, scratch)
        except FileNotFoundError:  # another command is deleting it
            raise _in_use(scratch) from None
        except OSError as error:
            raise StorageError(f"cannot lock {scratch}: {error.strerror}") from None
        yield left, marked
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _kind(scratch: Path) -> tuple[bool, bool]:
    """Return whether a path is a directory that was left, and whether it is marked."""
    if scratch.is_symlink() or not scratch.is_dir():
        return False, False
    mark = scratch / REBUILDING
    if not os.path.lexists(mark):
        names = os.listdir(scratch)
        if not names or not os.path.lexists(mark):  # which another command may have made just now
            return not names, False
    marked = stat.S_ISREG(os.lstat(mark).st_mode)
    return marked, marked


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise _in_use(folder) from None
    if not _is_mark_of(descriptor, folder):  # it was deleted, perhaps with its directory, before it was locked
        raise _in_use(folder)


def _is_mark_of(descriptor: int, folder: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), os.lstat(folder / REBUILDING))
    return False


def _in_use(folder: Path) -> LockedError:
    return LockedError(f"{folder} is in use by another command, which replaces the index: try again when it has ended")


def _delete(scratch: Path) -> None:
    """Delete a directory, and the mark last, as far as that is possible; nobody else holds the lock of its mark."""
    with suppress(OSError):
        for file in scratch.iterdir():
            if file.name != REBUILDING:
                delete_tree(file)
                with suppress(OSError):
                    file.unlink(missing_ok=True)
        if os.listdir(scratch) == [REBUILDING]:
            unmark(scratch)
        scratch.rmdir()
