"""The stored row of a record: its attributes one after the other, in the order of the configuration, without gaps.

`attribute_types` has the form of each value. Categories are numbers in the `Vocabulary`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import (
    FIRST_DATETIME,
    LAST_DATETIME,
    MISSING_INT,
    AttributeType,
    datetime_of,
    dtype_of,
    microseconds_of,
)
from semcut.indexes.attributes.numbered_values import NumberedValues
from semcut.indexes.attributes.vocabulary import Vocabulary
from semcut.indexes.errors import DamagedIndexError


def row_dtype(types: Mapping[str, AttributeType]) -> np.dtype[Any]:
    """Return the structured type of a row, which has a field for each attribute."""
    return np.dtype([(name, dtype_of(kind)) for name, kind in types.items()])


def written_rows(
    types: Mapping[str, AttributeType], columns: Mapping[str, list[Any]], vocabulary: Vocabulary, rows: int
) -> NDArray[np.uint8]:
    """Return the stored rows of n records, (n, bytes of a row) uint8.

    Args:
        types: the attributes of the index.
        columns: the attributes of the records, as an index returns them.
        vocabulary: has all of their categories.
        rows: n.
    """
    dtype = row_dtype(types)
    found = np.empty(rows, dtype)
    for name, kind in types.items():
        found[name] = _stored(kind, columns[name], vocabulary.values.get(name))
    return found.view(np.uint8).reshape(rows, dtype.itemsize)


def missing_value(kind: AttributeType) -> float:
    """Return how a missing value of a type is stored."""
    return np.nan if kind == "float" else MISSING_INT if kind in ("int", "datetime") else -1


def _stored(kind: AttributeType, values: list[Any], known: NumberedValues | None) -> list[Any]:
    if known is not None:
        return known.numbers_of(values)
    missing = missing_value(kind)
    if kind == "datetime":
        return [missing if value is None else microseconds_of(value) for value in values]
    return [missing if value is None else value for value in values]


def read_rows(
    types: Mapping[str, AttributeType], rows: NDArray[np.uint8], vocabulary: Vocabulary
) -> dict[str, list[Any]]:
    """Return the attributes of n stored rows as an index returns them.

    Raises:
        DamagedIndexError: a value is none that semcut stores.
    """
    return {
        name: _returned(kind, stored_values_of(types, name, rows, vocabulary), vocabulary.values.get(name))
        for name, kind in types.items()
    }


def stored_values_of(
    types: Mapping[str, AttributeType],
    name: str,
    rows: NDArray[np.uint8],
    vocabulary: Vocabulary,
    removed: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Return one attribute of n stored rows as it is stored, in an array of its own: (n,).

    Args:
        types: the attributes of the index.
        name: the attribute.
        rows: (n, bytes of a row) uint8.
        vocabulary: the values of categories.
        removed: those of the rows whose values are returned as missing, whatever they are; None for none.

    Raises:
        DamagedIndexError: a value is none that semcut stores.
    """
    values = _field(types, name, rows).copy()
    if removed is not None:
        values[removed] = missing_value(types[name])
    if not _possible(types[name], values, vocabulary.values.get(name)).all():
        raise DamagedIndexError(
            f"the attribute {name} has values that the index cannot have stored: restore the index from a backup, or "
            "remove the records that `semcut verify` names"
        )
    return values


def impossible_values(
    types: Mapping[str, AttributeType], name: str, rows: NDArray[np.uint8], vocabulary: Vocabulary
) -> NDArray[np.bool_]:
    """Return which of n stored rows have a value of an attribute that semcut does not store: (n,) bool."""
    return ~_possible(types[name], _field(types, name, rows), vocabulary.values.get(name))


def _field(types: Mapping[str, AttributeType], name: str, rows: NDArray[np.uint8]) -> NDArray[Any]:
    found: NDArray[Any] = np.ascontiguousarray(rows).view(row_dtype(types)).reshape(len(rows))[name]
    return found


def _possible(kind: AttributeType, values: NDArray[Any], known: NumberedValues | None) -> NDArray[np.bool_]:
    """Return which stored values are possible: (n,) bool.

    Args:
        kind: the type of the attribute.
        values: (n,) as stored.
        known: the values of categories; None for other types.
    """
    if kind == "float":
        possible: NDArray[np.bool_] = ~np.isinf(values)
    elif kind == "int":
        possible = np.ones(len(values), bool)
    elif kind == "datetime":
        possible = ((values >= FIRST_DATETIME) & (values <= LAST_DATETIME)) | (values == MISSING_INT)
    else:
        possible = (values >= -1) & (values < (2 if known is None else len(known)))
    return possible


def _returned(kind: AttributeType, stored: NDArray[Any], known: NumberedValues | None) -> list[Any]:
    if known is not None:
        return known.values_of(stored.tolist())
    if kind == "float":
        return [None if value != value else value for value in stored.tolist()]
    missing = missing_value(kind)
    convert: Callable[[Any], Any] = int
    if kind != "int":
        convert = datetime_of if kind == "datetime" else bool
    return [None if value == missing else convert(value) for value in stored.tolist()]
