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
    has_vocabulary,
    microseconds_of,
)
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
        found[name] = _stored(kind, columns[name], vocabulary.numbers.get(name, {}))
    return found.view(np.uint8).reshape(rows, dtype.itemsize)


def _stored(kind: AttributeType, values: list[Any], numbers: Mapping[Any, int]) -> list[Any]:
    if kind == "float":
        return [np.nan if value is None else value for value in values]
    if kind == "int":
        return [MISSING_INT if value is None else value for value in values]
    if kind == "datetime":
        return [MISSING_INT if value is None else microseconds_of(value) for value in values]
    if kind == "bool":
        return [-1 if value is None else int(value) for value in values]
    return [-1 if value is None else numbers[value] for value in values]


def read_rows(
    types: Mapping[str, AttributeType], rows: NDArray[np.uint8], vocabulary: Vocabulary
) -> dict[str, list[Any]]:
    """Return the attributes of n stored rows as an index returns them.

    Raises:
        DamagedIndexError: a value is none that semcut stores.
    """
    return {
        name: _returned(kind, stored_values_of(types, name, rows, vocabulary), vocabulary.values.get(name, []))
        for name, kind in types.items()
    }


def stored_values_of(
    types: Mapping[str, AttributeType], name: str, rows: NDArray[np.uint8], vocabulary: Vocabulary
) -> NDArray[Any]:
    """Return one attribute of n stored rows as it is stored, in an array of its own: (n,).

    Raises:
        DamagedIndexError: a value is none that semcut stores.
    """
    kind = types[name]
    values = np.ascontiguousarray(rows).view(row_dtype(types)).reshape(len(rows))[name].copy()
    possible = True
    if len(values) and kind == "float":
        possible = not np.isinf(values).any()
    elif len(values) and kind == "datetime":
        possible = bool((((values >= FIRST_DATETIME) & (values <= LAST_DATETIME)) | (values == MISSING_INT)).all())
    elif len(values) and kind != "int":
        most = len(vocabulary.values[name]) if has_vocabulary(kind) else 2
        possible = values.min() >= -1 and values.max() < most
    if not possible:
        raise DamagedIndexError(
            f"the attribute {name} has values that the index cannot have stored: restore the index from a backup"
        )
    return values


def _returned(kind: AttributeType, stored: NDArray[Any], values: list[Any]) -> list[Any]:
    convert: Callable[[Any], Any]
    if kind == "float":
        return [None if value != value else value for value in stored.tolist()]
    if kind in ("int", "datetime"):
        convert = datetime_of if kind == "datetime" else int
        return [None if value == MISSING_INT else convert(value) for value in stored.tolist()]
    convert = values.__getitem__ if has_vocabulary(kind) else bool
    return [None if value < 0 else convert(value) for value in stored.tolist()]
