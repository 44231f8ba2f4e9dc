"""How Milvus stores the attributes of records: one scalar field each, named `attribute_` and the attribute's name.

    type          field              missing
    "bool"        INT8, 0 or 1       -1
    "int"         INT64              -2^63
    "float"       DOUBLE             -1.7976931348623157e308, the smallest float64, which is refused as a value
    "datetime"    INT64, microseconds since 1970    -2^63
    "category"    VARCHAR            an empty text, which no category is
    "categories"  ARRAY of VARCHAR   one empty text; an empty array is no categories

No field is NULL or NaN: not every server can store these, and filters treat them differently. Fields of a record that
is written by another program may have other values: reading them is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from semcut.indexes.attributes.attribute_types import (
    FIRST_DATETIME,
    LAST_DATETIME,
    MAX_CATEGORIES,
    MAX_TEXT,
    MISSING_INT,
    AttributeType,
    column_of,
    datetime_of,
    has_vocabulary,
    microseconds_of,
)
from semcut.indexes.errors import InvalidEncodingsError
from semcut.indexes.milvus.pymilvus_internals import DataType, text_column

MISSING_FLOAT = -sys.float_info.max
"""The stored value of a missing float."""

_PREFIX = "attribute_"
_BYTES_PER_CHARACTER = 4
_MISSING = {"bool": -1, "int": MISSING_INT, "float": MISSING_FLOAT, "datetime": MISSING_INT, "category": ""}
_FIELDS: dict[AttributeType, tuple[DataType, dict[str, Any]]] = {
    "bool": (DataType.INT8, {}),
    "int": (DataType.INT64, {}),
    "float": (DataType.DOUBLE, {}),
    "datetime": (DataType.INT64, {}),
    "category": (DataType.VARCHAR, {"max_length": _BYTES_PER_CHARACTER * MAX_TEXT}),
    "categories": (
        DataType.ARRAY,
        {
            "element_type": DataType.VARCHAR,
            "max_capacity": MAX_CATEGORIES,
            "max_length": _BYTES_PER_CHARACTER * MAX_TEXT,
        },
    ),
}


def field_of(name: str) -> str:
    """Return the name of the field of an attribute."""
    return _PREFIX + name


def is_attribute_field(field: str) -> bool:
    """Return whether a field is that of an attribute."""
    return field.startswith(_PREFIX)


def attribute_fields(types: Mapping[str, AttributeType]) -> list[tuple[str, DataType, dict[str, Any]]]:
    """Define the fields of attributes: name, type and options of each."""
    return [(field_of(name), *_FIELDS[kind]) for name, kind in types.items()]


def check_floats(types: Mapping[str, AttributeType], attributes: Mapping[str, list[Any]] | None) -> None:
    """Raise `InvalidEncodingsError` if a value is the one that marks missing floats."""
    for name, values in (attributes or {}).items():
        if types[name] == "float" and MISSING_FLOAT in values:
            raise InvalidEncodingsError(
                f"the attribute {name} of row {values.index(MISSING_FLOAT)} is {MISSING_FLOAT!r}, expected another "
                "number: on Milvus the smallest of all marks missing values"
            )


def text_bytes(attributes: Mapping[str, list[Any]] | None, types: Mapping[str, AttributeType], rows: int) -> list[int]:
    """Return upper bounds for the bytes that the texts of each of n records take in a request, (n,)."""
    sizes = [0] * rows
    for name, values in (attributes or {}).items():
        if has_vocabulary(types[name]):
            for row, value in enumerate(values):
                if value is not None:
                    texts = [value] if isinstance(value, str) else value
                    sizes[row] += sum(_BYTES_PER_CHARACTER * len(text) + 8 for text in texts)
    return sizes


def stored_fields(
    types: Mapping[str, AttributeType], attributes: Mapping[str, list[Any]] | None, rows: int
) -> dict[str, list[Any]]:
    """Return the values of the fields of n records, by the name of the field.

    Args:
        types: the attributes of the index.
        attributes: those of the records, as an index returns them; None if all are missing.
        rows: n.
    """
    return {
        field_of(name): [_stored(kind, value) for value in (attributes[name] if attributes else [None] * rows)]
        for name, kind in types.items()
    }


def _stored(kind: AttributeType, value: Any) -> Any:
    if value is None:
        return [""] if kind == "categories" else _MISSING[kind]
    if kind == "datetime":
        return microseconds_of(value)
    if kind == "bool":
        return int(value)
    return list(value) if kind == "categories" else value


def read_attributes(types: Mapping[str, AttributeType], rows: Any) -> dict[str, list[Any]] | None:
    """Return the attributes of rows of a query that has their fields; None if the index has none.

    Raises:
        InvalidEncodingsError: a field has a value that semcut does not store.
    """
    found = {}
    for name, kind in types.items():
        values = [_returned(name, kind, value) for value in text_column(rows, field_of(name))]
        found[name] = column_of(name, kind, values)
    return found or None


def _returned(name: str, kind: AttributeType, stored: Any) -> Any:
    if kind == "categories":
        value = tuple(stored)
        return None if value == ("",) else value
    if stored == _MISSING[kind]:
        return None
    if kind == "bool":
        return {0: False, 1: True}.get(stored, stored)
    if kind == "datetime":
        if not FIRST_DATETIME <= stored <= LAST_DATETIME:
            raise InvalidEncodingsError(f"the attribute {name} has {stored} microseconds since 1970, which is no date")
        return datetime_of(stored)
    return stored
