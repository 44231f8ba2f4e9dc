"""The whole search, compiled, of one query after the other: prune, scan, cut off, re-rank.

Each query that is not answered gets a reason instead, and is left to `pipeline`:

    DOUBTFUL    a sum lies so near to a border between two float32 values that the order of its terms could decide
    UNCHECKED   it needs rows whose blocks have not been compared with their checksums yet

**Deepening.** A query for which too few of the nearest records are relevant goes on with those between the radius and a
larger one, until it has enough or has seen all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexes.compiled.arrays import ANSWERED, DOUBTFUL, UNCHECKED, Found, Queries, Rows, Task
from indexes.compiled.bounds import Bounds, large_weights, prune, room_to_prune
from indexes.compiled.jit import compiled, kernel, prefetch_at
from indexes.compiled.rerank import ROUNDING, Best, most_relevant, rank, rounded_relevance
from indexes.compiled.scan import (
    Lists,
    Scan,
    find_hits,
    find_runs,
    radius_of,
    room_to_scan,
    take_sample,
)

_YES, _NO, _MAYBE = 0, 1, 2
_FIRST = 1.5  # records within the first radius per place of the shortlist
_DEEPER = 4
_AHEAD = 12  # candidates whose rows are asked for in advance
_ASKED = 16  # values of a row of probabilities,
_FEATURE = 128  # and of a feature, which are asked for


@kernel
def search(
    queries: Queries,
    task: Task,
    bounds: Bounds,
    lists: Lists,
    rows: Rows,
    bits: int,
    found: Found,
) -> None:
    """Answer queries: fill in `found`.

    Args:
        queries: what is looked for.
        task: what is asked for.
        bounds, lists, rows: the index.
        bits: length of a code.
        found: where answers go.
    """
    k = found.ids.shape[1]
    pruned = room_to_prune(bounds.sizes.shape[0], bounds.starts.shape[0] - 1)
    best = Best(np.empty(k, np.float32), np.empty(k, np.int64), np.empty(k, np.int32), np.empty(k, np.float32))
    cells = bounds.sizes.shape[0]
    scan = room_to_scan(0, cells, bits)
    near = np.empty(0, np.int32)
    for query in range(queries.weights.shape[0]):
        weights = queries.weights[query]
        _nothing(query, found)
        large, tail = large_weights(weights, task.cutoff, pruned.large)
        kept, codes, partitions = prune(weights, task.cutoff, task.slack, bounds, query, large, tail, pruned)
        found.partitions[query], found.cells[query], found.codes[query] = partitions, kept, codes
        if codes == 0:
            continue
        classes, chosen = pruned.large[:large], pruned.kept[:kept]
        size = codes if task.shortlist < 0 else min(task.shortlist, codes)
        runs, width = find_runs(chosen, lists, scan)
        if width > scan.places.shape[0]:
            scan = room_to_scan(width + width // 4, cells, bits)
            runs, width = find_runs(chosen, lists, scan)
        if size > near.shape[0]:
            near = np.empty(size, np.int32)
        taken = dropped = 0
        if size == codes:
            hits = _everything(chosen, lists, scan)
            taken, dropped, reason = _cut_off(
                weights, task, classes, tail, pruned.certain, lists, rows, scan, hits, near[:size], 0
            )
        else:
            code, wanted, above = queries.codes[query], int(size * _FIRST), -1
            step = take_sample(code, runs, width, wanted, lists, scan)
            while True:
                radius = radius_of(scan.histogram, step, wanted, above + 1)
                hits = find_hits(code, chosen, runs, width, above, radius, lists, scan)
                taken, gone, reason = _cut_off(
                    weights, task, classes, tail, pruned.certain, lists, rows, scan, hits, near[:size], taken
                )
                dropped += gone
                if taken == size or reason != ANSWERED or radius == bits:
                    break
                above, wanted = radius, wanted * _DEEPER
        found.cut_off[query] = dropped
        if reason == ANSWERED:
            reason = rank(query, queries, task, classes, tail, lists, rows, near[:taken], best, found)
        found.reason[query] = reason


@compiled
def _nothing(query: int, found: Found) -> None:
    """Make the answer to a query that of `SearchResult.empty`."""
    for place in range(found.ids.shape[1]):
        found.ids[query, place], found.hamming[query, place] = -1, -1
        found.distances[query, place] = np.inf
        found.relevance[query, place] = found.scores[query, place] = 0
    found.cut_off[query], found.reason[query] = 0, ANSWERED


@compiled
def _everything(cells: NDArray[np.int32], lists: Lists, scan: Scan) -> int:
    """Make all records of the cells hits, whatever their distance."""
    hits = 0
    for owner in range(cells.shape[0]):
        start = lists.starts[cells[owner]]
        for place in range(start, start + lists.sizes[cells[owner]]):
            scan.places[hits], scan.owners[hits], scan.ordered[hits] = place, owner, hits
            hits += 1
    return hits


@compiled
def _cut_off(
    weights: NDArray[np.float64],
    task: Task,
    classes: NDArray[np.int32],
    tail: float,
    certain: NDArray[np.bool_],
    lists: Lists,
    rows: Rows,
    scan: Scan,
    hits: int,
    near: NDArray[np.int32],
    taken: int,
) -> tuple[int, int, int]:
    """Take relevant hits, in order, until `near` is full; `taken` of its places are filled already.

    Returns:
        How many are filled then, how many hits were dropped, and a reason to give up.
    """
    dropped, asked = 0, classes[:_ASKED]
    columns = min(_FEATURE, rows.features.shape[1])
    for hit in range(-_AHEAD, hits):
        if hit + _AHEAD < hits:
            ahead = scan.ordered[hit + _AHEAD]
            if not certain[scan.owners[ahead]]:
                for m in asked:
                    prefetch_at(rows.probabilities, np.int64(lists.rows[scan.places[ahead]]), np.int64(m))
        if hit < 0:
            continue
        at = scan.ordered[hit]
        if not certain[scan.owners[at]]:
            row = lists.rows[scan.places[at]]
            if not rows.probabilities_compared[row >> rows.shift]:
                return taken, dropped, UNCHECKED
            answer = _is_relevant(weights, task, classes, tail, rows.probabilities[row])
            if answer == _MAYBE:
                return taken, dropped, DOUBTFUL
            if answer == _NO:
                dropped += 1
                continue
        near[taken] = scan.places[at]
        taken += 1
        for column in range(0, columns, 16):
            prefetch_at(rows.features, np.int64(lists.rows[scan.places[at]]), column)
        if taken == near.shape[0]:
            break
    return taken, dropped, ANSWERED


@compiled
def _is_relevant(
    weights: NDArray[np.float64],
    task: Task,
    classes: NDArray[np.int32],
    tail: float,
    probabilities: NDArray[np.float32],
) -> int:
    """Whether R is above the cutoff, both in float32; from the large weights alone where they decide it."""
    cutoff = np.float32(task.cutoff)
    rounding = (weights.shape[0] + 8) * ROUNDING * task.doubt
    part = 0.0
    for m in classes:
        part += weights[m] * np.float64(probabilities[m])
    if np.float32(part * (1 - rounding)) > cutoff:
        return _YES
    if np.float32(most_relevant(weights, classes, tail, probabilities) * (1 + rounding)) <= cutoff:
        return _NO
    least, most = rounded_relevance(weights, probabilities, task.doubt)
    if least > cutoff:
        return _YES
    return _NO if most <= cutoff else _MAYBE
