"""Numba kernels that make a shortlist from the hits of a scan: the first relevant records in the order of `tie_order`.

Hits are sorted by distance, and hits of the same distance by level, since cells are scanned in the order of their
levels. A *tie* is all hits with the same distance and level. All relevant hits of a tie are taken if the shortlist has
a free slot for each hit; from the first tie that does not fit, records are chosen by their mixed ids.

`take_all` and `_take_smallest_ids` contain the same check against the cutoff: as a function of its own, which gets the
arrays as arguments, it makes searches 3 to 4 % slower.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, compiled_inline, prefetch
from semcut.indexes.scanners.scan_numba import CodeLists, ScanWorkspace
from semcut.indexes.scoring.equations_numba import relevance_bound
from semcut.indexes.scoring.rounding import SUM_ERROR
from semcut.indexes.search.numba_arrays import ANSWERED, DOUBTFUL, UNCHECKED, RecordArrays, SearchSettings
from semcut.indexes.search.prune_numba import PruneWorkspace
from semcut.indexes.search.records_numba import (
    WeightLimits,
    compare_packed,
    prefetch_feature,
    prefetch_probabilities,
    rounded_relevance,
)
from semcut.indexes.search.tie_order_numba import mixed, push, replace_top

_YES, _NO, _MAYBE = 0, 1, 2
_AHEAD = 12
"""How many hits ahead probabilities are prefetched."""
_IDS_AHEAD = 32
"""How many hits of a tie ahead ids are prefetched."""
_PREFETCHED_CLASSES = 16
"""The largest number of a query's large weights for which probabilities are prefetched."""


@compiled
def take_nearest(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    limits: WeightLimits,
    pruned: PruneWorkspace,
    lists: CodeLists,
    rows: RecordArrays,
    scan: ScanWorkspace,
    hits: int,
    near: NDArray[np.int32],
    keys: NDArray[np.uint64],
    taken: int,
) -> tuple[int, int, int]:
    """Take the first relevant hits in the order of `tie_order`, until the shortlist is full.

    Args:
        weights: (C,) s of the query.
        task: the parameters of the search.
        classes, tail: the classes of the query's large weights, and the largest of the other weights.
        limits: the limits of the query's weights.
        pruned: `certain` and `levels` of the query's cells.
        lists: the codes, with the row of each.
        rows: the records.
        scan: the hits.
        hits: the number of hits.
        near: (size,) the shortlist: positions in `lists`.
        keys: (size,) a buffer for mixed ids.
        taken: the number of slots of `near` that are filled already.

    Returns:
        The new number of filled slots, the number of hits that the cutoff dropped, and `ANSWERED` or the reason why the
        query is not answered.
    """
    dropped, reason, begin = 0, ANSWERED, 0
    while begin < hits and taken < near.shape[0] and reason == ANSWERED:
        end = _end_of_ties(begin, hits, near.shape[0] - taken, pruned.levels, scan.ordered, scan.near, scan.owners)
        if end - begin <= near.shape[0] - taken:
            taken, cut_off, reason = take_all(
                weights, task, classes, tail, limits, pruned.certain, lists, rows, scan, begin, end, near, taken
            )
        else:
            taken, cut_off, reason = _take_smallest_ids(
                weights, task, classes, tail, limits, pruned.certain, lists, rows, scan, begin, end, near, keys, taken
            )
        dropped, begin = dropped + cut_off, end
    return taken, dropped, reason


@compiled
def _end_of_ties(
    begin: int,
    hits: int,
    free: int,
    levels: NDArray[np.int8],
    ordered: NDArray[np.int32],
    distances: NDArray[np.uint16],
    owners: NDArray[np.int32],
) -> int:
    """Find the end of the whole ties that have at most `free` hits together, or of the first tie if it has more.

    Args:
        begin, hits: the first hit, and the number of hits in all.
        free: the number of free slots of the shortlist, at least 1.
        levels: the level of each cell.
        ordered, distances, owners: `ordered`, `near` and `owners` of a `ScanWorkspace`.
    """
    end, at = begin, ordered[begin]
    distance, level = distances[at], levels[owners[at]]
    for hit in range(begin + 1, hits):
        if hit - begin > free and end > begin:
            return end
        at = ordered[hit]
        if distances[at] != distance or levels[owners[at]] != level:
            end, distance, level = hit, distances[at], levels[owners[at]]
            if hit - begin > free:
                return end
    return hits if end == begin or hits - begin <= free else end


