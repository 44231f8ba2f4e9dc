"""Checks of arguments that are arrays of numbers: labels, positions, codes, probabilities of a few images.

The columns of records are checked by `Encodings`. An array, a list or a tensor of torch is read, by `array_given`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.array_reading import array_given
from semcut.indexes.errors import InvalidParameterError


def integers_given(
    name: str, value: Any, least: int, most: int, shape: tuple[int | None, ...] | None = (None,)
) -> NDArray[np.int64]:
    """Read integers from `least` to `most`, such as labels or positions, as int64; see `array_of`."""
    return array_of(name, value, "iu", shape, least, most).astype(np.int64, copy=False)


def array_of(
    name: str,
    value: Any,
    kinds: str,
    shape: tuple[int | None, ...] | None,
    least: float | None = None,
    most: float | None = None,
) -> NDArray[Any]:
    """Read an array of numbers.

    Args:
        name, value: the argument.
        kinds: the kinds of dtypes that are expected: "b" bool, "f" float, "i" and "u" integers.
        shape: the shape that is expected, with None for any length; None for any shape.
        least, most: the range of the numbers; None for any number.

    Raises:
        InvalidEncodingsError: it cannot be read as an array, or has another number of dimensions.
        InvalidParameterError: it has another dtype or shape, or holds a number out of range.
    """
    array = array_given(name, value, None if shape is None else len(shape))
    if array.dtype.kind not in kinds and array.size:
        raise InvalidParameterError(f"{name} have dtype {array.dtype}, expected {_words(kinds)}")
    if shape is not None and any(size not in (None, found) for size, found in zip(shape, array.shape, strict=True)):
        expected = " x ".join("any" if size is None else f"{size:,}" for size in shape)
        raise InvalidParameterError(f"{name} have shape {array.shape}, expected {expected}")
    if least is not None and most is not None and array.size and not (array.min() >= least and array.max() <= most):
        raise InvalidParameterError(f"{name} are from {array.min()} to {array.max()}, expected {least} to {most}")
    return array


def _words(kinds: str) -> str:
    return " or ".join(word for kind, word in (("b", "bool"), ("f", "float"), ("i", "integers")) if kind in kinds)
