"""What semcut may delete and write in a directory: real directories, and in them only what semcut writes there.

A directory can come from someone else: a link in it could lead to any directory of the user. And a directory that a
user gave by mistake can have files and folders of the same names as those of semcut.

`Parts` describe what a directory has: a pattern for each name, with None for a regular file, and `Parts` again for a
directory.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcut.indexes.errors import DataError, shown

Parts = Mapping[str, Any]

NEW = r"(\.[0-9a-f]{16}\.new)?"
"""What `atomic_write` appends to a name while it writes."""

INDEX: Parts = {
    r"(catalogue\.sqlite|catalogue\.new)(-journal|-wal|-shm)?|lock": None,
    r"generation-[0-9]+": {
        r"ids|codes|probabilities|features|cells|uri_ends|uri_bytes|removed": None,
        r"attributes|vocabulary|key_ends|key_bytes": None,
    },
}
"""An index of encodings."""

INDEX_OF_IMAGES: Parts = {**INDEX, rf"(connector\.json|unfinished\.json|files\.jsonl){NEW}": None}
"""An index that a connector makes, perhaps unfinished."""


def require_directory(path: Path, maker: str) -> bool:
    """Return whether there is a real directory; False if there is nothing.

    Args:
        path: the path.
        maker: what makes this directory, for the message, such as "a benchmark".

    Raises:
        DataError: there is something else, such as a link to a directory.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no directory"
        raise DataError(f"{path} is {what}, expected a directory that {maker} made: move it away")
    return True


def delete_parts(path: Path, parts: Parts, maker: str) -> None:
    """Delete a directory, if there is one.

    Args:
        path: the directory.
        parts: all that it may have in it, at every depth.
        maker: as for `require_directory`.

    Raises:
        DataError: there is something in it that semcut does not write there; then nothing is deleted. Or the disk
            refuses.
    """
    if not require_directory(path, maker):
        return
    _require_parts(path, parts)
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise DataError(f"cannot delete {path}: {error.strerror}") from None


def _require_parts(path: Path, parts: Parts) -> None:
    """Raise `DataError` unless a directory has only regular files and directories of these names, at every depth."""
    for entry in listed(path):
        inner = next((inner for name, inner in parts.items() if re.fullmatch(name, entry.name)), ...)
        mode = os.lstat(entry).st_mode
        if inner is ... or not (stat.S_ISREG(mode) if inner is None else stat.S_ISDIR(mode)):
            raise DataError(
                f"{path} has {shown(entry.name)}, which semcut did not write there, and would be deleted: move it "
                "away, or choose another directory"
            )
        if inner is not None:
            _require_parts(entry, inner)


def listed(path: Path) -> list[Path]:
    """List what is in a directory, in order of names.

    Raises:
        DataError: the directory cannot be listed.
    """
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {path}: {error.strerror}") from None
