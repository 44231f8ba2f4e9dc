"""Directories in which an index is built that replaces another: semcut deletes only those that it has made.

A user may have an own index with the name of such a directory. So semcut marks a directory when it creates it, by an
empty file `semcut.rebuilding`, and deletes only one that is marked, or has nothing in it. The mark is deleted last.

When two directories are exchanged, both are marked, since the previous index is deleted then. A crash can leave the
mark in an index, where the next rebuilding or restoration deletes it; no backup has it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semcut.indexes.storage.directory import sync_path
from semcut.indexes.storage.files_beside import REBUILDING
from semcut.indexes.storage.generation_folders import delete_tree


@contextmanager
def created(scratch: Path) -> Iterator[None]:
    """Create a directory in place of one that was left, and delete what has its name after the block.

    Raises:
        OSError, StorageError: something else has the name, or the disk refuses.
    """
    _delete(scratch)
    scratch.mkdir(0o700)
    try:
        _mark(scratch)
        yield
    finally:
        _delete(scratch)


@contextmanager
def marked(index: Path) -> Iterator[None]:
    """Mark an index while it is exchanged with a new one that is marked; what has its path then loses the mark.

    Raises:
        OSError, StorageError: the mark cannot be written.
    """
    try:
        _mark(index)
        yield
    finally:
        unmark(index)


def _mark(folder: Path) -> None:
    (folder / REBUILDING).touch()
    sync_path(folder)


def unmark(folder: Path) -> None:
    """Delete the mark of a directory, if it has one and that is possible."""
    with suppress(OSError):
        (folder / REBUILDING).unlink()


def is_left(scratch: Path) -> bool:
    """Return whether a path is a directory that semcut has marked, or one with nothing in it."""
    if scratch.is_symlink() or not scratch.is_dir():
        return False
    mark = scratch / REBUILDING
    return stat.S_ISREG(os.lstat(mark).st_mode) if os.path.lexists(mark) else not os.listdir(scratch)


def _delete(scratch: Path) -> None:
    """Delete a directory that is marked, and the mark last, as far as that is possible; or an empty one."""
    with suppress(OSError):
        if not is_left(scratch):
            return
        for file in scratch.iterdir():
            if file.name != REBUILDING:
                delete_tree(file)
                with suppress(OSError):
                    file.unlink(missing_ok=True)
        if os.listdir(scratch) == [REBUILDING]:
            unmark(scratch)
        scratch.rmdir()
