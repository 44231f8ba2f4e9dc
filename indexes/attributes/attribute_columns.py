"""The attributes of a batch, before it is known for which index they are: lists of any values, of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semcut.indexes.attributes.attribute_types import is_attribute_name
from semcut.indexes.errors import InvalidEncodingsError, shown
from semcut.indexes.unicode_text import values_of


def attributes_given(given: Any, rows: int) -> dict[str, list[Any]]:
    """Read the attributes of n images as a caller passes them: by name, a list or an array of n values.

    Raises:
        InvalidEncodingsError: something else is given, or there is not one value per image.
    """
    if not isinstance(given, Mapping):
        raise InvalidEncodingsError(f"attributes are a {type(given).__name__}, expected values by name")
    found = {}
    for name, values in given.items():
        if not is_attribute_name(name):
            raise InvalidEncodingsError(f"attributes have {shown(name)}, which is no name of an attribute")
        found[name] = _listed(name, values)
        if len(found[name]) != rows:
            raise InvalidEncodingsError(
                f"the attribute {name} has {len(found[name])} values, expected one for each of the {rows} images, None "
                "where it is missing"
            )
    return found


def _listed(name: str, values: Any) -> list[Any]:
    for method in ("to_list", "to_pylist"):  # of a column of pandas or polars, and of pyarrow
        if not isinstance(values, Mapping) and callable(listed := getattr(values, method, None)):
            return list(listed())
    if isinstance(values, np.ndarray) and values.ndim == 1:
        try:
            return values_of(values)
        except ValueError as error:
            raise InvalidEncodingsError(f"the attribute {name} is an array of text, and {error}") from None
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | memoryview):
        raise InvalidEncodingsError(f"the attribute {name} is {shown(values)}, expected a list of one value per image")
    return list(values)


def joined_attributes(batches: Sequence[tuple[Mapping[str, list[Any]] | None, int]]) -> dict[str, list[Any]] | None:
    """Join the attributes of batches, each with its number of images; values that a batch does not have are missing."""
    names = dict.fromkeys(name for attributes, _ in batches for name in attributes or ())
    if not names:
        return None
    return {
        name: [value for found, rows in batches for value in (found or {}).get(name) or [None] * rows] for name in names
    }
