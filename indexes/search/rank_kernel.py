"""From the candidates of a query to its k best, compiled: exact distance, exact relevance, fused score.

Sums are bounded first: most candidates are worse than the k best so far by any order of their terms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import SUM_TOLERANCE
from semcut.indexes.kernels.jit import compiled, compiled_sum, prefetch_at
from semcut.indexes.pruning.bounds_kernel import dot
from semcut.indexes.scanners.scan_kernel import CodeLists, distance
from semcut.indexes.scoring.rounding import UNDERFLOW
from semcut.indexes.search.kernel_arrays import (
    ANSWERED,
    DOUBTFUL,
    UNCHECKED,
    QueryArrays,
    RecordArrays,
    ResultArrays,
    SearchSettings,
)

ROUNDING = 2.0**-51
"""What a sum of float64 loses at most per term, relatively."""
_ROWS_AHEAD = 2  # results whose probabilities are asked for in advance


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


@compiled
def rank(
    query: int,
    queries: QueryArrays,
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    lists: CodeLists,
    rows: RecordArrays,
    near: NDArray[np.int32],
    best: Best,
    found: ResultArrays,
) -> int:
    """Fill in the k best of the candidates in `near`; says why not, if it cannot."""
    weights, feature = queries.weights[query], queries.features[query]
    k, count, taken = best.cost.shape[0], 0, near.shape[0]
    rounding = (feature.shape[0] + 8) * ROUNDING * task.doubt
    roughness = (feature.shape[0] + 8) * 2.0**-23
    for candidate in range(taken):
        row = lists.rows[near[candidate]]
        if not rows.features_compared[row >> rows.shift]:
            return UNCHECKED
        if count == k:
            rough = np.float64(_rough_squared_distance(feature, rows.features[row]))
            least = np.float32(0)
            if np.isfinite(rough):
                least = np.float32(np.sqrt(max(0.0, rough * (1 - roughness) - UNDERFLOW)) * (1 - rounding))
            if not task.fused and least > best.cost[k - 1]:
                continue
        length = np.sqrt(_squared_distance(feature, rows.features[row]))
        nearest = np.float32(length * (1 - rounding))
        sure = nearest == np.float32(length * (1 + rounding))
        cost = nearest
        if task.fused:
            if not rows.probabilities_compared[row >> rows.shift]:
                return UNCHECKED
            most = most_relevant(weights, classes, tail, rows.probabilities[row])
            if count == k and -_score(np.float32(most * (1 + rounding)), nearest) > best.cost[k - 1]:
                continue
            smallest, r = rounded_relevance(weights, rows.probabilities[row], task.doubt)
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
        least, r = rounded_relevance(weights, rows.probabilities[row], task.doubt)
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
def most_relevant(
    weights: NDArray[np.float64], classes: NDArray[np.int32], tail: float, probabilities: NDArray[np.float32]
) -> float:
    """What R is at most, from the large weights alone."""
    part = mass = 0.0
    for m in classes:
        p = np.float64(probabilities[m])
        part += weights[m] * p
        mass += p
    return part + tail * max(0.0, 1 + SUM_TOLERANCE - mass)


@compiled
def rounded_relevance(
    weights: NDArray[np.float64], probabilities: NDArray[np.float32], doubt: float
) -> tuple[np.float32, np.float32]:
    """R in float32: the least and the most that a sum of its terms in some order can come to. They are hardly ever
    different."""
    rounding = (weights.shape[0] + 8) * ROUNDING * doubt
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
