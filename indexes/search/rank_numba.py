"""Numba kernel of the last step: from the shortlist of a query to its k best records, by distance or fused score.

Each candidate is first compared by a bound that is cheap to compute. The bound shows for most candidates that they are
worse than the k best so far, in whatever order the terms of their sums are added.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled
from semcut.indexes.scanners.distances_numba import hamming
from semcut.indexes.scanners.scan_numba import CodeLists
from semcut.indexes.scoring.equations_numba import fused_score
from semcut.indexes.scoring.rounding import SUM_ERROR, UNDERFLOW
from semcut.indexes.search.numba_arrays import (
    ANSWERED,
    BY_DISTANCE,
    BY_RELEVANCE,
    BY_SCORE,
    DOUBTFUL,
    UNCHECKED,
    QueryArrays,
    RecordArrays,
    ResultArrays,
    SearchSettings,
)
from semcut.indexes.search.records_numba import (
    WeightLimits,
    feature_distance,
    largest_relevance,
    prefetch_all_probabilities,
    rough_feature_distance,
    rounded_relevance,
)

_ROWS_AHEAD = 2
"""How many results ahead probabilities are prefetched."""


class Best(NamedTuple):
    """The best candidates of a query so far, by cost, then distance if they are ranked by R, then id.

    Attributes:
        cost: (k,) float32, the distance, or minus the fused score, or minus R.
        ids: (k,) int64.
        places: (k,) int32, the positions of their codes.
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
    limits: WeightLimits,
    lists: CodeLists,
    rows: RecordArrays,
    near: NDArray[np.int32],
    best: Best,
    found: ResultArrays,
) -> int:
    """Find the k best candidates of a query, and write them to the result.

    Args:
        query: the position of the query in the batch.
        queries: the batch.
        task: the parameters of the search.
        classes, tail: the classes of the query's large weights, and the largest of the other weights.
        limits: the limits of the query's weights.
        lists: the codes, with the row of each.
        rows: the records.
        near: the candidates, as positions in `lists`.
        best: buffers for the k best candidates.
        found: the result.

    Returns:
        `ANSWERED`, or the reason why the query is not answered.
    """
    weights, feature = queries.weights[query], queries.features[query]
    k, count, taken = best.cost.shape[0], 0, near.shape[0]
    rounding = (feature.shape[0] + 8) * SUM_ERROR * task.doubt
    relevance_rounding = (weights.shape[0] + 8) * SUM_ERROR * task.doubt
    rough_error = (feature.shape[0] + 8) * 2.0**-23
    largest = np.float32(-task.cutoff) if task.only_above else np.float32(np.inf)
    for candidate in range(taken):
        row = lists.rows[near[candidate]]
        limit = best.cost[k - 1] if count == k else largest
        most, r = np.float64(0), np.float32(0)
        sure = True
        if task.ranking != BY_DISTANCE:
            if not rows.probabilities_compared[row >> rows.shift]:
                return UNCHECKED + int(row)
            most = largest_relevance(weights, classes, tail, limits, task.mass, rows, row) * (1 + relevance_rounding)
            if -np.float32(most) > limit:  # no score is above R
                continue
        if task.ranking == BY_RELEVANCE:
            smallest, r = rounded_relevance(weights, rows, row, task.doubt)
            if -r > limit:
                continue
            sure = smallest == r
        if not rows.features_compared[row >> rows.shift]:
            return UNCHECKED + int(row)
        if limit < np.inf and task.ranking != BY_RELEVANCE:
            rough = np.float64(rough_feature_distance(feature, rows, row))
            least = np.float32(0)
            if np.isfinite(rough):
                least = np.float32(np.sqrt(max(0.0, rough * (1 - rough_error) - UNDERFLOW)) * (1 - rounding))
            if (-fused_score(np.float32(most), least) if task.ranking == BY_SCORE else least) > limit:
                continue
        length = np.sqrt(feature_distance(feature, rows, row))
        nearest = np.float32(length * (1 - rounding))
        sure &= nearest == np.float32(length * (1 + rounding))
        cost = -r if task.ranking == BY_RELEVANCE else nearest
        if task.ranking == BY_SCORE:
            if -fused_score(np.float32(most), nearest) > limit:
                continue
            smallest, r = rounded_relevance(weights, rows, row, task.doubt)
            sure &= smallest == r
            cost = -fused_score(r, nearest)  # the lowest cost that rounding allows
        if cost > limit:
            continue
        if not sure:
            return DOUBTFUL
        count = _insert(best, count, cost, rows.ids[row], near[candidate], nearest, task.ranking)
    for place in range(-_ROWS_AHEAD, count):
        if place + _ROWS_AHEAD < count:
            prefetch_all_probabilities(rows, lists.rows[best.places[place + _ROWS_AHEAD]])
        if place < 0:
            continue
        at = best.places[place]
        row = lists.rows[at]
        if not rows.probabilities_compared[row >> rows.shift]:
            return UNCHECKED + int(row)
        least, r = rounded_relevance(weights, rows, row, task.doubt)
        if least != r:
            return DOUBTFUL
        found.ids[query, place] = best.ids[place]
        found.distances[query, place] = best.distances[place]
        found.relevance[query, place] = r
        found.scores[query, place] = fused_score(r, best.distances[place]) if task.scored else np.float32(np.nan)
        found.hamming[query, place] = np.int32(hamming(lists.codes, at, queries.codes[query]))
    return ANSWERED


@compiled
def _before(cost: np.float32, length: np.float32, number: int, ranking: int, best: Best, place: int) -> bool:
    """Return whether a candidate comes before the one at a place of the best."""
    if cost != best.cost[place]:
        return bool(cost < best.cost[place])
    if ranking == BY_RELEVANCE and length != best.distances[place]:
        return bool(length < best.distances[place])
    return bool(number < best.ids[place])


@compiled
def _insert(best: Best, count: int, cost: np.float32, number: int, at: int, length: np.float32, ranking: int) -> int:
    """Insert a candidate among the best in their order; return the new number of candidates."""
    k = len(best.cost)
    place = min(count, k - 1)
    if count == k and not _before(cost, length, number, ranking, best, place):
        return count
    while place > 0 and _before(cost, length, number, ranking, best, place - 1):
        best.cost[place], best.ids[place] = best.cost[place - 1], best.ids[place - 1]
        best.places[place], best.distances[place] = best.places[place - 1], best.distances[place - 1]
        place -= 1
    best.cost[place], best.ids[place], best.places[place], best.distances[place] = cost, number, at, length
    return min(count + 1, k)
