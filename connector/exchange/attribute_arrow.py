"""Attributes in columns of Arrow, which have the names of the attributes.

    type          written as              read from, where no type is asked for
    "bool"        bool                    bool
    "int"         int64                   integers
    "float"       double                  floats and decimals
    "datetime"    timestamp[us, UTC]      timestamps and dates
    "category"    string                  text, also of a dictionary
    "categories"  list of string          lists of text

A null is a missing value. A file of another program has further columns that nobody asks for; they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from semcut.connector.exchange.attribute_arrays import require_attributes
from semcut.connector.exchange.encoding_columns import OPTIONAL, REQUIRED
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.errors import DataError

_TAKEN = (*REQUIRED, *OPTIONAL, "classes")
_TYPES: dict[AttributeType, Any] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "datetime": pa.timestamp("us", "UTC"),
    "category": pa.string(),
    "categories": pa.list_(pa.string()),
}


def arrow_fields(types: Mapping[str, AttributeType]) -> list[Any]:
    """Return the fields of a schema for attributes."""
    return [pa.field(name, _TYPES[kind]) for name, kind in types.items()]


def arrow_array(kind: AttributeType, values: list[Any]) -> Any:
    """Return the values of an attribute, as an index returns them, as an array."""
    return pa.array(values, _TYPES[kind])


def arrow_types(
    path: str, schema: Any, own: Mapping[str, AttributeType], asked: Mapping[str, AttributeType | None]
) -> dict[str, AttributeType]:
    """Return the attributes to read from a file, with their types.

    Args:
        path: the file, for errors.
        schema: its columns.
        own: the attributes that its own configuration names.
        asked: further columns that hold attributes; None for the type that follows from that of the column.

    Raises:
        DataError: there is no such column, or none of a type that an attribute has.
    """
    columns = [name for name in schema.names if name not in _TAKEN]
    require_attributes(path, (*own, *asked), columns)
    found = dict(own)
    for name, kind in asked.items():
        column = schema.field(columns[columns.index(name)]).type
        found[name] = kind or own.get(name) or _type_of(path, name, column)
        if name in own and found[name] != own[name]:
            raise DataError(f"{path} has the attribute {name} of type {own[name]}, not {found[name]}")
    return found


def _type_of(path: str, name: str, column: Any) -> AttributeType:
    kinds = pa.types
    value = column.value_type if kinds.is_dictionary(column) else column
    checks: dict[AttributeType, bool] = {
        "bool": kinds.is_boolean(value),
        "int": kinds.is_integer(value),
        "float": kinds.is_floating(value) or kinds.is_decimal(value),
        "datetime": kinds.is_timestamp(value) or kinds.is_date(value),
        "category": is_text(column),
        "categories": (kinds.is_list(value) or kinds.is_large_list(value)) and is_text(value.value_type),
    }
    for kind, right in checks.items():
        if right:
            return kind
    raise DataError(
        f"{path}: the column {name} has the type {column}, which no attribute has: expected a bool, a number, a "
        "timestamp, text, or a list of texts"
    )


def is_text(kind: Any) -> bool:
    """Return whether a column of this type holds text, also as a dictionary."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values))


def arrow_values(path: str, first: int, name: str, kind: AttributeType, column: Any) -> list[Any]:
    """Return the values of a column as an attribute takes them.

    Args:
        path, first: as for `encoding_columns.encodings_of`.
        name, kind: the attribute.
        column: an array of Arrow.

    Raises:
        DataError: a value cannot be read.
    """
    if kind == "datetime" and pa.types.is_timestamp(column.type):
        try:
            zone = column.type.tz
            column = column.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us", "UTC" if zone else None))
        except pa.ArrowInvalid:
            raise DataError(
                f"{path}, rows from {first:,} on: the attribute {name} has a time of a finer or longer scale than "
                "microseconds in the years 1 to 9999"
            ) from None
    try:
        values: list[Any] = column.to_pylist()
    except (UnicodeDecodeError, OverflowError, ValueError):
        raise DataError(
            f"{path}, rows from {first:,} on: the attribute {name} has a value that is not valid text or time"
        ) from None
    if kind == "float":
        return [float(value) if isinstance(value, Decimal) else value for value in values]
    return values
