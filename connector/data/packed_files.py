"""Find the files of a data set that is packed into few of them: Parquet files, or shards of WebDataset.

photos.parquet, part.tar        a file; a tar archive is a shard if its first members have one key, `000.jpg` and
                                `000.cls`, and an archive otherwise
photos                          a folder whose files, apart from hidden ones, are all Parquet files or all shards
'photos/train-*.parquet'        a pattern, as of a shell
'photos/{000..009}.tar'         a pattern with numbers, or with names such as {train,val}; each file must exist
"""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from semcut.connector.data.webdataset_shards import is_shard
from semcut.indexes.errors import DataError

PARQUET, SHARDS = (".parquet",), (".tar", ".tar.gz", ".tgz")
"""Ends of names, for each kind of file."""

MAX_FILES = 100_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def packed_files(source: str) -> list[Path] | None:
    """Return the files of a packed data set in order, all of one kind; None for a source of another kind.

    Raises:
        DataError: a pattern names no file, a file that is not there, or too many.
    """
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):
        return _files_of_folder(path)
    if os.path.lexists(path):
        single = is_parquet(path) or (_ends(path, SHARDS) and is_shard(path))
        return [path] if single else None
    if not _ends(path, PARQUET + SHARDS) or not re.search(r"[*?\[{]", source):
        return None
    files: list[Path] = []
    for pattern in without_braces(str(path), source):
        found = sorted(glob.iglob(pattern)) if glob.has_magic(pattern) else [pattern]
        files += map(Path, found)
        if len(files) > MAX_FILES:
            raise _too_many(source)
        if missing := [name for name in found if not os.path.lexists(name)]:
            raise DataError(f"{source} names {missing[0]}, which does not exist")
    if not files:
        raise DataError(f"{source} names no file: expected a pattern of Parquet files, or of shards of WebDataset")
    return files


def is_parquet(path: Path) -> bool:
    """Return whether a file is named as a Parquet file."""
    return _ends(path, PARQUET)


def _files_of_folder(folder: Path) -> list[Path] | None:
    """Return the files of a folder, sorted, if they are all of one kind; None for any other folder."""
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = folder / entry.name
                if not _ends(path, PARQUET + SHARDS) or (files and is_parquet(path) != is_parquet(files[0])):
                    return None
                if entry.is_dir():
                    return None
                files.append(path)
                if len(files) > MAX_FILES:
                    raise _too_many(str(folder))
    except OSError:
        return None  # what lists folders of images names the reason
    return sorted(files) or None


def _ends(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def without_braces(pattern: str, source: str) -> list[str]:
    """Return the patterns that one with braces stands for, in order."""
    waiting, found = [pattern], []
    while waiting:
        current = waiting.pop()
        braces = _BRACES.search(current)
        if braces is None:
            found.append(current)
            continue
        inner, numbers = braces[1], _NUMBERS.fullmatch(braces[1])
        if numbers is not None:
            first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
            if last - first >= MAX_FILES:
                raise _too_many(source)
            values = [f"{number:0{width}d}" for number in range(first, last + 1)]
        else:
            values = inner.split(",")
        if (len(values) < 2 and numbers is None) or not values:
            raise DataError(
                f"{source}: {{{inner}}} is no pattern, expected numbers such as {{000..009}} or names such as {{a,b}}"
            )
        waiting += [f"{current[: braces.start()]}{value}{current[braces.end() :]}" for value in reversed(values)]
        if len(waiting) + len(found) > MAX_FILES:
            raise _too_many(source)
    return found


def _too_many(source: str) -> DataError:
    return DataError(f"{source} names more than {MAX_FILES:,} files: give a part of them")
