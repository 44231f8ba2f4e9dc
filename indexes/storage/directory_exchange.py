"""Exchange the directory of an index with another one, by one call of the system or by two renames.

A process that opens the index meanwhile finds one of the two. Where the file system cannot exchange directories, there
is none for a moment, and a crash in that moment leaves the previous one as `NAME.replaced`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from semcut.indexes.storage.directory import sync_path
from semcut.indexes.storage.generation_folders import take_modes_of_index

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def exchange_directories(path: Path, scratch: Path) -> None:
    """Give a new index the modes of an index, and exchange their directories.

    Args:
        path: the index, whose writer's lock the caller holds.
        scratch: the new index, in the same directory, which is on the disk; afterwards the previous one.

    Raises:
        OSError: the file system refuses; the index is as it was.
        StorageError: the disk refuses.
    """
    take_modes_of_index(scratch, path)
    if not _exchange(path, scratch):
        previous = path.with_name(f"{path.name}.replaced")
        os.rename(path, previous)
        try:
            os.rename(scratch, path)
        except OSError:
            os.rename(previous, path)
            raise
        os.rename(previous, scratch)
    sync_path(path.parent)


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
