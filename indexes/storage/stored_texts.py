"""Read the texts of records, their uris or their keys, from the columns `..._ends` and `..._bytes`, and count bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.keys import ids_of, is_key

if TYPE_CHECKING:
    from semcut.indexes.storage.mapped_columns import Columns

TextKind = Literal["uri", "key"]


def text_kinds(columns: Columns) -> tuple[TextKind, ...]:
    """Return the kinds of texts that an index has."""
    return ("uri", "key") if "key_ends" in columns.sources else ("uri",)


def read_texts(columns: Columns, kind: TextKind, rows: NDArray[np.int64]) -> list[str | None]:
    """Read the texts of the records in (n,) rows, None for a record without one.

    Raises:
        DamagedIndexError: the stored bytes do not match their checksums, or are not texts.
    """
    places, content = f"{kind}_ends", f"{kind}_bytes"
    ends = columns.checked(places, np.concatenate([rows, rows - 1]))
    stops = ends[rows]
    starts = np.where(rows > 0, ends[rows - 1], 0) if len(rows) else stops
    block = columns.sources[content].spec.block
    text = columns.raw()[content]
    if len(rows) and (starts.min() < 0 or (stops < starts).any() or stops.max() > len(text)):
        raise DamagedIndexError(f"the {places} of the index are damaged: restore it from a backup")
    if int((stops - starts).sum()) > len(text):  # texts that share bytes, unless rows are asked for repeatedly
        distinct = np.unique(rows, return_index=True)[1]
        if int((stops - starts)[distinct].sum()) > len(text):
            raise overlap(kind)
    present = stops > starts
    first, last = starts[present] // block, (stops[present] - 1) // block
    columns.require_whole(content)
    long = last > first + 1  # texts that also cover blocks between their first and their last
    between = [np.arange(a + 1, b) for a, b in zip(first[long], last[long], strict=True)]
    columns.sources[content].check(columns.extents[content], np.concatenate([first, last, *between]) * block)
    try:
        return [
            text[start : stop - 1].tobytes().decode() if stop > start else None
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
    except UnicodeDecodeError:
        raise DamagedIndexError(f"the {content} of the index are damaged: restore it from a backup") from None


def read_keys(columns: Columns, rows: NDArray[np.int64]) -> list[str] | None:
    """Read the keys of the records in (n,) rows; None if the index has no keys.

    Raises:
        DamagedIndexError: as for `read_texts`, or a record has no key, or another one than its id follows from.
    """
    if "key_ends" not in columns.sources:
        return None
    found = [key or "" for key in read_texts(columns, "key", rows)]
    if not all(map(is_key, found)) or not np.array_equal(ids_of(found), columns.ids[rows]):
        raise DamagedIndexError("the keys of the index do not fit its ids: restore it from a backup")
    return found


def overlap(kind: TextKind) -> DamagedIndexError:
    """Return the error of texts that share bytes."""
    return DamagedIndexError(f"the {kind}_ends of the index overlap: restore it from a backup")


def text_size(columns: Columns, kind: TextKind, rows: NDArray[np.int64]) -> int:
    """Sum up the bytes of the texts of the records in (n,) rows, which were read before."""
    ends = columns.raw()[f"{kind}_ends"]
    return int((ends[rows] - np.where(rows > 0, ends[rows - 1], 0)).sum())
