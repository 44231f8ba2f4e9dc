"""Valid text: characters of Unicode, without halves of surrogate pairs, which UTF-8 cannot hold.

numpy stores text as 32-bit numbers and checks none of them. A file or a view can have numbers above 0x10FFFF, which are
no characters. Python makes strings of some of them all the same, and then fails in other places, or writes bytes that
are no UTF-8. So text that comes from an array is checked as numbers, and other text by `INVALID`, which finds such
numbers too.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

INVALID = re.compile("[^\\0-\ud7ff\ue000-\U0010ffff]")
"""Finds what is no character in a string."""

_LAST = 0x10FFFF


def values_of(array: NDArray[Any]) -> list[Any]:
    """Return the values of an array as Python's own, in nested lists, as `ndarray.tolist` does.

    Values of datetime64 stay what they are, because `tolist` makes plain numbers of nanoseconds.

    Raises:
        ValueError: it is an array of text, and one of its numbers is no character.
    """
    if array.dtype.kind == "U" and array.dtype.itemsize and array.size:
        numbers = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if numbers.max() > _LAST:
            raise ValueError("it holds numbers that are no characters of Unicode")
    found: list[Any] = list(array) if array.dtype.kind == "M" and array.ndim else array.tolist()
    return found
