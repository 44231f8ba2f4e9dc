"""Find the folder on disk of a source: unpack an archive, or write out another data set, into the cache first.

The cache is the folder `SEMCUT_CACHE`, or the user's cache folder; deleting it costs only the time to fill it again.
`sources` describes the kinds of sources. Archives and their limits are described in `archives`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from semcut.connector.data.archive_members import Budget, RefusedArchiveError
from semcut.connector.data.archives import unpack
from semcut.connector.data.library_datasets import torchvision_writer, write_digits
from semcut.connector.data.packed_files import is_parquet, packed_files
from semcut.connector.data.sample_folders import IMAGES, LABELS, SampleFolder
from semcut.connector.data.user_folders import user_folder
from semcut.connector.data.webdataset_shards import shard_samples
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import DataError, SemcutWarning, require
from semcut.indexes.regular_files import open_binary

_TORCHVISION = "torchvision:"


class SourceFolder(NamedTuple):
    """The folder of a source, and the list of the labels of its images, see `list_files`; None if folders name them."""

    root: Path
    labels: Path | None = None


def source_folder(source: str | os.PathLike[str]) -> SourceFolder:
    """Return the folder on disk of a source; unpack an archive or write out a data set first if needed.

    Raises:
        DataError: the source does not exist, or cannot be unpacked.
        InvalidParameterError: it is no path.
    """
    source = possible_path_given("source", source)
    packed = packed_files(source)
    return SourceFolder(_folder(source)) if packed is None else _unpacked_samples(source, packed)


def _folder(source: str) -> Path:
    """Return the folder of a source that is not packed into few files."""
    name, _, inner = source.partition("/")
    if name == "digits" and not os.path.exists(source):
        return _inside(cached("digits-1", write_digits), inner, source)
    if source.startswith(_TORCHVISION):
        name, _, split = source.removeprefix(_TORCHVISION).partition("/")
        write = torchvision_writer(source, name, split, cache() / "torchvision")
        return cached(f"torchvision-{name}-{split or 'all'}", write)
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return path
    archive = next((parent for parent in (path, *path.parents) if os.path.lexists(parent)), path)
    if os.path.isdir(archive) or not os.path.exists(archive):
        raise DataError(
            f"{source} does not exist: give a folder, an archive, a list, a Parquet file, a pattern of Parquet files "
            "or shards, digits/train or torchvision:NAME/train"
        )
    try:
        opened = open_binary(archive, follow=True)
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}; expected a folder or an archive") from None
    with opened as stream:
        key = _identity([(archive, os.fstat(stream.fileno()))])
        root = cached(f"{archive.name.split('.')[0]}-{key}", lambda target: unpack(stream, archive, target))
    return _inside(root, str(path.relative_to(archive)), source)


def _identity(files: Sequence[tuple[Path, os.stat_result]]) -> str:
    """Return a name for the content of files, which another content has not."""
    digest = hashlib.sha256()
    for file, facts in files:
        # a file made anew can have the size and time of the one before, but no program can set its ctime
        text = f"{file.absolute()} {facts.st_size} {facts.st_mtime_ns} {facts.st_ino} {facts.st_ctime_ns}"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]


def _unpacked_samples(source: str, files: Sequence[Path]) -> SourceFolder:
    """Write the images of Parquet files or shards to the cache.

    Raises:
        DataError: a file cannot be read, has no images, or changes meanwhile; or the cache cannot be written.
        MissingDependencyError: pyarrow is not installed.
    """
    if is_parquet(files[0]):
        require({"pyarrow": "pyarrow"}, "read Parquet files", "parquet")

    def facts() -> list[tuple[Path, os.stat_result]]:
        with _reading(source):
            return [(file, os.stat(file)) for file in files]

    before = facts()
    key = _identity(before)

    def fill(target: Path) -> None:
        _write_samples(source, before, target)
        if _identity(facts()) != key:
            raise DataError(f"{source} has changed while it was read: run the command again")

    root = cached(f"{files[0].name.split('.')[0]}-images-{key}", fill)
    labels = root / LABELS
    return SourceFolder(root / IMAGES, labels if os.path.lexists(labels) else None)


def _write_samples(source: str, files: Sequence[tuple[Path, os.stat_result]], target: Path) -> None:
    """Write the images of all files, which are of one kind, to a new directory."""
    samples_of = shard_samples
    if is_parquet(files[0][0]):
        from semcut.connector.data.parquet_images import parquet_samples as samples_of
    budget = Budget(sum(facts.st_size for _, facts in files), shutil.disk_usage(target.parent).free)
    left_out = Counter[str]()
    with SampleFolder(target, budget) as folder:
        for file, facts in files:
            with _reading(str(file)):
                stream = open_binary(file, follow=True)
            # the name of a file that begins with a dot would hide its images
            with stream, _unpacking(str(file)):
                samples = samples_of(stream, file.name.lstrip("."), budget, left_out)
                folder.write(samples, facts.st_mtime)
        folder.finish()
    what = ", ".join(f"{count:,} x {reason}" for reason, count in left_out.items())
    if not folder.written:
        raise DataError(f"{source} has no images{f' ({what})' if what else ''}")
    if left_out:
        warnings.warn(f"{source}: left out {what}", SemcutWarning, stacklevel=2)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {error.filename or source}: {error.strerror or error}") from None


@contextmanager
def _unpacking(source: str) -> Iterator[None]:
    try:
        yield
    except RefusedArchiveError as error:
        raise DataError(f"cannot unpack {source}: {error}") from None


def cache() -> Path:
    """Return the cache folder, for unpacked archives, written-out data sets and frozen features.

    Raises:
        DataError: there is none.
    """
    return user_folder("cache", "SEMCUT_CACHE")


def _inside(root: Path, inner: str, source: str) -> Path:
    """Return a folder inside a data set; raise an error for a path that leads out of the data set."""
    path = root / inner
    if not os.path.isdir(path) or not path.resolve().is_relative_to(root.resolve()):
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:8])
        raise DataError(f"{source}: the data set has no folder {inner!r}, it holds {inside}")
    return path


def cached(name: str, fill: Callable[[Path], None]) -> Path:
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
