"""Read the uris of records from the columns `uri_ends` and `uri_bytes`, and count their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError

if TYPE_CHECKING:
    from semcut.indexes.storage.mapped_columns import Columns

OVERLAP = "the uri_ends of the index overlap: restore it from a backup"


def read_uris(columns: Columns, rows: NDArray[np.int64]) -> list[str | None]:
    """Read the uris of the records in (n,) rows, None for a record without a uri; for `Columns.uris`.

    Raises:
        DamagedIndexError: the stored bytes do not match their checksums, or are not uris.
    """
    ends = columns.checked("uri_ends", np.concatenate([rows, rows - 1]))
    stops = ends[rows]
    starts = np.where(rows > 0, ends[rows - 1], 0) if len(rows) else stops
    block = columns.sources["uri_bytes"].spec.block
    text = columns.raw()["uri_bytes"]
    if len(rows) and (starts.min() < 0 or (stops < starts).any() or stops.max() > len(text)):
        raise DamagedIndexError("the uri_ends of the index are damaged: restore it from a backup")
    if int((stops - starts).sum()) > len(text):  # uris that share bytes, unless rows are asked for repeatedly
        distinct = np.unique(rows, return_index=True)[1]
        if int((stops - starts)[distinct].sum()) > len(text):
            raise DamagedIndexError(OVERLAP)
    present = stops > starts
    first, last = starts[present] // block, (stops[present] - 1) // block
    columns.require_whole("uri_bytes")
    long = last > first + 1  # uris that also cover blocks between their first and their last
    between = [np.arange(a + 1, b) for a, b in zip(first[long], last[long], strict=True)]
    columns.sources["uri_bytes"].check(columns.extents["uri_bytes"], np.concatenate([first, last, *between]) * block)
    try:
        return [
            text[start : stop - 1].tobytes().decode() if stop > start else None
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        ]
    except UnicodeDecodeError:
        raise DamagedIndexError("the uri_bytes of the index are damaged: restore it from a backup") from None


def uri_size(columns: Columns, rows: NDArray[np.int64]) -> int:
    """Sum up the bytes of the uris of the records in (n,) rows, which were read before."""
    ends = columns.raw()["uri_ends"]
    return int((ends[rows] - np.where(rows > 0, ends[rows - 1], 0)).sum())
