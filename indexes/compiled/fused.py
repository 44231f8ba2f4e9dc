"""The whole search, compiled, of one query after the other: prune, scan, cut off, re-rank.

Each query that is not answered gets a reason instead, and is left to `pipeline`:

    DOUBTFUL    a sum lies so near to a border between two float32 values that the order of its terms could decide
    UNCHECKED   it needs rows whose blocks have not been compared with their checksums yet

**Deepening.** A query for which too few of the nearest records are relevant goes on with those between the radius and a
larger one, until it has enough or has seen all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexes.compiled.bounds import Bounds, dot, large_weights, prune, room_to_prune
from indexes.compiled.jit import compiled, compiled_sum, kernel, prefetch_at
from indexes.compiled.scan import (
    Lists,
    Scan,
    distance,
    find_hits,
    find_runs,
    radius_of,
    room_to_scan,
    take_sample,
)
from indexes.encodings import SUM_TOLERANCE

ANSWERED, DOUBTFUL, UNCHECKED = 0, 1, 2

_YES, _NO, _MAYBE = 0, 1, 2
_FIRST = 1.5  # records within the first radius per place of the shortlist
_DEEPER = 4
_AHEAD = 12  # candidates whose rows are asked for in advance
_ASKED = 16  # values of a row of probabilities,
_LINES = 8  # and lines of a feature, of 16 values each, which are asked for
_ROWS_AHEAD = 2  # results whose probabilities are asked for in advance
_ROUNDING = 2.0**-51


class Rows(NamedTuple):
    """The columns that a search reads by row.

    Attributes:
        ids: (n,) int64.
        probabilities: (n, C) float32.
        features: (n, D) float32.
        shift: a row is in block row >> shift.
        probabilities_compared: (blocks,) bool: whether a block has been compared with its checksum.
        features_compared: (blocks,) bool.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    shift: int
    probabilities_compared: NDArray[np.bool_]
    features_compared: NDArray[np.bool_]


class Queries(NamedTuple):
    """nq queries.

    Attributes:

        codes: (nq, words) uint64.
        weights: (nq, C) float64, s = S p.
        features: (nq, D) float32.
    """

    codes: NDArray[np.uint64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]


class Task(NamedTuple):
    """What is asked for.

    Attributes:
        cutoff: t of Eq. 2.
        shortlist: how many of the nearest relevant records are ranked; -1 for all relevant ones.
        slack: error bound of `compare` for C terms.
        fused: whether to rank by Eq. 4.
        scored: whether Eq. 4 applies.
        doubt: by how much more than necessary sums are distrusted: 1.
    """

    cutoff: float
    shortlist: int
    slack: float
    fused: bool
    scored: bool
    doubt: float


class Found(NamedTuple):
    """The arrays of a `SearchResult`, and a reason (nq,) int8 for each query."""

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    partitions: NDArray[np.int64]
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    cut_off: NDArray[np.int64]
    reason: NDArray[np.int8]


