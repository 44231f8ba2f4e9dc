"""From record ids to row numbers, for batches of ids at a time.

Ids are kept in sorted runs, at most one of each order of magnitude (as in a log-structured merge tree): adding n ids
to N costs O(n log N) amortised, and a look-up is one binary search per run. 16 bytes a record. An id that was removed
keeps its place, with row -1, until its run is merged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PART = 1 << 12

Run = tuple[NDArray[np.int64], NDArray[np.int64]]


class IdMap:
    """Row numbers of ids. Empty at first; ids must be unique, which the caller checks with `rows`."""

    def __init__(self) -> None:
        self._runs: tuple[Run, ...] = ()

    def add(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Give n ids their rows."""
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        run = (ids[order], rows[order])
        runs = list(self._runs)
        while runs and len(runs[-1][0]) < 2 * len(run[0]):
            run = _merge(runs.pop(), run)
        self._runs = (*runs, run)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Forget n ids, all of them known."""
        for known, places in self._runs:
            if not len(known):
                continue
            at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            places[at[known[at] == ids]] = -1

    def largest(self) -> int:
        """The largest id, -1 if there is none."""
        return max((_largest(*run) for run in self._runs), default=-1)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) int64 row of each id, -1 where there is none."""
        rows = np.full(len(ids), -1, np.int64)
        for known, places in self._runs:
            if len(known):
                at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
                rows = np.where((known[at] == ids) & (places[at] >= 0), places[at], rows)
        return rows


def _largest(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> int:
    """The last id with a row, found from the end."""
    for stop in range(len(ids), 0, -_PART):
        start = max(0, stop - _PART)
        alive = np.flatnonzero(rows[start:stop] >= 0)
        if len(alive):
            return int(ids[start + alive[-1]])
    return -1


def _merge(left: Run, right: Run) -> Run:
    ids, rows = (np.concatenate([a, b]) for a, b in zip(left, right, strict=True))
    alive = rows >= 0
    if not alive.all():
        ids, rows = ids[alive], rows[alive]
    if (left[0].size and right[0].size) and left[0][-1] >= right[0][0]:
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], rows[order]
    return ids, rows
