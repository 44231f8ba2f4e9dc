"""The directory of `semcut demo`: what the command may write there, and which index there it may make again.

    OUT/model         the network and the state of its training
    OUT/index         the index of the digits
    OUT/queries       copies of some digits, in a folder for each class
    OUT/digits.png    the picture

The directory may come from someone else, or hold what a user has put there under these names or in these folders.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from semcut.connector.cli.options import PICTURE as _WRITTEN
from semcut.connector.own_folders import INDEX_OF_IMAGES, NEW, delete_parts, listed, require_directory
from semcut.indexes.errors import DataError, SemcutWarning, shown
from semcut.indexes.regular_files import read_bytes

MODEL, INDEX, QUERIES, PICTURE = "model", "index", "queries", "digits.png"

_MAKER = "the demo"
_STATE = "training.safetensors"
_BEFORE_STATE = re.compile(rf"(training-images\.(txt|safetensors)|training\.safetensors){NEW}")
"""What a training that was killed before its first state leaves."""


def require_own_directories(out: Path) -> None:
    """Check that the directory is new, or has nothing under the names of the demo but what the demo makes.

    Nothing is changed. Which records the index has is checked by `delete_index_of_demo`.

    Raises:
        DataError: a folder of the demo is a link or no directory, the network has no state of a training, or there is
            an index, a picture or a folder of queries without a network.
    """
    for name in (MODEL, INDEX, QUERIES):
        if require_directory(out / name, _MAKER) and name == QUERIES:
            for folder in listed(out / name):
                if not stat.S_ISREG(os.lstat(folder).st_mode):
                    require_directory(folder, _MAKER)
    model = out / MODEL
    names = [path.name for path in listed(model)] if os.path.lexists(model) else []
    trained = _STATE in names
    if not trained and not all(map(_BEFORE_STATE.fullmatch, names)):
        raise DataError(
            f"{model} has no {_STATE}, so the demo did not train this network: move it away, or choose another "
            "directory with --out"
        )
    other = next((out / name for name in (INDEX, QUERIES, PICTURE) if _holds(out / name)), None)
    if other is not None and not trained:
        raise DataError(
            f"{other} was not made by the demo, which makes {model} first: move it away, or choose another "
            "directory with --out"
        )


def require_own_files(out: Path, digits: Mapping[Path, bytes]) -> list[Path]:
    """Check that the picture and the copies of digits are not there, or are those of the demo; nothing is changed.

    A link is replaced by a file: what it leads to stays.

    Args:
        out: the directory of the demo.
        digits: the content of each copy, by its path.

    Returns:
        The copies that have to be written.

    Raises:
        DataError: there is something else under one of these names.
    """
    picture = out / PICTURE
    if _is_there(picture) and (not picture.is_file() or _WRITTEN.refusal(picture)):
        raise _of_the_user(picture, "picture")
    there = {copy for copy in digits if _is_there(copy)}
    for copy in there:
        if not _has(copy, digits[copy]):
            raise _of_the_user(copy, "digit")
    return [copy for copy in digits if copy not in there]


def _is_there(path: Path) -> bool:
    """Return whether there is anything but a link."""
    return os.path.lexists(path) and not path.is_symlink()


def _has(file: Path, content: bytes) -> bool:
    try:
        return read_bytes(file, len(content)) == content
    except OSError:
        return False


def _of_the_user(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is not the {what} that the demo would write there: move it away, or choose another directory with "
        "--out"
    )


def _holds(path: Path) -> bool:
    """Return whether there is anything but an empty directory."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir()))


def delete_index_of_demo(out: Path, roots: Sequence[str], files: Sequence[str]) -> None:
    """Delete the index of the demo, if there is one; an index of others stays.

    Args:
        out: the directory of the demo.
        roots: the folders of the digits.
        files: paths of the digits.

    Raises:
        DataError: the index of the demo has other records too, or its directory other files; nothing is deleted.
        StorageError: the index is damaged.
    """
    from semcut.connector.data.image_uris import paths_of
    from semcut.connector.retrieval.model_link import read_link
    from semcut.indexes import FaissIndex
    from semcut.indexes.open_with import open_with

    if not is_index_of_demo(out, roots):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemcutWarning)  # that it is unfinished
        index, link = open_with(lambda: FaissIndex.open(out / INDEX), lambda _: read_link(out / INDEX))
    with index:
        others = set(paths_of(index.uris(index.ids()), None if link is None else link.root)) - set(files)
    if others:
        raise DataError(
            f"{out / INDEX} has records that are not of the demo, such as {shown(min(map(str, others)))}, and would be "
            "deleted: move it away, or choose another directory with --out"
        )
    delete_parts(out / INDEX, INDEX_OF_IMAGES, _MAKER)


def is_index_of_demo(out: Path, roots: Sequence[str]) -> bool:
    """Return whether OUT/index was made by this command: of digits, with the network in OUT/model."""
    from semcut.connector.retrieval.model_link import read_description, read_link

    link, network = read_link(out / INDEX), read_description(out / MODEL)
    if link is None or network is None:
        return False
    return (link.model, link.sha256, link.roots) == ((out / MODEL).absolute(), network.sha256, tuple(roots))
