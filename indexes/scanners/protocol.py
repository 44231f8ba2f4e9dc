"""`Scanner`, the methods that a search needs of a scanner, and `Nearest`, the result of a scan.

A scanner stores codes with their row numbers and cells. It does not know relevance, ids or features. An index also
calls

    add(codes, rows, cells)      (n, bits / 8) uint8, (n,) int64, (n,) integers
    remove(rows, cells) -> int   the same rows and cells as when they were added; the number of codes that were there

and reads the attribute `fused`: whether `search/compiled` does the whole search on the codes that the scanner holds.

The "flat" scanner also returns rows of cells that a query does not search. Pruning excludes only cells without relevant
records, so the cutoff removes these rows.

A cell to which no codes were added is empty: no scanner reads or writes at the place of a list that it does not have.
Several searches may run at the same time; an `add` or a `remove` must run alone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

NO_RECORD = 2**31 - 1
"""Hamming distance in a result slot without a record."""


class Nearest(NamedTuple):
    """The rows that a scan has found for each query, nearest first.

    Attributes:
        rows: (nq, depth) int64; -1 in slots without a record, which come last.
        hamming: (nq, depth) int32, the Hamming distances of the rows; `NO_RECORD` in slots without a record.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.int32]

    @staticmethod
    def empty(queries: int, depth: int) -> Nearest:
        """Return a result without records."""
        return Nearest(np.full((queries, depth), -1, np.int64), np.full((queries, depth), NO_RECORD, np.int32))


class Scanner(Protocol):
    """Finds rows of records by the Hamming distance of their codes, or all rows of some cells.

    Attributes:
        deepest: the largest depth that `search` accepts.
        patience: the depth up to which scans are repeated to find every record at the last Hamming distance of a
            shortlist, as a multiple of the shortlist. Beyond this depth, the order of the scanner decides among these
            records. Infinite for a scanner with which a search always finds all of them.
    """

    deepest: int
    patience: float

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Return the rows of the codes nearest to each query within its cells, nearest first.

        Codes at the same Hamming distance are in any order. At the last distance, any of them may be missing.

        Args:
            codes: (nq, bits / 8) uint8, the queries.
            cells: (nq, w) int64, the cells of each query, padded with -1.
            depth: the number of codes to return for each query.
        """
        ...

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows in (m,) cells: (n,) int64 rows, and (n,) int64 positions of their cells in `cells`."""
        ...
