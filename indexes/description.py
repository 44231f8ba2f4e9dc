"""Descriptions of an index: `Capabilities`, what its backend can do, and `IndexStats`, its size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. Code should depend on these, not on the class of an index.

    Attributes:
        counts_codes: whether results and explanations count the records in the cells that were scanned; where it is
            False, `SearchResult.codes` and `Explanation.kept_codes` are -1.
        cheap_stats: whether `stats` takes milliseconds at most; where it is False, `stats` reads a part of every
            record.
    """

    counts_codes: bool
    cheap_stats: bool


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """The size of an index.

    Attributes:
        records: number of records in the index.
        removed: number of removed records that take space until the index is compacted.
        partitions: number of records per dominant class, one number per class.
        cells: number of cells with at least one record, in all partitions together.
        normalised: whether every feature is L2-normalised, so that the fused ranking can be used.
        column_bytes: bytes of each column, by name. The rows of removed records count until the index is compacted.
    """

    records: int
    removed: int
    partitions: list[int]
    cells: int
    normalised: bool
    column_bytes: dict[str, int]
