"""Numba kernel of a whole search, query by query: prune, scan, shortlist with the cutoff, rank.

`VectorisedSearch` does the same for a batch, step by step; `kernels/__init__` has a table of the steps. If the
kernel does not answer a query, it gives a reason:

    DOUBTFUL    a sum is so close to a border between two float32 values that the order of its terms could decide
    LARGE       the query scans more codes than one thread should, see `search.in_parts`
    UNCHECKED   the query needs a row whose block has not been compared with its checksum yet

`VectorisedSearch` answers queries of the first kind, `CompiledSearch` says what happens to the others.

**Deeper scans.** If too few records within a radius are relevant, the scan continues with the records between this
radius and a larger one, until the shortlist is full or all records were scanned.
"""

from __future__ import annotations

from typing import Any

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
from semcut.indexes.search.every_numba import keep_every, sort_by_level
from semcut.indexes.search.numba_arrays import (
    ANSWERED,
    LARGE,
    RANK_GIVEN,
    QueryArrays,
    RecordArrays,
    ResultArrays,
    SearchSettings,
)
from semcut.indexes.search.prune_numba import CellBounds, PruneWorkspace, large_weights, prune, prune_workspace
from semcut.indexes.search.rank_numba import Best, rank
from semcut.indexes.search.records_numba import weight_limits
from semcut.indexes.search.shortlist_numba import take_all, take_nearest
from semcut.indexes.search.tie_order import LEVELS
from semcut.indexes.search_tuning import TUNING

_FIRST_RADIUS, _DEEPER = TUNING.first_radius, TUNING.deeper
_STRETCHES = 8
"""How many stretches of cells a part of a query has."""


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
    scan = scan_workspace(0, cells, bits, LEVELS)
    near, keys = np.empty(0, np.int32), np.empty(0, np.uint64)
    kept = codes = partitions = runs = width = 0
    every = False  # whether the last query searched every record, so that the next one may have the same runs
    for query in range(queries.weights.shape[0]):
        weights = queries.weights[query]
        task = SearchSettings(
            queries.cutoffs[query], settings.shortlist, settings.slack, settings.ranking, settings.scored,
            settings.doubt, settings.mass, settings.only_above, settings.most_codes, settings.part, settings.parts,
        )  # fmt: skip
        _clear_result(query, found)
        large, tail = large_weights(weights, task.cutoff, pruned.large)
        if task.parts == RANK_GIVEN:
            classes, given = pruned.large[:large], found.near[query, : _filled(found.near[query])]
            limits = weight_limits(weights, classes, tail)
            found.reason[query] = rank(query, queries, task, classes, tail, limits, lists, rows, given, best, found)
            continue
        same, every = every and task.parts == 1, task.cutoff < 0
        same = same and every
        if not every:
            kept, codes, partitions = prune(weights, task.cutoff, task.slack, bounds, query, large, tail, pruned)
        elif not same:
            kept, codes, partitions = keep_every(bounds, query, pruned)
        found.partitions[query], found.cells[query], found.codes[query] = partitions, kept, codes
        if codes > task.most_codes and 2 * _largest(bounds.sizes, pruned.kept[:kept]) <= codes:
            found.reason[query] = LARGE
            continue
        if task.parts > 1:
            kept, codes = _keep_part(bounds.sizes, kept, codes, task.part, task.parts, pruned)
        if codes == 0:
            continue
        classes, chosen = pruned.large[:large], pruned.kept[:kept]
        limits = weight_limits(weights, classes, tail)
        size = codes if task.shortlist < 0 else min(task.shortlist, codes)
        if not same:
            runs, width = find_runs(chosen, lists, scan)
        if width > scan.places.shape[0]:
            scan = scan_workspace(width + width // 4, cells, bits, LEVELS)
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
                if every:
                    sort_by_level(weights, limits.largest, bounds, hits, pruned, scan)
                taken, cut_off, reason = take_nearest(
                    weights, task, classes, tail, limits, pruned, lists, rows, scan, hits, near[:size], keys, taken
                )
                dropped += cut_off
                if taken == size or reason != ANSWERED or radius == bits:
                    break
                above, wanted = radius, wanted * _DEEPER
        found.cut_off[query] = dropped
        if reason == ANSWERED and task.parts > 1 and task.shortlist >= 0:
            found.near[query, :taken] = near[:taken]
        elif reason == ANSWERED:
            reason = rank(query, queries, task, classes, tail, limits, lists, rows, near[:taken], best, found)
            if task.parts > 1 and reason == ANSWERED:
                taken = _filled(found.ids[query])
                found.near[query, :taken] = best.places[:taken]
        found.reason[query] = reason


@compiled
def _largest(sizes: NDArray[np.int64], cells: NDArray[np.int32]) -> int:
    """Return the number of records of the largest of some cells: a part of a query has whole cells."""
    largest = 0
    for cell in cells:
        largest = max(largest, sizes[cell])
    return largest


@compiled
def _keep_part(
    sizes: NDArray[np.int64], kept: int, codes: int, part: int, parts: int, workspace: PruneWorkspace
) -> tuple[int, int]:
    """Keep the cells of one part of a query. Each part has several stretches of neighbouring cells of every level.

    Args:
        sizes: (cells,) the number of records of each cell.
        kept, codes: the number of kept cells, and of their records.
        part, parts: which part, and the number of parts.
        workspace: its `kept`, `certain` and `levels` are limited to the part.

    Returns:
        The number of kept cells of the part, and of their records.
    """
    stretch, before, count, remaining = codes // (parts * _STRETCHES) + 1, 0, 0, 0
    for place in range(kept):
        cell = workspace.kept[place]
        size = sizes[cell]
        if (before // stretch) % parts == part:
            workspace.kept[count], workspace.levels[count] = cell, workspace.levels[place]
            workspace.certain[count] = workspace.certain[place]
            count += 1
            remaining += size
        before += size
    return count, remaining


@compiled
def _clear_result(query: int, found: ResultArrays) -> None:
    """Set the result of a query to empty slots, as `SearchResult.empty` does."""
    for place in range(found.ids.shape[1]):
        found.ids[query, place], found.hamming[query, place] = -1, -1
        found.distances[query, place] = np.inf
        found.relevance[query, place] = found.scores[query, place] = 0
    found.cut_off[query], found.reason[query] = 0, ANSWERED


@compiled
def _filled(slots: NDArray[Any]) -> int:
    """Return the number of slots before the first that is -1."""
    count = 0
    while count < slots.shape[0] and slots[count] >= 0:
        count += 1
    return count


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