@compiled
def take_all(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    limits: WeightLimits,
    certain: NDArray[np.bool_],
    lists: CodeLists,
    rows: RecordArrays,
    scan: ScanWorkspace,
    begin: int,
    end: int,
    near: NDArray[np.int32],
    taken: int,
) -> tuple[int, int, int]:
    """Take all relevant hits from `begin` to `end`, for which `near` has free slots; return as `take_nearest` does.

    Probabilities are prefetched for the cutoff, and features for the ranking that follows.
    """
    dropped, prefetched = 0, classes[:_PREFETCHED_CLASSES]
    for hit in range(begin - _AHEAD, end):
        if begin <= hit + _AHEAD < end:
            ahead = scan.ordered[hit + _AHEAD]
            if not certain[scan.owners[ahead]]:
                prefetch_probabilities(rows, lists.rows[scan.places[ahead]], prefetched)
        if hit < begin:
            continue
        at = scan.ordered[hit]
        if not certain[scan.owners[at]]:
            row = lists.rows[scan.places[at]]
            if not rows.probabilities_compared[row >> rows.shift]:
                return taken, dropped, UNCHECKED + int(row)
            answer = _is_relevant(weights, task, classes, tail, limits, rows, row)
            if answer == _MAYBE:
                return taken, dropped, DOUBTFUL
            if answer == _NO:
                dropped += 1
                continue
        near[taken] = scan.places[at]
        taken += 1
        prefetch_feature(rows, lists.rows[scan.places[at]])
    return taken, dropped, ANSWERED


@compiled
def _take_smallest_ids(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    limits: WeightLimits,
    certain: NDArray[np.bool_],
    lists: CodeLists,
    rows: RecordArrays,
    scan: ScanWorkspace,
    begin: int,
    end: int,
    near: NDArray[np.int32],
    keys: NDArray[np.uint64],
    taken: int,
) -> tuple[int, int, int]:
    """Take the relevant hits with the smallest mixed ids from one tie; return as `take_nearest` does."""
    dropped, count, chosen = 0, 0, near[taken:]
    for hit in range(begin, min(begin + _IDS_AHEAD, end)):
        prefetch(rows.ids, np.int64(lists.rows[scan.places[scan.ordered[hit]]]))
    for hit in range(begin, end):
        if hit + _IDS_AHEAD < end:
            prefetch(rows.ids, np.int64(lists.rows[scan.places[scan.ordered[hit + _IDS_AHEAD]]]))
        at = scan.ordered[hit]
        row = lists.rows[scan.places[at]]
        key = mixed(rows.ids[row])
        if count == chosen.shape[0] and key > keys[0]:
            continue
        if not certain[scan.owners[at]]:
            if not rows.probabilities_compared[row >> rows.shift]:
                return taken, dropped, UNCHECKED + int(row)
            answer = _is_relevant(weights, task, classes, tail, limits, rows, row)
            if answer == _MAYBE:
                return taken, dropped, DOUBTFUL
            if answer == _NO:
                dropped += 1
                continue
        if count < chosen.shape[0]:
            push(keys, chosen, count, key, scan.places[at])
            count += 1
        else:
            replace_top(keys, chosen, count, key, scan.places[at])
    for place in chosen[:count]:
        prefetch_feature(rows, lists.rows[place])
    return taken + count, dropped, ANSWERED


@compiled_inline
def _is_relevant(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    limits: WeightLimits,
    rows: RecordArrays,
    row: int,
) -> int:
    """Apply Eq. 2: decide whether R is above the cutoff, both in float32.

    The large weights, or the first of the stored probabilities, decide it for most records. `_MAYBE` means that the
    order of the terms could decide.
    """
    cutoff = np.float32(task.cutoff)
    if rows.packed.shape[0] > 0:
        answer = compare_packed(weights, limits, task.mass, task.cutoff, rows.packed, row)
        if answer != 0:
            return _YES if answer > 0 else _NO
    else:
        probabilities, part = rows.probabilities[row], 0.0
        rounding = (weights.shape[0] + 8) * SUM_ERROR * task.doubt
        for m in classes:
            part += weights[m] * np.float64(probabilities[m])
        if np.float32(part * (1 - rounding)) > cutoff:
            return _YES
        if np.float32(relevance_bound(weights, classes, tail, probabilities, task.mass) * (1 + rounding)) <= cutoff:
            return _NO
    least, most = rounded_relevance(weights, rows, row, task.doubt)
    if least > cutoff:
        return _YES
    return _NO if most <= cutoff else _MAYBE
