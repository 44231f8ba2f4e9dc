"""Give files and directories the modes of those that they copy or replace, so that a private index stays private.

The owner may always read and write, and no file of an index can be executed. Rights of a group are those of the same
group: where the system does not allow to set it, no group has rights. A file system without modes, such as that of a
USB stick, is no error.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def give_mode(path: Path, found: os.stat_result, mode: int, *, owner: bool) -> None:
    """Give a new file or directory a mode, with the group of another.

    Args:
        path: the file or directory.
        found: the state of the other.
        mode: the mode.
        owner: whether the other is replaced, so that its owner keeps it if the system allows that.
    """
    with suppress(OSError):
        own = os.lstat(path)
        if owner and own.st_uid != found.st_uid:
            with suppress(OSError):
                os.chown(path, found.st_uid, -1)
        if own.st_gid != found.st_gid:
            try:
                os.chown(path, -1, found.st_gid)
            except OSError:
                mode &= ~0o070
        os.chmod(path, mode)


def take_mode(path: Path, like: Path, *, owner: bool = False) -> None:
    """Give a file or directory the mode and the group of another; nothing changes if the other is not there.

    Args:
        path: the file or directory.
        like: the other, of the same kind.
        owner: as for `give_mode`.
    """
    with suppress(OSError):
        found = os.lstat(like)
        if stat.S_ISDIR(found.st_mode):
            give_mode(path, found, (found.st_mode & 0o2777) | 0o700, owner=owner)
        elif stat.S_ISREG(found.st_mode):
            give_mode(path, found, (found.st_mode & 0o666) | 0o600, owner=owner)


def narrow_mode(path: Path, like: Path) -> None:
    """Take from others the rights to a directory that they do not have to another."""
    with suppress(OSError):
        found, own = os.stat(like), os.stat(path)
        allowed = found.st_mode if found.st_gid == own.st_gid else found.st_mode & ~0o070
        os.chmod(path, stat.S_IMODE(own.st_mode) & (allowed | 0o7700))
