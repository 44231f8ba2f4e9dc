"""From record ids to row numbers, for batches of ids at a time.

Ids are kept in sorted runs, at most one of each order of magnitude (as in a log-structured merge tree): adding n ids
to N costs O(n log N) amortised, and a look-up is one binary search per run. 16 bytes a record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Run = tuple[NDArray[np.int64], NDArray[np.int64]]


class IdMap:
    """Row numbers of ids. Empty at first; ids must be unique, which the caller checks with `rows`."""

    def __init__(self) -> None:
        self._runs: tuple[Run, ...] = ()

    def add(self, ids: NDArray[np.int64], first_row: int) -> None:
        """Give the n ids the rows first_row, first_row + 1, ..."""
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        run = (ids[order], order + first_row)
        runs = list(self._runs)
        while runs and len(runs[-1][0]) < 2 * len(run[0]):
            run = _merge(runs.pop(), run)
        self._runs = (*runs, run)

    def largest(self) -> int:
        """The largest id, -1 if there is none."""
        return max((int(ids[-1]) for ids, _ in self._runs), default=-1)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) int64 row of each id, -1 where there is none."""
        rows = np.full(len(ids), -1, np.int64)
        for known, places in self._runs:
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            rows = np.where(known[at] == ids, places[at], rows)
        return rows


def _merge(left: Run, right: Run) -> Run:
    if left[0][-1] < right[0][0]:
        return np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])
    ids, rows = np.concatenate([left[0], right[0]]), np.concatenate([left[1], right[1]])
    order = np.argsort(ids, kind="stable")
    return ids[order], rows[order]
