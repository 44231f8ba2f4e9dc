"""What every scanner can do, and what a scan returns.

A scanner holds codes, row numbers and cells, and knows nothing of relevance, ids or features. A search needs two
methods of it (`Scanner`). An index also calls

    add(codes, rows, cells)      (n, bits / 8) uint8, (n,) int64, (n,) integers
    remove(rows, cells)          the same rows and cells as when they were added

and reads the attribute `fused`: whether `search/compiled` does the whole search on the codes that the scanner holds.

The "flat" scanner also returns rows of cells that a query does not search. Pruning leaves out only cells that hold
nothing relevant, so the cutoff removes these rows.

A cell that is searched must have been added to before: FAISS crashes on the number of a list that it does not have.
Searches may run at the same time as each other; an `add` or a `remove` must run alone.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

NO_RECORD = 2**31 - 1
"""Hamming distance in a result slot without a record."""


class Nearest(NamedTuple):
    """What a scan has found for each query, nearest first.

    Attributes:
        rows: (nq, depth) int64; -1 in slots without a record, which come last.
        hamming: (nq, depth) int32, their distances; `NO_RECORD` in slots without a record.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.int32]

    @staticmethod
    def empty(queries: int, depth: int) -> Nearest:
        """Return slots without a record."""
        return Nearest(np.full((queries, depth), -1, np.int64), np.full((queries, depth), NO_RECORD, np.int32))


class Scanner(Protocol):
    """Finds rows of records by the Hamming distance of their codes, or all rows of some cells.

    Attributes:
        deepest: the largest depth that `search` accepts.
        patience: how deep a search goes to find every record that is tied at the last Hamming distance of a shortlist,
            as a multiple of the shortlist. Beyond that depth the scanner's own order decides among tied records.
            Infinite for a scanner that always finds all of them.
    """

    deepest: int
    patience: float

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Return the codes nearest to each query within its cells, nearest first.

        Codes at the same Hamming distance come in any order, and any of them may be left out at the last distance.

        Args:
            codes: (nq, bits / 8) uint8, the queries.
            cells: (nq, w) int64, the cells of each query, padded with -1.
            depth: how many codes to return for each query.
        """
        ...

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows in (m,) cells: (n,) int64 rows, and (n,) int64 positions in `cells`, one per row."""
        ...
