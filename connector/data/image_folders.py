"""List the image files of a folder by the one rule that all commands follow, and name what is left out.

- A class is a folder directly under the root; its files are all those in it, at any depth.
- Symbolic links are followed. A folder to which two ways lead within a class, or which lies above, is listed once; so
  no link makes a loop. Device and inode identify a folder. One to which several classes lead is listed in each of
  them, and named; links that would list millions of files again are refused.
- Hidden files and folders (.name), and names that are not valid text, which no index can hold, are left out.

Whatever is left out is returned with the reason, for the commands to report.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from semcut.indexes.errors import DataError, SemcutWarning, shown

Skipped = tuple[str, str]
"""A file or folder that is left out, and the reason."""

HIDDEN, NOT_TEXT = "hidden", "its name is not valid text: rename it"

MOST_AGAIN, MOST_AGAIN_BYTES = 2_000_000, 1 << 28
"""The most entries of folders that are listed again, for another class, and the memory of their paths: a thousand links
can lead to each of them."""
MOST_BYTES = 1 << 30
"""The most bytes of memory that the paths in a folder take."""

_Identity = tuple[int, int]


class ClassFolder(NamedTuple):
    """The files of a class: absolute paths, sorted within each folder."""

    path: str
    files: list[str]


class ImageFolder(NamedTuple):
    """The files in a folder.

    Attributes:
        root: absolute path of the folder, without a part "..", which could lead through a link; "" for the files of a
            list that have no folder in common.
        loose: files directly in the folder, which have no class.
        classes: the folders directly in the folder, sorted by name; also those without files.
        skipped: what is left out; what is hidden comes last.
        again: folders that are listed in a further class, each with the path by which an earlier class leads to it.
        attributes: of each attribute that a list has, a value for each of `files`; None for other sources.
        ids: the id that a list has for each of `files`; None if it has none.
    """

    root: str
    loose: list[str]
    classes: dict[str, ClassFolder]
    skipped: list[Skipped]
    again: list[tuple[str, str]]
    attributes: dict[str, list[Any]] | None = None
    ids: list[str] | None = None

    @property
    def roots(self) -> tuple[str, ...]:
        """The folder, if there is one."""
        return (self.root,) if self.root else ()

    @property
    def files(self) -> list[str]:
        """All files, with or without a class."""
        return [*self.loose, *(file for found in self.classes.values() for file in found.files)]


def list_folder(root: Path) -> ImageFolder:
    """List the files of a folder and of its class folders.

    Raises:
        DataError: the folder cannot be listed, its path is not valid text, or links lead to too many files again.
    """
    top = os.path.realpath(root) if ".." in root.parts else str(root.absolute())
    if not is_text(top):
        raise DataError(f"the path {shown(top)} is not valid text, which an index needs: rename the folder")
    above = {}
    for higher in (root.resolve(), *root.resolve().parents):
        above[_identity(str(higher))] = str(higher)
    skipped: list[Skipped] = []
    classes, again = {}, _Listed(top, {}, [])
    files, folders = _entries(top, skipped, again)
    if skipped and skipped[0][0] == top:
        raise DataError(f"cannot list {top}: {skipped[0][1]}")
    for folder in folders:
        found = _files_below(folder, dict(above), skipped, again)
        if found is not None:
            classes[os.path.basename(folder)] = ClassFolder(folder, found)
    return ImageFolder(top, files, classes, sorted(skipped, key=lambda one: one[1] == HIDDEN), again.folders)


def warn_of_folders_in_two_classes(found: ImageFolder, stacklevel: int) -> None:
    """Issue a `SemcutWarning` if images are in two classes, because links lead to folders of other classes."""
    if found.again:
        linked, first = found.again[0]
        warnings.warn(
            f"{len(found.again):,} folders of {found.root} are in two classes, and their images count for both: "
            f"{linked} leads to {first}",
            SemcutWarning,
            stacklevel=stacklevel + 1,
        )


def class_of(uri: str | None, roots: Iterable[str] = ()) -> str | None:
    """Return the class of a file; None for a record without a uri. For many files, `classes_of` is faster.

    Args:
        uri: the path of the file.
        roots: folders of class folders. In one of them, the class is the folder directly under the root in which the
            file is, at any depth; elsewhere it is the name of the file's own folder.
    """
    return next(classes_of([uri], roots))


def classes_of(uris: Iterable[str | None], roots: Iterable[str] = ()) -> Iterator[str | None]:
    """Yield the class of each file, as `class_of` returns it.

    An index that was received can name thousands of roots, so a folder is looked up once, by its first characters: one
    look for each length that a root has.
    """
    starts = {root.rstrip("/") + "/" for root in roots}
    lengths = sorted({len(start) for start in starts}, reverse=True)
    known: dict[str, str | None] = {}
    for uri in uris:
        if uri is None:
            yield None
            continue
        folder = uri.rpartition("/")[0]
        if folder not in known:
            length = next((size for size in lengths if size <= len(folder) and uri[:size] in starts), None)
            known[folder] = None if length is None else folder[length:].partition("/")[0]
        found = known[folder]
        yield Path(uri).parent.name if found is None else found


@dataclass
class _Listed:
    """What was listed: the paths of all folders, those that were listed again, and how much they hold.

    Attributes:
        root: the folder of class folders.
        first: the path by which each folder was listed first.
        folders: see `ImageFolder.again`.
        bytes: memory of the paths of all entries.
        entries_again, bytes_again: number of entries of folders that were listed again, and memory of their paths.
        repeats: whether the folder that is listed now was listed before, and by which path.
    """

    root: str
    first: dict[_Identity, str]
    folders: list[tuple[str, str]]
    bytes: int = 0
    entries_again: int = 0
    bytes_again: int = 0
    repeats: str | None = None

    def begin(self, folder: str, identity: _Identity) -> None:
        """Note that the entries of a folder come next."""
        first = self.first.setdefault(identity, folder)
        self.repeats = None if first == folder else first
        if self.repeats is not None:
            self.folders.append((folder, self.repeats))
            self.count(folder)

    def count(self, path: str) -> None:
        """Count an entry before its folder is read further.

        Raises:
            DataError: there are too many, or their paths are too long.
        """
        size = sys.getsizeof(path)  # one character above U+FFFF makes each of a path take four bytes
        self.bytes += size
        if self.bytes > MOST_BYTES:
            raise DataError(
                f"the paths of the files in {self.root} take more than {MOST_BYTES:,} bytes: give a part of the "
                "folder, or a folder with a shorter path"
            )
        if self.repeats is None:
            return
        self.entries_again += 1
        self.bytes_again += size
        if self.entries_again > MOST_AGAIN or self.bytes_again > MOST_AGAIN_BYTES:
            raise DataError(
                f"links lead to more than {MOST_AGAIN:,} files again, such as {self.folders[-1][0]} to those of "
                f"{self.repeats}, or their paths take more than {MOST_AGAIN_BYTES:,} bytes: remove links, so that each "
                "class has its own files"
            )


def _files_below(folder: str, seen: dict[_Identity, str], skipped: list[Skipped], listed: _Listed) -> list[str] | None:
    """List all files of a folder at any depth; None if the folder itself is left out.

    Args:
        folder: the folder.
        seen: folders that are not listed again, with their paths; grows.
        skipped: grows by what is left out.
        listed: counts the folders and their entries.

    Raises:
        DataError: these have too many entries.
    """
    found: list[str] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            identity = _identity(current)
        except OSError as error:
            skipped.append((current, error.strerror or str(error)))
            continue
        if identity in seen:
            skipped.append((current, f"it leads to {seen[identity]}, which is listed or lies above"))
            if current == folder:
                return None
            continue
        seen[identity] = current
        listed.begin(current, identity)
        files, folders = _entries(current, skipped, listed)
        found += files
        waiting += reversed(folders)
    return found


def _entries(folder: str, skipped: list[Skipped], listed: _Listed) -> tuple[list[str], list[str]]:
    """Return the paths of the files and of the folders in a folder, sorted; links are followed."""
    files: list[str] = []
    folders: list[str] = []
    try:
        found: list[os.DirEntry[str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                listed.count(entry.path)
                found.append(entry)
    except OSError as error:
        skipped.append((folder, error.strerror or str(error)))
        return files, folders
    found.sort(key=lambda entry: entry.name)
    for entry in found:
        if not is_text(entry.name):
            skipped.append((entry.path, NOT_TEXT))
        elif entry.name.startswith("."):
            skipped.append((entry.path, HIDDEN))
        else:
            (folders if os.path.isdir(entry.path) else files).append(entry.path)
    return files, folders


def _identity(folder: str) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_text(name: str) -> bool:
    """Return whether a name is valid text, which an index can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
