"""Map record ids to row numbers, for whole batches of ids.

Ids are kept in sorted runs, each at least twice as long as the next (as in a log-structured merge tree): adding n ids
to N costs O(n log N) amortised, and a look-up is one binary search per run. Each id takes 16 bytes. An id that was
removed stays in its run, with row -1, until the run is merged with another.

Source: O'Neil, Cheng, Gawlick and O'Neil, "The log-structured merge-tree (LSM-tree)", 1996.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SCANNED_IDS = 1 << 12  # ids per step of the search for the largest id

Run = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(n,) ids in ascending order, and (n,) their rows, -1 for an id that was removed."""


class IdMap:
    """A map from ids to row numbers, empty at first. Ids must be unique: check this with `rows` before `add`."""

    def __init__(self) -> None:
        self._runs: tuple[Run, ...] = ()

    def add(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Add (n,) ids, which must be unknown, with their (n,) rows."""
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        run = (ids[order], rows[order])
        runs = list(self._runs)
        while runs and len(runs[-1][0]) < 2 * len(run[0]):
            run = _merge(runs.pop(), run)
        self._runs = (*runs, run)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove (n,) ids, which must be known."""
        for run_ids, run_rows in self._runs:
            if not len(run_ids):
                continue
            at = np.minimum(np.searchsorted(run_ids, ids), len(run_ids) - 1)
            run_rows[at[run_ids[at] == ids]] = -1

    def largest(self) -> int:
        """Return the largest id, -1 if there is none."""
        return max((_largest(*run) for run in self._runs), default=-1)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the (n,) int64 rows of (n,) ids, -1 for an id that is unknown."""
        rows = np.full(len(ids), -1, np.int64)
        for run_ids, run_rows in self._runs:
            if len(run_ids):
                at = np.minimum(np.searchsorted(run_ids, ids), len(run_ids) - 1)
                rows = np.where((run_ids[at] == ids) & (run_rows[at] >= 0), run_rows[at], rows)
        return rows


def _largest(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> int:
    """Return the largest id of a run that was not removed, found from the end of the run; -1 if there is none."""
    for stop in range(len(ids), 0, -_SCANNED_IDS):
        start = max(0, stop - _SCANNED_IDS)
        alive = np.flatnonzero(rows[start:stop] >= 0)
        if len(alive):
            return int(ids[start + alive[-1]])
    return -1


def _merge(left: Run, right: Run) -> Run:
    """Merge two runs into one, without the ids that were removed."""
    ids, rows = (np.concatenate([a, b]) for a, b in zip(left, right, strict=True))
    alive = rows >= 0
    if not alive.all():
        ids, rows = ids[alive], rows[alive]
    if (left[0].size and right[0].size) and left[0][-1] >= right[0][0]:
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], rows[order]
    return ids, rows
