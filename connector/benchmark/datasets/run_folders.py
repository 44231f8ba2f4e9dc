"""What a run may delete and write in its directory: real directories, and in them only what semcut writes there.

The directory of a run may come from someone else. A link in it could lead to any directory of the user, and a directory
that a user gave by mistake can have folders of the same names.

    data/NAME       a data set, see `dataset`
    raw/NAME        the results of a data set, see `raw_results`
    plots           pictures of the report
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

_NEW = r"(\.[0-9a-f]{16}\.new)?"  # what `atomic_write` appends while it writes
_INDEX = {
    r"(catalogue\.sqlite|catalogue\.new)(-journal|-wal|-shm)?|lock": None,
    r"generation-[0-9]+": {r"ids|codes|probabilities|features|cells|uri_ends|uri_bytes|removed": None},
}
_DATASET = {
    rf"(labels\.npz|dataset\.json|truth-[0-9-]+\.npz){_NEW}": None,
    r"index|queries": _INDEX,
    r"\.build-[a-z0-9_]+": {"index": _INDEX},
}
_RESULTS = {rf"(dataset\.json|[A-Za-z0-9.=+-]+\.npz){_NEW}": None}


def require_directories(out: Path) -> None:
    """Check that the folders of a run are real directories, and no data set in them is a link; nothing is changed.

    Raises:
        DataError: one of them is something else, or cannot be listed.
    """
    require_directory(out / "plots")
    for folder in (out / "data", out / "raw"):
        if require_directory(folder):
            for path in _listed(folder):
                if path.is_symlink():
                    require_directory(path)


def require_directory(path: Path) -> bool:
    """Return whether there is a real directory; False if there is nothing.

    Raises:
        DataError: there is something else, such as a link to a directory.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no directory"
        raise DataError(f"{path} is {what}, expected a directory that a benchmark made: move it away")
    return True


def delete_dataset(path: Path) -> None:
    """Delete an unfinished data set, if there is one.

    Raises:
        DataError: there is something in it that semcut does not write there; then nothing is deleted. Or the disk
            refuses.
    """
    _delete(path, _DATASET)


def delete_results(path: Path) -> None:
    """Delete unfinished results of a data set, if there are any.

    Raises:
        DataError: as for `delete_dataset`.
    """
    _delete(path, _RESULTS)


def _delete(path: Path, parts: Mapping[str, Any]) -> None:
    if not require_directory(path):
        return
    _require_parts(path, parts)
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise DataError(f"cannot delete {path}: {error.strerror}") from None


def _require_parts(path: Path, parts: Mapping[str, Any]) -> None:
    """Raise `DataError` unless a directory has only regular files and directories of these names, at every depth."""
    for entry in _listed(path):
        inner = next((inner for name, inner in parts.items() if re.fullmatch(name, entry.name)), ...)
        mode = os.lstat(entry).st_mode
        if inner is ... or not (stat.S_ISREG(mode) if inner is None else stat.S_ISDIR(mode)):
            raise DataError(
                f"{path} has {shown(entry.name)}, which semcut did not write there, and would be deleted: move it "
                "away, or choose another directory for the run"
            )
        if inner is not None:
            _require_parts(entry, inner)


def _listed(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {path}: {error.strerror}") from None
