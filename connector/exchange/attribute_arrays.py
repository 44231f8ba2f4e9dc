"""Attributes in numpy's files: `attribute_NAME`, and optionally `missing_NAME`, one row for each image.

    dtype of attribute_NAME     type           missing
    bool                        "bool"
    integers                    "int"
    floats of at most 64 bits   "float"        NaN
    datetime64                  "datetime"     NaT; a part of a microsecond is refused
    text, or bytes in UTF-8     "category"     an empty text
    (n, m) of text              "categories"   none: a row has its texts that are not empty, or no categories

`missing_NAME` is bool and True where the value is missing, whatever `attribute_NAME` has there. A type that was asked
for may be another one that accepts these values: "float" of integers, or "datetime" of text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import AttributeType, is_attribute_name
from semcut.indexes.errors import DataError, shown
from semcut.indexes.unicode_text import values_of

VALUES, MISSING = "attribute_", "missing_"
_KINDS: dict[str, AttributeType] = {
    "b": "bool", "i": "int", "u": "int", "f": "float", "M": "datetime", "U": "category", "S": "category",
}  # fmt: skip


def is_attribute_column(name: str) -> bool:
    """Return whether an array or a field belongs to an attribute."""
    return name.startswith((VALUES, MISSING))


def array_types(
    path: str,
    columns: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    rows: int,
    asked: Mapping[str, AttributeType | None],
) -> dict[str, AttributeType]:
    """Return the attributes that arrays hold, with their types.

    Args:
        path: the file, for errors.
        columns: the type of the values and the shape of each array of an attribute.
        rows: the number of images.
        asked: attributes that must be there; a type that is not None is theirs.

    Raises:
        DataError: an array is not as above, or an attribute is not there.
    """
    found: dict[str, AttributeType] = {}
    for column, (dtype, shape) in columns.items():
        name = column.removeprefix(VALUES if column.startswith(VALUES) else MISSING)
        if shape[:1] != (rows,):
            raise DataError(f"{path}: {column} has shape {shape}, expected {rows:,} rows, one for each image")
        if column.startswith(MISSING):
            if f"{VALUES}{name}" not in columns or dtype.kind != "b" or len(shape) != 1:
                raise DataError(f"{path}: {column} has dtype {dtype}, expected one bool for each row of {VALUES}{name}")
            continue
        if not is_attribute_name(name):
            raise DataError(f"{path} has an array {shown(column)}, and {shown(name)} is no name of an attribute")
        texts = dtype.kind in "US"
        if dtype.kind == "f" and dtype.itemsize > 8:
            raise DataError(f"{path}: {column} has dtype {dtype}, which an index cannot hold: save it as float64")
        if dtype.kind not in _KINDS or len(shape) > 1 + texts:
            raise DataError(
                f"{path}: {column} has shape {shape} and dtype {dtype}, expected one bool, number, datetime64 or text "
                "for each image, or a row of texts"
            )
        found[name] = asked.get(name) or ("categories" if len(shape) == 2 else _KINDS[dtype.kind])
    require_attributes(path, asked, found)
    return found


def require_attributes(path: str, asked: Iterable[str], present: Iterable[str]) -> None:
    """Raise `DataError` unless a file has all attributes that are asked for."""
    present = list(present)
    for name in asked:
        if name not in present:
            known = f"it has {', '.join(map(shown, present[:10]))}" if present else "it has no others"
            raise DataError(f"{path} has no column for the attribute {shown(name)}; {known}")


def array_values(path: str, columns: Mapping[str, NDArray[Any]], types: Mapping[str, AttributeType]) -> dict[str, Any]:
    """Return the values of attributes for some rows, by name.

    Raises:
        DataError: a text is not UTF-8.
    """
    found = {}
    for name in types:
        array = columns[f"{VALUES}{name}"]
        values = _plain(path, name, array)
        missing = columns.get(f"{MISSING}{name}")
        if missing is not None:
            values = [None if gone else value for value, gone in zip(values, missing.tolist(), strict=True)]
        found[name] = values
    return found


def _plain(path: str, name: str, array: NDArray[Any]) -> list[Any]:
    try:
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        values = values_of(array)
    except ValueError:  # not UTF-8, or numbers that are no characters
        raise DataError(f"{path}: the attribute {name} has a value that is not valid text") from None
    if array.dtype.kind not in "US":
        return values
    if array.ndim == 2:
        return [[text for text in row if text] for row in values]
    return [text or None for text in values]
