"""Find the folder on disk of a source: unpack an archive, or write out a data set of a library, into the cache first.

The cache is the folder `SEMCUT_CACHE`, or the user's cache folder; deleting it costs only the time to fill it again.
`sources` describes the kinds of sources. Archives and their limits are described in `archives`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from semcut.connector.data.archives import unpack
from semcut.connector.data.library_datasets import torchvision_writer, write_digits
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import DataError, require
from semcut.indexes.regular_files import open_binary

_TORCHVISION = "torchvision:"


def folder(source: str | os.PathLike[str]) -> Path:
    """Return the folder on disk of a source; unpack an archive or write out a data set first if needed.

    Raises:
        DataError: the source does not exist, or cannot be unpacked.
        InvalidParameterError: it is no path.
    """
    source = possible_path_given("source", source)
    name, _, inner = source.partition("/")
    if name == "digits" and not os.path.exists(source):
        return _inside(_cached("digits-1", write_digits), inner, source)
    if source.startswith(_TORCHVISION):
        name, _, split = source.removeprefix(_TORCHVISION).partition("/")
        write = torchvision_writer(source, name, split, cache() / "torchvision")
        return _cached(f"torchvision-{name}-{split or 'all'}", write)
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return path
    archive = next((parent for parent in (path, *path.parents) if os.path.lexists(parent)), path)
    if os.path.isdir(archive) or not os.path.exists(archive):
        raise DataError(
            f"{source} does not exist: give a folder, an archive, a list, digits/train or torchvision:NAME/train"
        )
    try:
        opened = open_binary(archive, follow=True)
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}; expected a folder or an archive") from None
    with opened as stream:
        facts = os.fstat(stream.fileno())
        # a file made anew can have the size and time of the one before, but no program can set its ctime
        facts_text = f"{archive.absolute()} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino} {facts.st_ctime_ns}"
        key = hashlib.sha256(facts_text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        root = _cached(f"{archive.name.split('.')[0]}-{key}", lambda target: unpack(stream, archive, target))
    return _inside(root, str(path.relative_to(archive)), source)


def cache() -> Path:
    """Return the cache folder, for unpacked archives, written-out data sets and frozen features."""
    if chosen := os.environ.get("SEMCUT_CACHE"):
        return Path(chosen)
    require({"platformdirs": "platformdirs"}, "find the cache folder", "train")
    from platformdirs import user_cache_path

    return user_cache_path("semcut")


def _inside(root: Path, inner: str, source: str) -> Path:
    """Return a folder inside a data set; raise an error for a path that leads out of the data set."""
    path = root / inner
    if not os.path.isdir(path) or not path.resolve().is_relative_to(root.resolve()):
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:8])
        raise DataError(f"{source}: the data set has no folder {inner!r}, it holds {inside}")
    return path


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, filled first if it does not exist; a crash never leaves a partly filled folder.

    Raises:
        DataError: the cache cannot be written to.
    """
    target = cache() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            complete = Path(scratch) / "complete"
            fill(complete)
            try:
                os.replace(complete, target)
            except OSError:
                if not target.is_dir():  # otherwise another process has filled the folder first
                    raise
    except OSError as error:
        raise DataError(f"cannot fill the cache {target}: {error}; set SEMCUT_CACHE to another folder") from None
    return target
