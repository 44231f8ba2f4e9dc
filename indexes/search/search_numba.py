"""Numba kernel of a whole search, query by query: prune, scan, shortlist with the cutoff, rank.

`VectorisedSearch` does the same for a batch, step by step; `kernels/__init__` has a table of the steps. If the
kernel cannot answer a query, it gives a reason, and `VectorisedSearch` answers the query:

    DOUBTFUL    a sum is so close to a border between two float32 values that the order of its terms could decide
    UNCHECKED   the query needs a row whose block has not been compared with its checksum yet

**Deeper scans.** If too few records within a radius are relevant, the scan continues with the records between this
radius and a larger one, until the shortlist is full or all records were scanned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, kernel
from semcut.indexes.scanners.scan_numba import (
    CodeLists,
    ScanWorkspace,
    find_hits,
    find_runs,
    radius_of,
    scan_workspace,
    take_sample,
)
from semcut.indexes.search.numba_arrays import ANSWERED, QueryArrays, RecordArrays, ResultArrays, SearchSettings
from semcut.indexes.search.prune_numba import CellBounds, large_weights, prune, prune_workspace
from semcut.indexes.search.rank_numba import Best, rank
from semcut.indexes.search.records_numba import weight_limits
from semcut.indexes.search.shortlist_numba import take_all, take_nearest
from semcut.indexes.search_tuning import TUNING

_FIRST_RADIUS, _DEEPER = TUNING.first_radius, TUNING.deeper


@kernel
def search(
    queries: QueryArrays,
    settings: SearchSettings,
    bounds: CellBounds,
    lists: CodeLists,
    rows: RecordArrays,
    bits: int,
    found: ResultArrays,
) -> None:
    """Answer a batch of queries.

    Args:
        queries: the batch.
        settings: the parameters of the search.
        bounds: the bounds of the cells.
        lists: the codes.
        rows: the records.
        bits: length of a code.
        found: the result; its `reason` says for each query whether it is answered.
    """
    k = found.ids.shape[1]
    pruned = prune_workspace(bounds.sizes.shape[0], bounds.starts.shape[0] - 1)
    best = Best(np.empty(k, np.float32), np.empty(k, np.int64), np.empty(k, np.int32), np.empty(k, np.float32))
    cells = bounds.sizes.shape[0]
    scan = scan_workspace(0, cells, bits)
    near, keys = np.empty(0, np.int32), np.empty(0, np.uint64)
    for query in range(queries.weights.shape[0]):
        weights = queries.weights[query]
        task = SearchSettings(
            queries.cutoffs[query], settings.shortlist, settings.slack, settings.ranking, settings.scored,
            settings.doubt, settings.mass, settings.only_above,
        )  # fmt: skip
        _clear_result(query, found)
        large, tail = large_weights(weights, task.cutoff, pruned.large)
        kept, codes, partitions = prune(weights, task.cutoff, task.slack, bounds, query, large, tail, pruned)
        found.partitions[query], found.cells[query], found.codes[query] = partitions, kept, codes
        if codes == 0:
            continue
        classes, chosen = pruned.large[:large], pruned.kept[:kept]
        limits = weight_limits(weights, classes, tail)
        size = codes if task.shortlist < 0 else min(task.shortlist, codes)
        runs, width = find_runs(chosen, lists, scan)
        if width > scan.places.shape[0]:
            scan = scan_workspace(width + width // 4, cells, bits)
            runs, width = find_runs(chosen, lists, scan)
        if size > near.shape[0]:
            near, keys = np.empty(size, np.int32), np.empty(size, np.uint64)
        taken = dropped = 0
        if size == codes:
            hits = _all_as_hits(chosen, lists, scan)
            taken, dropped, reason = take_all(
                weights, task, classes, tail, limits, pruned.certain, lists, rows, scan, 0, hits, near[:size], 0
            )
        else:
            code, wanted, above = queries.codes[query], int(size * _FIRST_RADIUS), -1
            step = take_sample(code, runs, width, wanted, lists, scan)
            while True:
                radius = radius_of(scan.histogram, step, wanted, above + 1)
                hits = find_hits(code, chosen, runs, width, above, radius, lists, scan)
                taken, cut_off, reason = take_nearest(
                    weights, task, classes, tail, limits, pruned, lists, rows, scan, hits, near[:size], keys, taken
                )
                dropped += cut_off
                if taken == size or reason != ANSWERED or radius == bits:
                    break
                above, wanted = radius, wanted * _DEEPER
        found.cut_off[query] = dropped
        if reason == ANSWERED:
            reason = rank(query, queries, task, classes, tail, limits, lists, rows, near[:taken], best, found)
        found.reason[query] = reason


@compiled
def _clear_result(query: int, found: ResultArrays) -> None:
    """Set the result of a query to empty slots, as `SearchResult.empty` does."""
    for place in range(found.ids.shape[1]):
        found.ids[query, place], found.hamming[query, place] = -1, -1
        found.distances[query, place] = np.inf
        found.relevance[query, place] = found.scores[query, place] = 0
    found.cut_off[query], found.reason[query] = 0, ANSWERED


@compiled
def _all_as_hits(cells: NDArray[np.int32], lists: CodeLists, scan: ScanWorkspace) -> int:
    """Make all records of the cells hits, at any distance; return the number of hits."""
    hits = 0
    for owner in range(cells.shape[0]):
        start = lists.starts[cells[owner]]
        for place in range(start, start + lists.sizes[cells[owner]]):
            scan.places[hits], scan.owners[hits], scan.ordered[hits] = place, owner, hits
            hits += 1
    return hits
