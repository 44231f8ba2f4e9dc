"""Keys: ids that are strings, such as UUIDs, names or paths.

An index whose records have keys (`IndexConfig.keys`) still has integer ids inside, which follow from the keys: the id
of a key is a 63-bit digest of its text. So arrays of ids, their order and their cost are the same for every index,
whatever the length of keys. The text itself is stored beside each record. Every function that takes ids takes keys
there, and compares the stored text; only a search that is limited `among` keys, or leaves out the records of queries,
goes by digests. Two keys with one digest are an error when the second is added. It is expected once in 10^13 additions
to a million records, unless someone looks for such keys.

Source: BLAKE2b, RFC 7693.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DuplicateIdError, InvalidEncodingsError, InvalidParameterError, UnknownIdError, shown
from semcut.indexes.id_checks import ids_given
from semcut.indexes.unicode_text import INVALID, values_of

MAX_KEY = 1000
"""The largest number of characters of a key."""


def is_key(value: Any) -> bool:
    """Return whether a record can have this key: text of 1 to 1000 characters, without a zero byte, valid Unicode."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY:
        return False
    return "\0" not in value and (value.isascii() or not INVALID.search(value))


def are_keys(given: Any) -> bool:
    """Return whether a caller means keys by what is given as ids: one text, or a list or array of texts."""
    if isinstance(given, str):
        return True
    if isinstance(given, np.ndarray):
        return given.dtype.kind == "U" or (
            given.dtype.kind in "OT" and given.size > 0 and isinstance(given.flat[0], str)
        )
    return isinstance(given, Sequence) and not isinstance(given, bytes) and len(given) > 0 and isinstance(given[0], str)


def keys_given(given: Any) -> list[str]:
    """Read keys as a caller passes them, see `are_keys`.

    Raises:
        InvalidParameterError: one of them is no key.
    """
    try:
        listed = (
            [given] if isinstance(given, str) else list(values_of(given) if isinstance(given, np.ndarray) else given)
        )
    except ValueError as error:
        raise InvalidParameterError(f"ids are an array of text, and {error}") from None
    if isinstance(given, np.ndarray) and given.ndim > 1:
        raise InvalidParameterError(f"ids are an array of text of shape {given.shape}, expected (n,)")
    for key in listed:
        if not is_key(key):
            raise InvalidParameterError(f"id {shown(key)} is no key, expected text of 1 to {MAX_KEY} characters")
    return [str(key) for key in listed]


def keys_of(ids: Any, keys: Any) -> list[str] | None:
    """Return the keys of a batch: those that are given as its ids, or those of another batch; None if it has none.

    Raises:
        InvalidEncodingsError: one of them is no key.
    """
    given = ids if are_keys(ids) and not isinstance(ids, str) else keys
    if given is None:
        return None
    if not are_keys(given) or isinstance(given, str):
        if isinstance(given, Sequence) and not len(given):
            return []
        raise InvalidEncodingsError(f"keys are {shown(given)}, expected one string per image")
    try:
        return keys_given(given)
    except InvalidParameterError as error:
        raise InvalidEncodingsError(str(error)) from None


def ids_of(keys: Sequence[str]) -> NDArray[np.int64]:
    """Return the ids that follow from n keys: (n,) int64, from 0 to 2^63 - 1."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return (np.frombuffer(digests, "<u8") >> np.uint64(1)).astype(np.int64)


KeyReader = Callable[[NDArray[np.int64]], "Sequence[str | None]"]
"""Returns the keys of the records with (n,) ids, None for an id that is not in the index."""


def ids_or_keys(keyed: bool, given: Any, read: KeyReader, *, must_exist: bool = True) -> NDArray[np.int64]:
    """Read ids as a caller passes them, or keys.

    Args:
        keyed: whether the index has keys.
        given: ids, see `ids_given`; or keys, if the index has some.
        read: reads the keys of the index.
        must_exist: whether a key that the index does not have is an error; if not, its id becomes -1.

    Raises:
        InvalidParameterError: they are neither ids nor keys, or the index has no keys.
        UnknownIdError: `must_exist`, and a key is not in the index.
    """
    if not are_keys(given):
        return ids_given(given, must_exist=must_exist)
    if not keyed:
        refuse_texts(given)
        return ids_given(given, must_exist=must_exist)
    keys = keys_given(given)
    ids = ids_of(keys)
    missing = np.array([stored != key for stored, key in zip(read(ids), keys, strict=True)], bool)
    if must_exist and missing.any():
        first = ", ".join(shown(keys[row]) for row in np.flatnonzero(missing)[:5].tolist())
        raise UnknownIdError(f"{missing.sum()} ids ({first}) are not in the index")
    ids[missing] = -1
    return ids


def refuse_texts(given: Any) -> None:
    """Raise `InvalidParameterError` for keys, see `are_keys`, that are given where ids are integers."""
    texts = np.asarray(given, object).ravel()
    if len(texts):
        raise InvalidParameterError(f"ids are strings, such as {shown(str(texts[0]))}, but the index has integer ids")


def refuse_duplicate_keys(keys: Sequence[str]) -> None:
    """Raise `DuplicateIdError` if a key occurs twice in a batch."""
    twice = [key for key, count in Counter(keys).items() if count > 1] if len(set(keys)) < len(keys) else []
    if twice:
        first = ", ".join(map(shown, twice[:5]))
        raise DuplicateIdError(f"{len(twice)} ids ({first}) are more than once in the batch: ids must be unique")


def refuse_keys(ids: NDArray[np.int64], keys: Sequence[str], stored: Sequence[str | None], *, replace: bool) -> None:
    """Refuse new records whose keys are in the index, or have the id of another key there.

    Args:
        ids, keys: of the n new records.
        stored: the key of the record with each of these ids, None for an id that is not in the index.
        replace: whether a key may be in the index.

    Raises:
        InvalidEncodingsError: a key has the id of another one.
        DuplicateIdError: a key is in the index, and not replaced.
    """
    known = [(number, key, other) for number, key, other in zip(ids.tolist(), keys, stored, strict=True) if other]
    for number, key, other in known:
        if other != key:
            raise InvalidEncodingsError(
                f"the keys {shown(key)} and {shown(other)}, which the index has, have the same digest {number}: give "
                "the record another key"
            )
    if known and not replace:
        first = ", ".join(shown(key) for _, key, _ in known[:5])
        raise DuplicateIdError(f"{len(known)} ids ({first}) are in the index already: ids must be unique")
