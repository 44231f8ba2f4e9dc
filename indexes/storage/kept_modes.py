"""Give files and directories the modes of those that they copy or replace, so that a private index stays private.

The owner may always read and write, and no file can be executed. A file system without modes, such as that of a USB
stick, is no error.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from semcut.indexes.storage.column_specs import NAMES
from semcut.indexes.storage.generation_folders import generations


def mode_of(path: Path) -> int | None:
    """Return the mode for a copy of a regular file or a directory; None if there is neither at the path."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return (mode & 0o777) | 0o700
    return (mode & 0o666) | 0o600 if stat.S_ISREG(mode) else None


def take_mode(path: Path, like: Path) -> None:
    """Give a file or directory the mode of another; nothing changes if the other is not there."""
    mode = mode_of(like)
    if mode is not None:
        with suppress(OSError):
            os.chmod(path, mode)


def narrow_mode(path: Path, like: Path) -> None:
    """Take from others the rights to a directory that they do not have to another."""
    mode = mode_of(like)
    if mode is not None:
        with suppress(OSError):
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & (mode | 0o7000))


def take_modes_of_index(path: Path, like: Path) -> None:
    """Give the directory of an index and all files in it the modes of those in another; a damaged one may lack some."""
    former = generations(like)
    for file in path.iterdir():
        if file.is_file() and not file.is_symlink():
            take_mode(file, like / file.name)
    for folder in generations(path):
        if former:
            for name in NAMES:
                take_mode(folder / name, former[-1] / name)
            take_mode(folder, former[-1])
    take_mode(path, like)