class Best(NamedTuple):
    """The best candidates of a query so far, in order.

    Attributes:
        cost: (k,) float32, what is ranked by.
        ids: (k,) int64.
        places: (k,) int32, where their codes are.
        distances: (k,) float32.
    """

    cost: NDArray[np.float32]
    ids: NDArray[np.int64]
    places: NDArray[np.int32]
    distances: NDArray[np.float32]


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
    """Answer queries: fill in `found`, which holds an empty result.

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
            reason = _rank(query, queries, task, classes, tail, lists, rows, near[:taken], best, found)
        found.reason[query] = reason


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
    dropped = 0
    for hit in range(-_AHEAD, hits):
        if hit + _AHEAD < hits:
            ahead = scan.ordered[hit + _AHEAD]
            if not certain[scan.owners[ahead]]:
                for m in classes[:_ASKED]:
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
        for column in range(0, min(_LINES * 16, rows.features.shape[1]), 16):
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
    rounding = (weights.shape[0] + 8) * _ROUNDING * task.doubt
    part = 0.0
    for m in classes:
        part += weights[m] * np.float64(probabilities[m])
    if np.float32(part * (1 - rounding)) > cutoff:
        return _YES
    if np.float32(_most(weights, classes, tail, probabilities) * (1 + rounding)) <= cutoff:
        return _NO
    least, most = _relevance(weights, probabilities, task.doubt)
    if least > cutoff:
        return _YES
    return _NO if most <= cutoff else _MAYBE


@compiled
def _rank(
    query: int,
    queries: Queries,
    task: Task,
    classes: NDArray[np.int32],
    tail: float,
    lists: Lists,
    rows: Rows,
    near: NDArray[np.int32],
    best: Best,
    found: Found,
) -> int:
    """Fill in the k best of the candidates in `near`; says why not, if it cannot."""
    weights, feature = queries.weights[query], queries.features[query]
    k, count, taken = best.cost.shape[0], 0, near.shape[0]
    rounding = (feature.shape[0] + 8) * _ROUNDING * task.doubt
    roughness = (feature.shape[0] + 8) * 2.0**-23
    for candidate in range(taken):
        row = lists.rows[near[candidate]]
        if not rows.features_compared[row >> rows.shift]:
            return UNCHECKED
        if count == k:
            rough = np.float64(_rough_squared_distance(feature, rows.features[row]))
            least = (
                np.float32(np.sqrt(rough * (1 - roughness)) * (1 - rounding)) if np.isfinite(rough) else np.float32(0)
            )
            if not task.fused and least > best.cost[k - 1]:
                continue
        length = np.sqrt(_squared_distance(feature, rows.features[row]))
        nearest = np.float32(length * (1 - rounding))
        sure = nearest == np.float32(length * (1 + rounding))
        cost = nearest
        if task.fused:
            if not rows.probabilities_compared[row >> rows.shift]:
                return UNCHECKED
            most = _most(weights, classes, tail, rows.probabilities[row])
            if count == k and -_score(np.float32(most * (1 + rounding)), nearest) > best.cost[k - 1]:
                continue
            smallest, r = _relevance(weights, rows.probabilities[row], task.doubt)
            sure &= smallest == r
            cost = -_score(r, nearest)  # the lowest that it can be
        if count == k and cost > best.cost[k - 1]:
            continue
        if not sure:
            return DOUBTFUL
        count = _insert(best, count, cost, rows.ids[row], near[candidate], nearest)
    for place in range(-_ROWS_AHEAD, count):
        if place + _ROWS_AHEAD < count:
            ahead = np.int64(lists.rows[best.places[place + _ROWS_AHEAD]])
            for column in range(0, weights.shape[0], 16):
                prefetch_at(rows.probabilities, ahead, column)
        if place < 0:
            continue
        at = best.places[place]
        row = lists.rows[at]
        if not rows.probabilities_compared[row >> rows.shift]:
            return UNCHECKED
        least, r = _relevance(weights, rows.probabilities[row], task.doubt)
        if least != r:
            return DOUBTFUL
        found.ids[query, place] = best.ids[place]
        found.distances[query, place] = best.distances[place]
        found.relevance[query, place] = r
        found.scores[query, place] = _score(r, best.distances[place]) if task.scored else np.float32(np.nan)
        found.hamming[query, place] = np.int32(distance(lists.codes, at, queries.codes[query]))
    return ANSWERED


@compiled
def _insert(best: Best, count: int, cost: np.float32, number: int, at: int, length: np.float32) -> int:
    """Put a candidate where it belongs among the best, by cost and then id; says how many there are then."""
    k = len(best.cost)
    place = min(count, k - 1)
    if count == k and (cost, number) > (best.cost[place], best.ids[place]):
        return count
    while place > 0 and (cost, number) < (best.cost[place - 1], best.ids[place - 1]):
        best.cost[place], best.ids[place] = best.cost[place - 1], best.ids[place - 1]
        best.places[place], best.distances[place] = best.places[place - 1], best.distances[place - 1]
        place -= 1
    best.cost[place], best.ids[place], best.places[place], best.distances[place] = cost, number, at, length
    return min(count + 1, k)


@compiled
def _most(
    weights: NDArray[np.float64], classes: NDArray[np.int32], tail: float, probabilities: NDArray[np.float32]
) -> float:
    """What R is at most, from the large weights alone."""
    part = mass = 0.0
    for m in classes:
        p = np.float64(probabilities[m])
        part += weights[m] * p
        mass += p
    return part + tail * max(0.0, 1 + 2 * SUM_TOLERANCE - mass)


@compiled
def _relevance(
    weights: NDArray[np.float64], probabilities: NDArray[np.float32], doubt: float
) -> tuple[np.float32, np.float32]:
    """R in float32: the least and the most that a sum of its terms in some order can come to. They are hardly ever
    different."""
    rounding = (weights.shape[0] + 8) * _ROUNDING * doubt
    whole = dot(weights, probabilities)
    return np.float32(whole * (1 - rounding)), np.float32(whole * (1 + rounding))


@compiled
def _score(r: np.float32, length: np.float32) -> np.float32:
    """Eq. 4, as `relevance.fused_score` has it."""
    return np.float32(np.float64(r) * (1 - min(np.float64(length) / 2, 1.0)))


@compiled_sum
def _squared_distance(query: NDArray[np.float32], feature: NDArray[np.float32]) -> float:
    total = 0.0
    for column in range(query.shape[0]):
        difference = np.float64(query[column]) - np.float64(feature[column])
        total += difference * difference
    return total


@compiled_sum
def _rough_squared_distance(query: NDArray[np.float32], feature: NDArray[np.float32]) -> np.float32:
    total = np.float32(0)
    for column in range(query.shape[0]):
        difference = query[column] - feature[column]
        total += difference * difference
    return total
