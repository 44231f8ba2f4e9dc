"""The shortlist: the relevant records nearest to a query by Hamming distance, found by deeper and deeper scans.

A scanner compares codes and does not know relevance. So a scan returns the nearest records up to a depth, and the
cutoff drops those that are not relevant. For queries with too few relevant records the scan is repeated at a larger
depth. A scan that returns as many records as its depth may have left out others at the last distance. So records at
that distance do not count. If a deeper scan would return a large share of the kept cells, all records of these cells
are compared instead.

In both cases the shortlist has the nearest *relevant* records in the order of `search.tie_order`: as many as its size,
or all of them if there are fewer. The compiled counterparts are `search.search_numba` and `search.shortlist_numba`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.pruning.cells import Cells, KeptCells
from semcut.indexes.scanners.protocol import Scanner
from semcut.indexes.scoring.equations import hamming
from semcut.indexes.search.cutoff import relevant_candidates
from semcut.indexes.search.rank import RecordReader
from semcut.indexes.search.tie_order import first, levels
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_tuning import TUNING


@dataclass(frozen=True, eq=False)
class Shortlister:
    """Makes shortlists of the records of one search.

    Attributes:
        records: the records, by row.
        cells: the cells of the index.
        scanner: finds rows by their codes.
        trace: counts the scans; None for no trace.
    """

    records: RecordReader
    cells: Cells
    scanner: Scanner
    trace: SearchTrace | None = None

    def by_scanning(
        self, codes: NDArray[np.uint8], weights: NDArray[np.float64], kept: KeptCells, cutoff: float, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Find the nearest relevant rows by scans.

        Args:
            codes: (nq, bits / 8) uint8.
            weights: (nq, C) float64, s = S p of each query.
            kept: the cells that pruning keeps for these queries.
            cutoff: t of Eq. 2.
            size: the size of a shortlist.

        Returns:
            rows (nq, w) int64, -1 in unused slots; dropped (nq,) int64, the number of records that the cutoff dropped;
            and unfinished (n,) int64, the queries to finish with `from_all`: all of their rows are -1.
        """
        queries = len(codes)
        dropped, depth = np.zeros(queries, np.int64), min(TUNING.first_scan * size, self.scanner.deepest)
        if depth < size:
            return np.full((queries, 1), -1, np.int64), dropped, np.arange(queries)
        shortlist = np.full((queries, size), -1, np.int64)
        unfinished = [np.empty(0, np.int64)]
        scans = [(np.arange(queries), depth)]
        while scans:
            query, depth = scans.pop()
            if len(query) > 1 and len(query) * depth > TUNING.chunk_elements:
                half = len(query) // 2
                scans += [(query[:half], depth), (query[half:], depth)]
                continue
            if self.trace is not None:
                self.trace.count("scans", 1)
            rows, distances = self.scanner.search(codes[query], kept.cells[query], depth)
            last = distances[:, -1:] if self._goes_deeper(depth, size) else np.inf
            counts = (rows >= 0) & ((distances < last) | (rows[:, -1:] < 0))
            certain = kept.certain[query[:, None], self.records.cells[rows]]
            nearest, below = self._nearest(rows, distances, counts, certain, weights[query], cutoff, size)
            done = (rows[:, -1] < 0) | (nearest[:, -1] >= 0)
            shortlist[query[done]], dropped[query[done]] = nearest[done], below[done]
            query, depth = query[~done], depth * TUNING.deeper
            left = kept.codes[query]
            rather_all = (left >= 0) & (left <= TUNING.rather_all * depth) | (depth > self.scanner.deepest)
            unfinished.append(query[rather_all])
            if not rather_all.all():
                scans.append((query[~rather_all], depth))
        return shortlist, dropped, np.concatenate(unfinished)

    def from_all(
        self,
        codes: NDArray[np.uint8],
        weights: NDArray[np.float64],
        kept: KeptCells,
        query: NDArray[np.int64],
        cutoff: float,
        size: int | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find all relevant rows of some queries, or the nearest of them, by comparing every record of their cells.

        Args:
            codes: (n, bits / 8) uint8, the codes of these queries.
            weights: (n, C) float64, the weights of these queries.
            kept: the cells that pruning keeps for all queries.
            query: (n,) int64, positions of these queries in `kept`.
            cutoff: t of Eq. 2.
            size: the size of a shortlist; None for all relevant rows.

        Returns:
            rows (n, m) int64, -1 in unused slots; and dropped (n,) int64, how many records the cutoff dropped.
        """
        place = np.nonzero(kept.cells[query] >= 0)
        cells = kept.cells[query][place]
        found, which = self.scanner.rows(cells)
        owner, cell = place[0][which], cells[which]
        counts = np.bincount(owner, minlength=len(query))
        at = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
        rows = np.full((len(query), int(counts.max(initial=1))), -1, np.int64)
        certain = np.zeros(rows.shape, bool)
        rows[owner, at] = found
        certain[owner, at] = kept.certain[query[owner], cell]
        if size is not None:
            distances = hamming(codes[:, None], self.records.codes[rows])
            return self._nearest(rows, distances, rows >= 0, certain, weights, cutoff, size)
        relevant = relevant_candidates(self.records, rows, certain, weights, cutoff, self.cells.largest_mass)
        rows[~relevant] = -1
        return rows, counts - np.count_nonzero(relevant, axis=1)

    def _goes_deeper(self, depth: int, size: int) -> bool:
        """Return whether a scan of this depth is repeated deeper if it may lack records tied at its last distance."""
        if np.isinf(self.scanner.patience):
            return True
        return depth < self.scanner.patience * size and depth * TUNING.deeper <= self.scanner.deepest

    def _nearest(
        self,
        rows: NDArray[np.int64],
        distances: NDArray[np.int32],
        counts: NDArray[np.bool_],
        certain: NDArray[np.bool_],
        weights: NDArray[np.float64],
        cutoff: float,
        size: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose the first relevant candidates of each query, in the order of `tie_order`.

        Args:
            rows: (nq, m) int64, -1 for no candidate.
            distances: (nq, m) int32, their Hamming distances.
            counts: (nq, m) bool, which candidates may be chosen.
            certain: (nq, m) bool, which candidates are known to be relevant.
            weights: (nq, C) float64, s = S p of each query.
            cutoff: t of Eq. 2.
            size: the size of a shortlist.

        Returns:
            (nq, w) int64, the chosen rows, then -1, w at most `size`; and (nq,) int64, how many candidates the cutoff
            dropped.
        """
        cells = self.records.cells[rows]
        own = np.take_along_axis(weights, self.cells.dominant()[cells], axis=1)
        level, ids = levels(weights, own, self.cells.edges[cells]), self.records.ids[rows]
        checked = first(distances, level, ids, counts, int(TUNING.checked_first * size))
        mass = self.cells.largest_mass
        relevant = relevant_candidates(self.records, np.where(checked, rows, -1), certain, weights, cutoff, mass)
        short = np.flatnonzero(np.count_nonzero(relevant, axis=1) < size)
        rest = counts[short] & ~checked[short]
        if rest.any():
            more = np.where(rest, rows[short], -1)
            relevant[short] |= relevant_candidates(self.records, more, certain[short], weights[short], cutoff, mass)
            checked[short] |= rest
        chosen = first(distances, level, ids, relevant, size)
        nearest = np.full((len(rows), min(size, rows.shape[1])), -1, np.int64)
        query, place = np.nonzero(chosen)
        starts = np.searchsorted(query, np.arange(len(rows)))
        nearest[query, np.arange(len(query)) - starts[query]] = rows[query, place]
        return nearest, np.count_nonzero(checked & ~relevant, axis=1)
