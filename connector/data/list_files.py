"""Read a list of images: a file .csv or .jsonl that names their paths and, optionally, their labels.

    .csv     text in UTF-8, values separated by commas; the first line names the columns, among them `path`
    .jsonl   one JSON object in each line, with a field `path`

A path is absolute, or relative to the folder of the list. A column or field `label` names the class of an image, as
text or as an integer. A column `labels` names several, separated by `;`; as a field it is an array of texts and
integers. An image that has both has the one of `label` first. Attributes that the caller names are read, too, see
`listed_attributes`, and ids on request, see `listed_ids`; other columns are ignored. A list may come from someone else,
so the file, its rows, and the memory of all paths and values are bounded; what a row names is a regular file, or is
left out with the reason.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from semcut.connector.data.class_names import label_names
from semcut.connector.data.csv_table import CsvTable
from semcut.connector.data.image_folders import MOST_BYTES, NOT_TEXT, Skipped, is_text
from semcut.connector.data.listed_attributes import ListedAttributes
from semcut.connector.data.listed_ids import ID, ListedIds
from semcut.connector.data.text_lines import TextLines
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import open_binary

MAX_LIST_BYTES, MAX_ROWS = 1 << 28, 2_000_000
"""The largest list, and its largest number of rows."""

_MOST_PATH = 4096
"""Bytes of the longest path that Linux opens."""
SUFFIXES = (".csv", ".jsonl")
_SHOWN = 10
_Row = tuple[int, Any, Any, Any, Any, list[Any]]
"""Number of the line, path, label, labels, id and attributes of a row; None for what it does not have. A CSV file gives
`labels` and attributes as text."""


@dataclass
class ImageList:
    """The files that a list names.

    Attributes:
        name: the list, for messages.
        files: absolute paths, in the order of the list; each exists, and is there once.
        labels: the different labels of each file, () for one without.
        columns: names of the columns, or of the fields of the first object.
        skipped: what is left out.
        listed: the attributes of the files.
        ids: the ids of the files; None if they are not read.
    """

    name: str
    files: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    listed: ListedAttributes = field(default_factory=lambda: ListedAttributes({}))
    ids: ListedIds | None = None

    @property
    def root(self) -> str:
        """The deepest folder that has all files; "" if that is the top of the file system."""
        folders = {f"{file.rpartition('/')[0]}/" for file in self.files}
        return os.path.commonpath([min(folders), max(folders)]).rstrip("/")  # what both begin with, all begin with

    @property
    def roots(self) -> tuple[str, ...]:
        """The same folder, if there is one."""
        return (self.root,) if self.root else ()


def is_list(source: str) -> bool:
    """Return whether a source is a list: a file with the name of one."""
    path = os.path.expanduser(source)
    return source.lower().endswith(SUFFIXES) and os.path.exists(path) and not os.path.isdir(path)


def read_list(source: str, attributes: Mapping[str, AttributeType] | None = None, *, ids: bool = False) -> ImageList:
    """Read a list, and look for each file.

    Args:
        source: the list.
        attributes: the attributes to read, with their types.
        ids: whether to read the ids of the files.

    Raises:
        DataError: the list cannot be read, has no column `path`, is beyond a limit, or names no file that exists; an
            attribute of a file has a value of another type; or an id is missing, no key, or there twice.
    """
    path = Path(os.path.expanduser(source))
    found = ImageList(source, listed=ListedAttributes(attributes or {}), ids=ListedIds() if ids else None)
    try:
        with open_binary(path, max_bytes=MAX_LIST_BYTES, follow=True) as stream:
            lines = TextLines(f"the list {source}", stream)
            _find_files(found, os.path.abspath(path.parent), _rows(found, lines))
    except OSError as error:
        raise DataError(f"cannot read the list {source}: {error.strerror or error}") from None
    if not found.files and found.skipped:
        raise DataError(
            f"none of the {len(found.skipped):,} files that {source} names can be used, the first is "
            f"{': '.join(found.skipped[0])}; a path in a list is absolute, or relative to the folder of the list"
        )
    if not found.files:
        raise DataError(f"{source} names no files: expected a path in each row")
    return found


def list_paths(source: str, stream: IO[bytes]) -> Iterator[str]:
    """Yield the paths that a list names, as they are written, without looking for the files.

    Args:
        source: the name of the list.
        stream: its content.

    Raises:
        DataError: as for `read_list`.
    """
    found = ImageList(source)
    for count, (_, path, *_) in enumerate(_rows(found, TextLines(f"the list {source}", stream))):
        _require_rows(found, count)
        if _is_path(path):
            yield path


def _rows(found: ImageList, lines: TextLines) -> Iterator[_Row]:
    return _csv_rows(found, lines) if found.name.lower().endswith(".csv") else _json_rows(found, lines)


def _csv_rows(found: ImageList, lines: TextLines) -> Iterator[_Row]:
    table = CsvTable(lines)
    found.columns = table.columns
    _require_path(found)
    found.listed.note_columns(found.columns)
    for path, label, labels, own, *values in table.rows(("path", "label", "labels", ID, *found.listed.types)):
        yield lines.number, path, label, labels, own, values


def _json_rows(found: ImageList, lines: TextLines) -> Iterator[_Row]:
    first = True
    for line in lines:
        lines.row_bytes = 0
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise lines.error("is no JSON object")
        if first:
            found.columns, first = list(row), False
            _require_path(found)
        labels = row.get("labels")
        if labels is not None and not isinstance(labels, list):
            raise lines.error(f'has labels {shown(labels)}, expected an array such as ["cat", "dog"]')
        found.listed.note_columns(row)
        values = [row.get(name) for name in found.listed.types]
        yield lines.number, row.get("path"), row.get("label"), labels, row.get(ID), values


def _require_path(found: ImageList) -> None:
    if "path" not in found.columns:
        raise DataError(f"the list {found.name} has no column path, it has {_named(found.columns)}")


def _named(columns: list[str]) -> str:
    more = f" and {len(columns) - _SHOWN:,} more" if len(columns) > _SHOWN else ""
    return f"the columns {', '.join(map(shown, columns[:_SHOWN]))}{more}" if columns else "no columns"


def require_labels(found: ImageList) -> None:
    """Raise `DataError` if no file of a list has a label."""
    if not any(found.labels):
        raise DataError(
            f"the list {found.name} has no labels, which name the classes: add a column label or labels; it has "
            f"{_named(found.columns)}"
        )


def _find_files(found: ImageList, folder: str, rows: Iterator[_Row]) -> None:
    """Put the files of all rows in a list, and what is left out."""
    lines: dict[str, int] = {}
    known: dict[str, str] = {}  # each label once
    sets: dict[tuple[str, ...], tuple[str, ...]] = {}  # each combination once
    size = 0
    as_text = found.name.lower().endswith(".csv")
    for count, (line, given, label, several, own, values) in enumerate(rows):
        _require_rows(found, count)
        has_path = _is_path(given)
        path = _absolute(folder, given) if has_path else f"line {line:,} of {found.name}"
        labels, wrong = label_names(label, several)
        size += sys.getsizeof(path)
        size += sum(sys.getsizeof(text) for text in labels if text not in known)
        size += 0 if labels in sets else sys.getsizeof(labels)
        if size + found.listed.size + (found.ids.size if found.ids else 0) > MOST_BYTES:
            raise DataError(
                f"the paths, labels, ids and attributes in {found.name} take more than {MOST_BYTES:,} bytes: divide it"
            )
        reason = _unusable(path) if has_path else "it has no path"
        if reason is None and wrong is not None:
            reason = f"line {line:,} of {found.name}, {wrong}"
        if reason is None and path in lines:
            reason = f"line {lines[path]:,} of the list names it, too"
        if reason is not None:
            found.skipped.append((path, reason))
            continue
        wrong = found.listed.add(values, as_text=as_text) or (None if found.ids is None else found.ids.add(own, line))
        if wrong is not None:
            raise DataError(f"cannot read the list {found.name}: line {line:,}: {wrong}")
        lines[path] = line
        found.files.append(path)
        kept = tuple(known.setdefault(text, text) for text in labels)
        found.labels.append(sets.setdefault(kept, kept))


def _require_rows(found: ImageList, count: int) -> None:
    if count == MAX_ROWS:
        raise DataError(f"the list {found.name} has more than {MAX_ROWS:,} rows: divide it")


def _is_path(given: Any) -> bool:
    return isinstance(given, str) and given != "" and "\0" not in given


def _absolute(folder: str, path: str) -> str:
    """Return the absolute path of a file; of one with a part "..", which may lead through a link, the real path.

    A path that no system opens is returned as it is: the time to resolve it would grow with the square of its length.
    """
    whole = "/" + os.path.join(folder, path).lstrip("/")
    try:
        if len(os.fsencode(whole)) > _MOST_PATH:
            return whole
        return os.path.realpath(whole) if ".." in path.split("/") else os.path.normpath(whole)
    except (OSError, ValueError):
        return whole


def _unusable(path: str) -> str | None:
    """Return why a row is left out, None if it is not."""
    if not is_text(path):
        return NOT_TEXT
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "it is not a regular file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
