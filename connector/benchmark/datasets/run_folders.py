"""What a run may delete and write in its directory: real directories, and in them only what semcut writes there.

The directory of a run may come from someone else, see `own_folders`.

    data/NAME       a data set, see `dataset`
    raw/NAME        the results of a data set, see `raw_results`
    plots           pictures of the report
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from semcut.connector import own_folders
from semcut.connector.own_folders import INDEX, NEW

_MAKER = "a benchmark"
_DATASET = {
    rf"(labels\.npz|dataset\.json|truth-[0-9-]+\.npz){NEW}": None,
    r"index|queries": INDEX,
    r"\.build-[a-z0-9_]+": {"index": INDEX},
}
_RESULTS = ("dataset.json", "truth.npz", "queries.npz", "probes.npz")


def require_directories(out: Path) -> None:
    """Check that the folders of a run are real directories, and no data set in them is a link; nothing is changed.

    Raises:
        DataError: one of them is something else, or cannot be listed.
    """
    require_directory(out / "plots")
    for folder in (out / "data", out / "raw"):
        if require_directory(folder):
            for path in own_folders.listed(folder):
                if path.is_symlink():
                    require_directory(path)


def require_directory(path: Path) -> bool:
    """Return whether there is a real directory; False if there is nothing.

    Raises:
        DataError: there is something else, such as a link to a directory.
    """
    return own_folders.require_directory(path, _MAKER)


def delete_dataset(path: Path) -> None:
    """Delete an unfinished data set, if there is one.

    Raises:
        DataError: there is something in it that semcut does not write there; then nothing is deleted. Or the disk
            refuses.
    """
    own_folders.delete_parts(path, _DATASET, _MAKER)


def delete_results(path: Path, files: Iterable[str] = ()) -> None:
    """Delete unfinished results of a data set, if there are any.

    Args:
        path: their directory.
        files: names of the files that the methods have.

    Raises:
        DataError: as for `delete_dataset`.
    """
    names = "|".join(re.escape(name) for name in (*_RESULTS, *files))
    own_folders.delete_parts(path, {f"({names}){NEW}": None}, _MAKER)
