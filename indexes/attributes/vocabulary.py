"""The values of categories, which records store as numbers: the position of a value among those of its attribute.

The column `vocabulary` holds them in the order in which records first had them, one after the other as lines of JSON:

    [0,"Lumix"]                 the first attribute has a category Lumix
    [3,["beach","sunset"]]      a record has these two categories in the fourth attribute

Values are only added; a compaction leaves out those that no record has any more. The text of all of them is limited,
since a process has it in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import (
    MAX_CATEGORIES,
    MAX_TEXT,
    AttributeType,
    has_vocabulary,
    is_category,
)
from semcut.indexes.attributes.numbered_values import NumberedValues
from semcut.indexes.errors import DamagedIndexError, InvalidEncodingsError

MAX_VOCABULARY_BYTES = 1 << 28
"""The largest text of all values of an index, in bytes; short ones take up to 25 times as much memory."""

_LINES_AT_ONCE = 10_000

_CHARACTER = len(json.dumps("\U0001f600")) - len(json.dumps(""))  # the most bytes of a character: two escapes
_AROUND = len("[99,[]]\n")  # bytes of a line beside its texts, their quotes and commas


class Vocabulary:
    """The values of every attribute that has categories; it never changes.

    Args:
        types: the attributes of the index.
        values: of each attribute with categories, its values.
        size: bytes of the column.

    Attributes:
        values, size: as given.
    """

    def __init__(self, types: Mapping[str, AttributeType], values: dict[str, NumberedValues], size: int) -> None:
        self._types, self.values, self.size = types, values, size

    @staticmethod
    def empty(types: Mapping[str, AttributeType]) -> Vocabulary:
        """Return a vocabulary without values."""
        return Vocabulary(types, {name: NumberedValues.of([]) for name in _with_values(types)}, 0)

    @staticmethod
    def read(types: Mapping[str, AttributeType], data: NDArray[np.uint8]) -> Vocabulary:
        """Read the column.

        Raises:
            DamagedIndexError: it is not as semcut writes it.
        """
        if len(data) > MAX_VOCABULARY_BYTES:
            raise _damaged()
        values: dict[str, list[Any]] = {name: [] for name in _with_values(types)}
        names = tuple(types)
        for line in _lines(data, MAX_CATEGORIES if "categories" in types.values() else 1):
            position, value = _value_of(line)
            name = names[position] if 0 <= position < len(names) else ""
            if not _possible(types.get(name), value) or line != _line(position, value):
                raise _damaged()
            values[name].append(value)
        try:
            return Vocabulary(types, {name: NumberedValues.of(found) for name, found in values.items()}, len(data))
        except ValueError:
            raise _damaged() from None

    def extended(self, columns: Mapping[str, list[Any]]) -> tuple[Vocabulary, NDArray[np.uint8]]:
        """Return a vocabulary that also has the values of some records, and the bytes to append to the column.

        Args:
            columns: the attributes of the records, as an index returns them.

        Raises:
            InvalidEncodingsError: the values take more than `MAX_VOCABULARY_BYTES`.
        """
        fresh: dict[str, list[Any]] = {}
        lines = []
        for position, name in enumerate(self._types):
            if name in self.values:
                known = self.values[name]
                given = [value for value in dict.fromkeys(columns[name]) if value is not None]
                fresh[name] = [value for value in given if known.number_of(value) is None]
                lines += [_line(position, value) for value in fresh[name]]
        added = b"".join(lines)
        if self.size + len(added) > MAX_VOCABULARY_BYTES:
            raise InvalidEncodingsError(
                f"the different categories of the index take more than {MAX_VOCABULARY_BYTES >> 20} MiB: keep texts "
                "that differ from record to record outside of the index, such as in its uris"
            )
        if not added:
            return self, np.empty(0, np.uint8)
        values = {name: self.values[name].extended(found) for name, found in fresh.items()}
        return Vocabulary(self._types, values, self.size + len(added)), np.frombuffer(added, np.uint8)

    def kept(self, used: Mapping[str, NDArray[np.int64]]) -> tuple[Vocabulary, NDArray[np.uint8]]:
        """Return a vocabulary of some of the values, and the bytes of its column.

        Args:
            used: of each attribute, the (n,) numbers of the values to keep, in their new order.
        """
        columns = {
            name: self.values[name].values_of(used[name].tolist()) if name in used else [] for name in self._types
        }
        return Vocabulary.empty(self._types).extended(columns)


def _with_values(types: Mapping[str, AttributeType]) -> list[str]:
    return [name for name, kind in types.items() if has_vocabulary(kind)]


def _lines(data: NDArray[np.uint8], most: int) -> Iterator[bytes]:
    """Yield the lines of the column, a few at a time in memory.

    JSON of many small lists takes 30 times as much memory as its text. So no line is yielded that is longer than one of
    `most` categories, or has more beside its texts.

    Args:
        data: the column.
        most: the largest number of categories in a line.

    Raises:
        DamagedIndexError: there is no end of the last line, or a line is too long.
    """
    ends = np.flatnonzero(data == ord("\n"))
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise _damaged()
    longest = most * (MAX_TEXT * _CHARACTER + len('"",')) + _AROUND
    for first in range(0, len(ends), _LINES_AT_ONCE):
        start = ends[first - 1] + 1 if first else 0
        some = ends[first : first + _LINES_AT_ONCE]
        if np.diff(some, prepend=start - 1).max() > longest:
            raise _damaged()
        for line in data[start : some[-1] + 1].tobytes().splitlines(keepends=True):
            if len(line) > _AROUND + most and _bytes_beside_texts(line) > _AROUND + most:
                raise _damaged()
            yield line


def _bytes_beside_texts(line: bytes) -> int:
    """Count the bytes of a line that are not in quotes."""
    parts = line.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 2 * MAX_CATEGORIES + 2)
    return sum(map(len, parts[::2]))


def _value_of(line: bytes) -> tuple[int, Any]:
    """Return the attribute and the value of a line, which may be wrong; the attribute is -1 where it says none."""
    try:
        position, value = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return -1, None
    return position if type(position) is int else -1, tuple(value) if isinstance(value, list) else value


def _line(position: int, value: Any) -> bytes:
    return json.dumps([position, value], separators=(",", ":")).encode() + b"\n"


def _possible(kind: AttributeType | None, value: Any) -> bool:
    """Return whether an attribute can have a value."""
    if kind == "category":
        return isinstance(value, str) and is_category(value)
    if kind != "categories" or not isinstance(value, tuple) or len(value) > MAX_CATEGORIES:
        return False
    texts = all(isinstance(item, str) and is_category(item) for item in value)
    return texts and all(first < second for first, second in pairwise(value))


def _damaged() -> DamagedIndexError:
    return DamagedIndexError("the vocabulary of the index is damaged: restore the index from a backup")
