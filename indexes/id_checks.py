"""Checks of record ids that callers pass, with one error message for each mistake, for every index.

Ids are int64 and not negative. These functions do not use the index itself: the caller passes the row of each id, or -1
for an id that is not in the index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.array_reading import array_given
from semcut.indexes.errors import DuplicateIdError, InvalidEncodingsError, InvalidParameterError, UnknownIdError

_LARGEST = np.iinfo(np.int64).max


def ids_given(ids: Any, *, must_exist: bool = True) -> NDArray[np.int64]:
    """Read ids as a caller passes them.

    Args:
        ids: one integer or (n,) integers of any integer type.
        must_exist: whether an integer that is too large for an id is an error; if not, it becomes -1.

    Returns:
        (n,) int64.

    Raises:
        InvalidParameterError: `ids` is not an array of integers.
        UnknownIdError: `must_exist`, and an integer is too large for an id.
    """
    try:
        given = np.atleast_1d(array_given("ids", ids, None))
    except InvalidEncodingsError as error:
        raise InvalidParameterError(f"{error}; expected (n,) integers") from None
    if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
        raise InvalidParameterError(f"ids are {given.dtype} of shape {given.shape}, expected (n,) integers")
    too_large = given[given > _LARGEST] if given.dtype.kind == "u" else given[:0]
    if len(too_large) and must_exist:
        raise UnknownIdError(f"{_some(too_large)} not in the index")
    read = given.astype(np.int64) if given.size else np.empty(0, np.int64)
    if len(too_large):
        read[given > _LARGEST] = -1
    return read


def refuse_duplicates(ids: NDArray[np.int64]) -> None:
    """Raise `DuplicateIdError` if an id occurs twice in a batch."""
    in_order = np.sort(ids)
    twice = in_order[1:][in_order[1:] == in_order[:-1]]
    if len(twice):
        raise DuplicateIdError(f"{_some(np.unique(twice))} more than once in the batch: ids must be unique")


def refuse_known(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Raise `DuplicateIdError` if one of the ids has a row."""
    known = ids[rows >= 0]
    if len(known):
        raise DuplicateIdError(f"{_some(known)} in the index already: ids must be unique")


def refuse_unknown(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Raise `UnknownIdError` if one of the ids has no row."""
    unknown = ids[rows < 0]
    if len(unknown):
        raise UnknownIdError(f"{_some(unknown)} not in the index")


def _some(ids: NDArray[np.integer[Any]]) -> str:
    """Return the start of a sentence: the number of ids, the first of them, and "is" or "are"."""
    first = ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")
    return f"id {first} is" if len(ids) == 1 else f"{len(ids)} ids ({first}) are"
