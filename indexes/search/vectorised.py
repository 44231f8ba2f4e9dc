"""A search, step by step: prune, shortlist, cut off, re-rank.

    prune       `partitions`: cells whose bound does not exceed the cutoff are skipped, exactly
    shortlist   `hamming`: the engine gives the nearest records of the remaining cells by Hamming distance; `ties` says
                which of those at the last distance
    cut off     records with R <= t are dropped, one by one where the cell's lower bound does not settle it
    re-rank     `rerank`: exact distance or fused score of what is left

The cutoff is applied after the scan, so where too few of the nearest records are relevant the scan goes deeper, for
those queries only. When going deeper would mean to look at a good part of the kept cells anyway, or when no shortlist
is asked for, all their records are looked at instead. Either way the shortlist is that of the nearest *relevant*
records, never fewer than there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import SearchParams
from semcut.indexes.encodings import SUM_TOLERANCE, Encodings
from semcut.indexes.faiss_library import faiss
from semcut.indexes.index import SearchResult
from semcut.indexes.pruning.cells import Cells, Kept
from semcut.indexes.pruning.class_lists import Large
from semcut.indexes.scanners.protocol import Scanner
from semcut.indexes.scoring.equations import Similarity, hamming, is_relevant, relevance
from semcut.indexes.scoring.rounding import UNDERFLOW, error, inner_products
from semcut.indexes.search.rank import Distances, RecordReader, rank
from semcut.indexes.search.tie_order import first, levels

_CHUNK_ELEMENTS = 1 << 22
_LOOKED_AT = 1 << 20  # records of which all are looked at, at a time
_SPLIT = 64  # queries from which on a batch is split over threads, each of which runs every step for its part
_FIRST = 3  # places of the first scan per place of the shortlist, so that its last distance is mostly a whole one
_CHECKED = 1.5  # nearest records that are compared with the cutoff first, per place of the shortlist
_DEEPER = 4  # how much deeper a scan goes than one that has found too few relevant records
_WIDE = 256  # classes from which on rows of probabilities are read in part
_WORTH = 4  # records per place of a deeper scan, below which looking at all of them is cheaper


class VectorisedSearch:
    """Searches one state of an index; several threads may at once.

    Args:
        records: the records, by row.
        cells: the cells that they are in.
        engine: finds their rows.
        similarity: the S of the index.
        split: whether a large batch is split over threads.
        distances: see `rerank.rank`.
    """

    def __init__(
        self,
        records: RecordReader,
        cells: Cells,
        engine: Scanner,
        similarity: Similarity,
        *,
        split: bool = True,
        distances: Distances | None = None,
    ) -> None:
        self._records, self._cells, self._engine = records, cells, engine
        self._similarity, self._split, self._distances = similarity, split, distances

    def search(self, queries: Encodings, params: SearchParams, scored: bool) -> SearchResult:
        """The k best records for every query. There must be a query and a record.

        Args:
            queries: nq of them.
            params: what is asked for.
            scored: whether Eq. 4 applies (features are L2-normalised).
        """
        weights = self._similarity.weights(queries.probabilities)
        widest = max(len(self._cells), self._cells.config.classes, params.shortlist or 1, params.k)
        threads = faiss.omp_get_max_threads() if self._split and len(queries) >= _SPLIT else 1
        chunk = max(1, min(-(-len(queries) // threads), _CHUNK_ELEMENTS // widest))
        # Queries of one class scan the same cells: one after the other they find them in the processor's cache.
        order = np.argsort(weights.argmax(axis=1), kind="stable")

        def search(start: int) -> SearchResult:
            here = order[start : start + chunk]
            return self._chunk(queries[here], weights[here], params, scored)

        starts = range(0, len(queries), chunk)
        if threads == 1:
            parts = [search(start) for start in starts]
        else:
            with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
                parts = list(pool.map(search, starts))
        self._records.release_pages(rest=1 if len(queries) >= _SPLIT else 0)
        return SearchResult.concatenate(parts).in_order(np.argsort(order))

    def _chunk(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        records = self._records
        kept = self._cells.prune(weights, params.cutoff)
        cut_off = np.zeros(len(queries), np.int64)
        if params.shortlist is None:
            unfinished = np.arange(len(queries))
            result = SearchResult.empty(len(queries), params.k)
        else:
            rows, cut_off, unfinished = self._shortlist(queries, weights, kept, params.cutoff, params.shortlist)
            result = rank(queries, weights, records, rows, params, scored, self._distances)
        for some in _parts(unfinished, kept.codes[unfinished]):
            rows, cut_off[some] = self._relevant(queries.codes[some], weights[some], kept, some, params)
            found = rank(queries[some], weights[some], records, rows, params, scored, self._distances)
            result.put(some, found)
        result.partitions[:] = kept.partitions
        result.cells[:] = kept.counts
        result.codes[:] = kept.codes
        result.cut_off[:] = cut_off
        return result

    def _shortlist(
        self, queries: Encodings, weights: NDArray[np.float64], kept: Kept, cutoff: float, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The first relevant rows by the rule of `ties`, found by scans that go deeper where they must.

        A scan that is full may have left out records at its last distance, so those do not count.

        Returns:
            rows (nq, w) int64 with -1 between and behind them; dropped (nq,) int64; and the queries (n,) for which
            looking at all kept records is the better way, whose rows are all -1.
        """
        dropped, depth = np.zeros(len(queries), np.int64), min(_FIRST * size, self._engine.deepest)
        if depth < size:
            return np.full((len(queries), 1), -1, np.int64), dropped, np.arange(len(queries))
        shortlist = np.full((len(queries), size), -1, np.int64)
        exhaustive = [np.empty(0, np.int64)]
        tasks = [(np.arange(len(queries)), depth)]
        while tasks:
            asked, depth = tasks.pop()
            if len(asked) > 1 and len(asked) * depth > _CHUNK_ELEMENTS:
                half = len(asked) // 2
                tasks += [(asked[:half], depth), (asked[half:], depth)]
                continue
            rows, hamming = self._engine.search(queries.codes[asked], kept.cells[asked], depth)
            last = hamming[:, -1:] if self._patient(depth, size) else np.inf
            whole = (rows >= 0) & ((hamming < last) | (rows[:, -1:] < 0))
            settled = kept.certain[asked[:, None], self._records.cells[rows]]
            nearest, gone = self._nearest(rows, hamming, whole, settled, weights[asked], cutoff, size)
            done = (rows[:, -1] < 0) | (nearest[:, -1] >= 0)
            shortlist[asked[done]], dropped[asked[done]] = nearest[done], gone[done]
            asked, depth = asked[~done], depth * _DEEPER
            codes = kept.codes[asked]
            few = (codes >= 0) & (codes <= _WORTH * depth) | (depth > self._engine.deepest)
            exhaustive.append(asked[few])
            if not few.all():
                tasks.append((asked[~few], depth))
        return shortlist, dropped, np.concatenate(exhaustive)

    def _patient(self, depth: int, size: int) -> bool:
        """Whether a scan of this depth that leaves ties at the end of a shortlist open is followed by a deeper one."""
        if np.isinf(self._engine.patience):
            return True
        return depth < self._engine.patience * size and depth * _DEEPER <= self._engine.deepest

    def _nearest(
        self,
        rows: NDArray[np.int64],
        hamming: NDArray[np.int32],
        among: NDArray[np.bool_],
        settled: NDArray[np.bool_],
        weights: NDArray[np.float64],
        cutoff: float,
        size: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first relevant candidates of each query by the rule of `ties`.

        Args:
            rows: (nq, m) int64, -1 where there is none.
            hamming: (nq, m) int32, their distances.
            among: (nq, m) bool, which of them count.
            settled: (nq, m) bool, which are known to be relevant.
            weights: (nq, C) float64.
            cutoff: t of Eq. 2.
            size: how many to take at most.

        Returns:
            (nq, w) int64 rows, w no more than `size`, then -1; and (nq,) int64, how many were looked at and dropped.
        """
        cells = self._records.cells[rows]
        own = np.take_along_axis(weights, self._cells.dominant()[cells], axis=1)
        level, ids = levels(weights, own, self._cells.edges[cells]), self._records.ids[rows]
        checked = first(hamming, level, ids, among, int(_CHECKED * size))
        relevant = self._relevant_candidates(np.where(checked, rows, -1), settled, weights, cutoff)
        short = np.flatnonzero(np.count_nonzero(relevant, axis=1) < size)
        rest = among[short] & ~checked[short]
        if rest.any():
            more = np.where(rest, rows[short], -1)
            relevant[short] |= self._relevant_candidates(more, settled[short], weights[short], cutoff)
            checked[short] |= rest
        chosen = first(hamming, level, ids, relevant, size)
        nearest = np.full((len(rows), min(size, rows.shape[1])), -1, np.int64)
        query, place = np.nonzero(chosen)
        starts = np.searchsorted(query, np.arange(len(rows)))
        nearest[query, np.arange(len(query)) - starts[query]] = rows[query, place]
        return nearest, np.count_nonzero(checked & ~relevant, axis=1)

    def _relevant_candidates(
        self, rows: NDArray[np.int64], settled: NDArray[np.bool_], weights: NDArray[np.float64], cutoff: float
    ) -> NDArray[np.bool_]:
        """Which candidates exist and pass the cutoff of Eq. 2.

        Args:
            rows: (nq, m) int64, -1 where there is none.
            settled: (nq, m) bool; candidates that are known to pass.
            weights: (nq, C) float64.
        """
        present = rows >= 0
        relevant, unsettled = present & settled, present & ~settled
        probabilities, at = self._records.probabilities(np.where(unsettled, rows, -1))
        if probabilities.shape[1] >= _WIDE:
            query, place = np.nonzero(unsettled)
            passes, fails = _bounded(query, at[query, place], probabilities, weights, cutoff)
            relevant[query, place] = passes
            unsettled[query, place] = ~passes & ~fails
            at = np.where(unsettled, at, -1)
        if unsettled.any():
            r = inner_products(weights.astype(np.float32), probabilities, at)
            doubtful = np.abs(r - cutoff) <= cutoff * 2 * error(self._cells.config.classes) + UNDERFLOW
            relevant |= unsettled & (r > cutoff)
            query, place = np.nonzero(doubtful & unsettled)
            exact = relevance(weights[query], probabilities[at[query, place]])
            relevant[query, place] = is_relevant(exact, cutoff)
        return relevant

    def _relevant(
        self,
        codes: NDArray[np.uint8],
        weights: NDArray[np.float64],
        kept: Kept,
        asked: NDArray[np.int64],
        params: SearchParams,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All relevant rows of some queries, or the nearest of them, by looking at every record of the kept cells.

        Args:
            codes: (nq, bits / 8) uint8, of these queries, as the weights are.
            weights: (nq, C) float64.
            kept: what pruning has left of all queries.
            asked: (nq,) int64, which of them these are.
            params: with the cutoff and the size of the shortlist.

        Returns:
            rows (nq, m) int64 with -1 between and behind them, and (nq,) int64 how many records were dropped.
        """
        place = np.nonzero(kept.cells[asked] >= 0)
        cells = kept.cells[asked][place]
        found, which = self._engine.rows(cells)
        query, cell = place[0][which], cells[which]
        counts = np.bincount(query, minlength=len(asked))
        at = np.arange(len(query)) - (np.cumsum(counts) - counts)[query]
        rows = np.full((len(asked), int(counts.max(initial=1))), -1, np.int64)
        settled = np.zeros(rows.shape, bool)
        rows[query, at] = found
        settled[query, at] = kept.certain[asked[query], cell]
        if params.shortlist is not None:
            away = hamming(codes[:, None], self._records.codes[rows])
            return self._nearest(rows, away, rows >= 0, settled, weights, params.cutoff, params.shortlist)
        relevant = self._relevant_candidates(rows, settled, weights, params.cutoff)
        rows[~relevant] = -1
        return rows, counts - np.count_nonzero(relevant, axis=1)


def _bounded(
    query: NDArray[np.int64],
    at: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    weights: NDArray[np.float64],
    cutoff: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which (n,) pairs of a query and a row surely pass the cutoff, and which surely fail, from the large weights of
    queries that have few: that takes a few values of each row instead of all."""
    large, slack = Large.of(weights, cutoff), error(probabilities.shape[1])
    passes, fails = np.zeros(len(query), bool), np.zeros(len(query), bool)
    few = np.flatnonzero(large.few[query])
    query, at = query[few], at[few]
    least, mass = large.sums(query, at, probabilities)
    most = least + large.tails[query] * np.maximum(0, 1 + SUM_TOLERANCE - mass)
    passes[few] = least * (1 - slack) > cutoff + UNDERFLOW
    fails[few] = most * (1 + slack) + UNDERFLOW <= cutoff
    return passes, fails


def _parts(queries: NDArray[np.int64], codes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Queries with about as many codes to look at, as many together as there is room for; of unknown codes, one."""
    order = np.argsort(codes, kind="stable")
    end = len(order)
    while end:
        most = int(codes[order[end - 1]])
        count = max(1, min(end, _LOOKED_AT // max(1, most))) if most >= 0 else 1
        yield queries[order[end - count : end]]
        end -= count
