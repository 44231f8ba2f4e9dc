"""What an index says of itself: `Capabilities`, what its backend can do, and `IndexStats`, its size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. Ask for these instead of asking which class an index has.

    Attributes:
        counts_codes: whether results and explanations count the records in the cells that were scanned; where it is
            False, `SearchResult.codes` and `Explanation.kept_codes` are -1.
        cheap_stats: whether `stats` takes no more than milliseconds; where it is False, it reads something of every
            record.
    """

    counts_codes: bool
    cheap_stats: bool


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """The size of an index.

    Attributes:
        records: records held.
        removed: records that were removed and take space on the disk until the index is compacted.
        partitions: records per dominant class, one number per class.
        cells: number of cells, of all partitions together, that hold a record.
        normalised: whether every feature is L2-normalised, so that the fused ranking can be used.
        column_bytes: bytes of every column; the rows of removed records count until the index is compacted.
    """

    records: int
    removed: int
    partitions: list[int]
    cells: int
    normalised: bool
    column_bytes: dict[str, int]
