"""Read attributes in the rows of a list of images: a column, or a field, with the name of each attribute.

A CSV file gives text, which is read by the type of the attribute; a JSONL file gives values.

    type          in a CSV file                             in a JSONL file
    "bool"        true, false                               true, false
    "int"         3, also 3.0 as other programs write it    3
    "float"       0.5                                       0.5
    "datetime"    2024-05-01T18:30:00                       the same, as text
    "category"    Lumix                                     "Lumix"
    "categories"  beach;sunset                              ["beach", "sunset"]

An empty value, null, or a field that is left out is a missing value. The column that a CSV file does not have, and the
field that no row has, says nothing of an attribute.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from semcut.indexes.attributes.attribute_types import AttributeType, value_of
from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import DataError, shown

_EXPECTED_FORM = {"bool": "true or false", "categories": "texts with ; between them"}


def attribute_types_given(given: Any) -> Mapping[str, AttributeType]:
    """Read the types of attributes as a caller passes them; None for no attributes.

    Raises:
        InvalidParameterError: they are no types of attributes by name.
    """
    return IndexConfig(classes=2, bits=32, dim=1, attributes={} if given is None else given).attributes


class ListedAttributes:
    """The attributes of the files of a list, in their order.

    Args:
        types: the attributes to look for.

    Attributes:
        types: as given.
        size: the memory that the values take, in bytes.
    """

    def __init__(self, types: Mapping[str, AttributeType]) -> None:
        self.types, self.size = dict(types), 0
        self._columns: dict[str, list[Any]] = {name: [] for name in types}
        self._present: set[str] = set()
        self._known: dict[Any, Any] = {}  # each text, and each combination of texts, once

    def note_columns(self, names: Iterable[str]) -> None:
        """Note which columns, or fields of a row, there are."""
        self._present |= self.types.keys() & set(names)

    def add(self, values: Sequence[Any], *, as_text: bool) -> str | None:
        """Add the values of a file, in the order of the types, and return what is wrong with them.

        Args:
            values: None for what is missing.
            as_text: whether values are the text of a CSV file.
        """
        read = []
        for (name, kind), given in zip(self.types.items(), values, strict=True):
            try:
                value = value_of(kind, _parsed(kind, given) if as_text and given is not None else given)
            except ValueError as error:
                form = _EXPECTED_FORM.get(kind, str(error)) if as_text else str(error)
                return f"the attribute {name} is {shown(given)}, expected {form}, or nothing where it is missing"
            if isinstance(value, str | tuple):
                fresh = value not in self._known
                value = self._known.setdefault(value, value)
                self.size += (
                    sys.getsizeof(value) + sum(map(sys.getsizeof, value)) * isinstance(value, tuple) if fresh else 0
                )
            elif value is not None and not isinstance(value, bool):
                self.size += sys.getsizeof(value)
            self.size += 8
            read.append(value)
        for column, value in zip(self._columns.values(), read, strict=True):
            column.append(value)
        return None

    def columns(self) -> dict[str, list[Any]]:
        """Return the values of each attribute that the list has."""
        return {name: values for name, values in self._columns.items() if name in self._present}


def _parsed(kind: AttributeType, text: str) -> Any:
    """Return the value that a text of a CSV file stands for; a text that is none is returned as it is."""
    if kind != "category":
        text = text.strip()
    if text == "":
        return None
    if kind == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind == "categories":
        return [part.strip() for part in text.split(";") if part.strip()]
    if kind == "int" and re.fullmatch(r"[+-]?[0-9]{1,40}(\.0*)?", text):
        return int(text.partition(".")[0])
    if kind == "float" and "_" not in text:
        with suppress(ValueError):
            return float(text)
    return text


def require_columns(source: str, columns: Mapping[str, Any], types: Mapping[str, AttributeType]) -> None:
    """Raise `DataError` unless a list has all attributes that are asked for."""
    if missing := [name for name in types if name not in columns]:
        raise DataError(f"the list {source} has no column {', '.join(missing)}, which the attributes need")
