"""Search the cells of one query in several threads, where it scans enough codes for this to pay.

The cells that pruning keeps are dealt out to as many parts as there are threads. Every part gives its candidates: the
first relevant records in the order of `tie_order`, as many as a shortlist has, or, without a shortlist, its k best
records. The first of all candidates are then the shortlist of the whole query, and the k best of the shortlist, or of
all candidates, are the answer: no record is among the first, or the best, of all cells that is not among those of its
own part.

Starting threads and joining the parts takes about a millisecond, so most queries are searched by one thread: see
`codes_alone`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.faiss_library import split_over_threads
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.scan_numba import CodeLists
from semcut.indexes.search.numba_arrays import (
    ANSWERED,
    NO_LIMIT,
    RANK_GIVEN,
    QueryArrays,
    ResultArrays,
    SearchSettings,
    result_arrays,
)
from semcut.indexes.search.tie_order import first, levels
from semcut.indexes.search_tuning import TUNING

Kernel = Callable[[SearchSettings, ResultArrays], None]
"""Searches for all queries with these settings, and fills the arrays."""


def codes_alone(shortlist: int | None, threads: int) -> int:
    """Return how many codes a query may scan in one thread before its cells are split over several.

    The candidates of all parts are joined in memory, so a long shortlist is searched by one.
    """
    if threads == 1 or (shortlist or 0) * threads > TUNING.joined_slots:
        return NO_LIMIT
    return TUNING.ranked_alone if shortlist is None else TUNING.scanned_alone


def search_in_parts(
    kernel: Kernel,
    settings: SearchSettings,
    queries: QueryArrays,
    k: int,
    parts: int,
    lists: CodeLists,
    cells: Cells,
    ids_and_cells: tuple[NDArray[np.int64], NDArray[np.int32]],
) -> tuple[SearchResult, NDArray[np.int64]]:
    """Answer a few queries, each by several threads.

    Args:
        kernel: searches for these queries.
        settings: the parameters of the search.
        queries: nq queries.
        k: the number of results.
        parts: the number of threads, at least 2.
        lists: the codes.
        cells: the cells of the index.
        ids_and_cells: of the records, by row: their ids, and the positions of their cells.

    Returns:
        The result, and for each query `ANSWERED` or why it is not answered.
    """
    count, width = len(queries.codes), k if settings.shortlist < 0 else settings.shortlist
    found = [SearchResult.allocated(count, k) for _ in range(parts)]
    reasons, near = np.empty((parts, count), np.int64), np.full((parts, count, width), -1, np.int32)

    def search_part(which: slice) -> None:
        for part in range(which.start, which.stop):
            own = settings._replace(most_codes=NO_LIMIT, part=part, parts=parts)
            kernel(own, result_arrays(found[part], reasons[part], near[part]))

    split_over_threads(search_part, parts, parts)
    candidates = near.swapaxes(0, 1).reshape(count, parts * width)
    if settings.shortlist >= 0:
        candidates[~_first(candidates, queries, width, lists, cells, *ids_and_cells)] = -1
    candidates = -np.sort(-candidates, axis=1)  # the kernel reads those before the first -1
    result, answered = SearchResult.allocated(count, k), np.empty(count, np.int64)
    kernel(settings._replace(parts=RANK_GIVEN), result_arrays(result, answered, candidates))
    for name in ("partitions", "cells", "codes"):
        getattr(result, name)[:] = getattr(found[0], name)
    result.cut_off[:] = np.sum([each.cut_off for each in found], axis=0)
    unanswered = reasons.max(axis=0)
    return result, np.where(unanswered == ANSWERED, answered, unanswered)


def _first(
    candidates: NDArray[np.int32],
    queries: QueryArrays,
    size: int,
    lists: CodeLists,
    cells: Cells,
    ids: NDArray[np.int64],
    cells_of: NDArray[np.int32],
) -> NDArray[np.bool_]:
    """Return which of the (nq, m) candidates are the first `size` of their query in the order of `tie_order`."""
    there = candidates >= 0
    query, at = np.nonzero(there)[0], candidates[there]
    row = lists.rows[at]
    cell = cells_of[row]

    def spread(values: NDArray[Any], dtype: type) -> NDArray[Any]:
        table: NDArray[Any] = np.zeros(candidates.shape, dtype)
        table[there] = values
        return table

    hamming = np.bitwise_count(lists.codes[at] ^ queries.codes[query]).sum(axis=1)
    own = spread(queries.weights[query, cells.dominant()[cell]], np.float64)
    level = levels(queries.weights, own, spread(cells.edges[cell], np.float64))
    return first(spread(hamming, np.int32), level, spread(ids[row], np.int64), there, size)
