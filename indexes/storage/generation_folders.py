"""The directories `generation-<n>` of an index: which of them semcut made, and how they are deleted.

A user may keep own folders beside an index, also with such a name (`generation-2024/photo.jpg`), and own files in a
folder of semcut. So nothing is deleted by the name of its folder alone: a folder is semcut's if it holds nothing but
columns, and only files with the name of a column are ever deleted in it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from semcut.indexes.storage.column_specs import NAMES
from semcut.indexes.storage.kept_modes import take_mode

GENERATION = "generation-"
_OF_GENERATION = re.compile(rf"{GENERATION}[0-9]+")


def has_generation_name(file: Path) -> bool:
    """Return whether a file or directory is named like a generation of column files."""
    return _OF_GENERATION.fullmatch(file.name) is not None


def holds_only_columns(folder: Path) -> bool:
    """Return whether a directory, which is not a link, has nothing in it but columns, none of them a directory."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return False
        with os.scandir(folder) as found:
            return all(entry.name in NAMES and not entry.is_dir(follow_symlinks=False) for entry in found)
    except OSError:
        return False


def generations(path: Path) -> list[Path]:
    """List the generations of column files in the directory of an index, without folders that hold anything else."""
    return sorted(file for file in path.iterdir() if has_generation_name(file) and holds_only_columns(file))


def free_generation(path: Path, number: int) -> int:
    """Return the first number, from `number` on, whose directory is not there, or was left there by a crash."""
    while True:
        folder = path / f"{GENERATION}{number}"
        if not os.path.lexists(folder) or holds_only_columns(folder):
            return number
        number += 1


def delete_generation(folder: Path) -> None:
    """Delete the columns in a directory, and the directory if nothing else is in it, as far as that is possible.

    A link in place of the directory is not followed, and stays.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        for name in NAMES:
            with suppress(OSError):  # it is not there, or is a directory, which `unlink` refuses
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    with suppress(OSError):
        os.rmdir(folder)


def delete_tree(folder: Path) -> None:
    """Delete a directory with all that is in it, as far as that is possible; the caller knows that it is semcut's own.

    A link is deleted, not followed; so is a FIFO, at which `shutil.rmtree` would wait for ever. A file stays.
    """
    with suppress(OSError):
        mode = os.lstat(folder).st_mode
        if not stat.S_ISDIR(mode):
            if not stat.S_ISREG(mode):
                folder.unlink()
            return
    try:
        with suppress(RecursionError):  # a directory from someone else can be thousands of levels deep
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        # Ctrl-C between two steps of `rmtree` makes it close a descriptor twice, and raise the error of that instead.
        cause: BaseException | None = error
        while isinstance(cause, Exception):
            cause = cause.__context__
        if cause is not None:
            raise cause from None


def take_modes_of_index(path: Path, like: Path) -> None:
    """Give an index that replaces another the modes of that, file by file; a damaged one may lack some."""
    former = generations(like)
    for file in path.iterdir():
        if file.is_file() and not file.is_symlink():
            take_mode(file, like / file.name, owner=True)
    for folder in generations(path):
        if former:
            for name in NAMES:
                take_mode(folder / name, former[-1] / name, owner=True)
            take_mode(folder, former[-1], owner=True)
    take_mode(path, like, owner=True)
