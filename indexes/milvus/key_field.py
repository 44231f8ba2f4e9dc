"""How Milvus stores the keys of records: a VARCHAR field `key` beside every `id`, if the index has keys.

The id of a record follows from its key, so records are found by their ids, and keys never occur in a filter. A key that
does not have the id beside it was written by another program: reading it is an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidEncodingsError, shown
from semcut.indexes.keys import MAX_KEY, ids_of
from semcut.indexes.milvus.pymilvus_internals import DataType, text_column

KEY = "key"
"""The name of the field."""

BYTES_PER_CHARACTER = 4
"""The largest number of bytes of a character. Milvus limits the bytes of a text."""


def key_fields(keyed: bool) -> list[tuple[str, DataType, dict[str, Any]]]:
    """Define the field of an index: name, type and options; none for an index without keys."""
    return [(KEY, DataType.VARCHAR, {"max_length": BYTES_PER_CHARACTER * MAX_KEY})] if keyed else []


def read_keys(rows: Any, ids: NDArray[np.int64]) -> list[str]:
    """Return the keys of rows of a query that has their field.

    Args:
        rows: n rows.
        ids: (n,) int64, their ids.

    Raises:
        InvalidEncodingsError: a key does not have the id of its row.
    """
    keys = text_column(rows, KEY)
    wrong = np.flatnonzero(ids_of(keys) != ids)
    if len(wrong):
        raise InvalidEncodingsError(
            f"the record with id {ids[wrong[0]]} has the key {shown(keys[wrong[0]])} of another"
        )
    return keys
