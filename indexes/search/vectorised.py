"""`VectorisedSearch`: a search step by step, each step for all queries of a chunk with numpy, with any scanner.

    prune       `pruning.cells`: cells whose bound does not exceed the cutoff are skipped, exactly
    shortlist   `search.shortlist`: the scanner returns records of the other cells, nearest first
    cut off     `search.cutoff`: records with R <= t are dropped
    rank        `search.rank`: the k best of the remaining records, by exact distance or fused score

`search.compiled` does the same query by query in one kernel, and leaves queries that it cannot decide to this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.faiss_library import single_threaded_pool, thread_count
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.protocol import Scanner
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.rank import Distances, RecordReader, rank
from semcut.indexes.search.shortlist import Shortlister
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams
from semcut.indexes.search_tuning import TUNING


class VectorisedSearch:
    """Searches one state of an index; several threads may search at the same time.

    Args:
        records: the records, by row.
        cells: the cells of the index.
        scanner: finds rows by their codes.
        similarity: the S of the index.
        split: whether a large batch is split over threads.
        distances: computes squared distances instead of the CPU, see `search.rank`.
    """

    def __init__(
        self,
        records: RecordReader,
        cells: Cells,
        scanner: Scanner,
        similarity: Similarity,
        *,
        split: bool = True,
        distances: Distances | None = None,
    ) -> None:
        self._records, self._cells, self._scanner = records, cells, scanner
        self._similarity, self._split, self._distances = similarity, split, distances

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        scored: bool,
        cutoffs: NDArray[np.float64],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Find the k best relevant records for every query. There must be at least one query and one record.

        Args:
            queries: nq queries.
            params: k, shortlist and ranking.
            scored: whether Eq. 4 applies (features are L2-normalised).
            cutoffs: (nq,) float64, t of Eq. 2 for each query; see `search.beyond_cutoff`, which calls this.
            trace: collects times and counts; the search then runs in one thread.
        """
        result = self.answer(queries, params, scored, cutoffs, trace)
        self._records.release_pages(min_interval=1 if len(queries) >= TUNING.split_vectorised else 0)
        return result

    def answer(
        self,
        queries: Encodings,
        params: SearchParams,
        scored: bool,
        cutoffs: NDArray[np.float64],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Find the k best records as `search` does, but leave it to the caller to release mapped pages."""
        if (cutoffs == cutoffs[0]).all():
            return self._answer(queries, params, scored, float(cutoffs[0]), trace)
        result = SearchResult.allocated(len(queries), params.k)
        for cutoff in np.unique(cutoffs).tolist():
            same = np.flatnonzero(cutoffs == cutoff)
            result.put(same, self._answer(queries[same], params, scored, cutoff, trace))
        return result

    def _answer(
        self, queries: Encodings, params: SearchParams, scored: bool, cutoff: float, trace: SearchTrace | None
    ) -> SearchResult:
        """Answer queries that have the same cutoff."""
        weights = self._similarity.weights(queries.probabilities)
        widest = max(len(self._cells), self._cells.config.classes, params.shortlist or 1, params.k)
        split = self._split and trace is None and len(queries) >= TUNING.split_vectorised
        threads = thread_count() if split else 1
        chunk = max(1, min(-(-len(queries) // threads), TUNING.chunk_elements // widest))
        # Queries of one class scan the same cells, which are then in the processor's cache.
        order = np.argsort(weights.argmax(axis=1), kind="stable")

        def search(start: int) -> SearchResult:
            here = order[start : start + chunk]
            return self._chunk(queries[here], weights[here], params, scored, cutoff, trace)

        starts = range(0, len(queries), chunk)
        if threads == 1:
            parts = [search(start) for start in starts]
        else:
            with single_threaded_pool(threads) as pool:
                parts = list(pool.map(search, starts))
        return SearchResult.concatenate(parts).in_order(np.argsort(order))

    @np.errstate(over="ignore", invalid="ignore")  # values of a forged index may be infinite or NaN, and so are results
    def _chunk(
        self,
        queries: Encodings,
        weights: NDArray[np.float64],
        params: SearchParams,
        scored: bool,
        cutoff: float,
        trace: SearchTrace | None,
    ) -> SearchResult:
        """Search for one chunk of queries, whose number `TUNING.chunk_elements` limits."""
        records, size = self._records, params.shortlist
        step = nullcontext if trace is None else trace.step
        with step("prune"):
            kept = self._cells.prune(weights, cutoff)
        shortlister = Shortlister(records, self._cells, self._scanner, trace)
        cut_off = np.zeros(len(queries), np.int64)
        if size is None:
            unfinished = np.arange(len(queries))
            result = SearchResult.empty(len(queries), params.k)
        else:
            with step("shortlist"):
                rows, cut_off, unfinished = shortlister.by_scanning(queries.codes, weights, kept, cutoff, size)
            with step("rank"):
                result = rank(queries, weights, records, rows, params, scored, self._distances)
        for some in _parts(unfinished, kept.codes[unfinished]):
            with step("shortlist"):
                rows, cut_off[some] = shortlister.from_all(queries.codes[some], weights[some], kept, some, cutoff, size)
            with step("rank"):
                found = rank(queries[some], weights[some], records, rows, params, scored, self._distances)
            result.put(some, found)
        result.partitions[:] = kept.partitions
        result.cells[:] = kept.counts
        result.codes[:] = kept.codes
        result.cut_off[:] = cut_off
        if trace is not None:
            for name in ("partitions", "cells", "codes", "cut_off"):
                trace.count(name, np.maximum(getattr(result, name), 0).sum())
        return result


def _parts(queries: NDArray[np.int64], codes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield groups of queries whose kept cells have about the same number of codes.

    A group of several queries has `TUNING.rows_at_once` codes at most. A query whose number of codes is unknown (-1) is
    alone in its group.
    """
    order = np.argsort(codes, kind="stable")
    end = len(order)
    while end:
        most = int(codes[order[end - 1]])
        count = max(1, min(end, TUNING.rows_at_once // max(1, most))) if most >= 0 else 1
        yield queries[order[end - count : end]]
        end -= count
