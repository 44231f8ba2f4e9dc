"""From the hits of a scan to a shortlist, compiled: the first relevant ones by the rule of `ties`.

Hits come by distance, those of the same distance by level, since cells are scanned in order of their levels. They are
taken in stretches of whole ties, as long as there is room for all of a stretch. Of the tie that there is no room for,
some are chosen by their ids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, prefetch, prefetch_at
from semcut.indexes.pruning.bounds_kernel import PruneWorkspace
from semcut.indexes.scanners.scan_kernel import CodeLists, ScanWorkspace
from semcut.indexes.search.kernel_arrays import ANSWERED, DOUBTFUL, UNCHECKED, RecordArrays, SearchSettings
from semcut.indexes.search.rank_kernel import ROUNDING, most_relevant, rounded_relevance
from semcut.indexes.search.ties_kernel import mixed, push, replace_top

_YES, _NO, _MAYBE = 0, 1, 2
_AHEAD = 12  # candidates whose rows are asked for in advance
_IDS_AHEAD = 32  # ties whose ids are asked for in advance
_ASKED = 16  # values of a row of probabilities,
_FEATURE = 128  # and of a feature, which are asked for


@compiled
def take_nearest(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    pruned: PruneWorkspace,
    lists: CodeLists,
    rows: RecordArrays,
    scan: ScanWorkspace,
    hits: int,
    near: NDArray[np.int32],
    keys: NDArray[np.uint64],
    taken: int,
) -> tuple[int, int, int]:
    """Take the first relevant hits by the rule of `ties` until `near` is full.

    Args:
        taken: how many places of `near` are filled already.

    Returns:
        How many are filled then, how many hits were dropped, and a reason to give up.
    """
    dropped, reason, begin = 0, ANSWERED, 0
    while begin < hits and taken < near.shape[0] and reason == ANSWERED:
        end = _end_of_ties(begin, hits, near.shape[0] - taken, pruned.levels, scan.ordered, scan.near, scan.owners)
        if end - begin <= near.shape[0] - taken:
            taken, gone, reason = take_all(
                weights, task, classes, tail, pruned.certain, lists, rows, scan, begin, end, near, taken
            )
        else:
            taken, gone, reason = _choose(
                weights, task, classes, tail, pruned.certain, lists, rows, scan, begin, end, near, keys, taken
            )
        dropped, begin = dropped + gone, end
    return taken, dropped, reason


@compiled
def _end_of_ties(
    begin: int,
    hits: int,
    room: int,
    levels: NDArray[np.int8],
    ordered: NDArray[np.int32],
    distances: NDArray[np.uint16],
    owners: NDArray[np.int32],
) -> int:
    """Where a stretch of whole ties from `begin` on ends: no more than `room` hits, or the first tie alone.

    Args:
        begin, hits: the first hit of the stretch, and how many there are in all.
        room: at least 1.
        levels: of cells.
        ordered, distances, owners: of a `Scan`.
    """
    end, at = begin, ordered[begin]
    distance, level = distances[at], levels[owners[at]]
    for hit in range(begin + 1, hits):
        if hit - begin > room and end > begin:
            return end
        at = ordered[hit]
        if distances[at] != distance or levels[owners[at]] != level:
            end, distance, level = hit, distances[at], levels[owners[at]]
            if hit - begin > room:
                return end
    return hits if end == begin or hits - begin <= room else end


@compiled
def take_all(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
    certain: NDArray[np.bool_],
    lists: CodeLists,
    rows: RecordArrays,
    scan: ScanWorkspace,
    begin: int,
    end: int,
    near: NDArray[np.int32],
    taken: int,
) -> tuple[int, int, int]:
    """Take all relevant hits of a stretch, for which `near` has room; returns as `take_nearest`."""
    dropped, asked = 0, classes[:_ASKED]
    columns = min(_FEATURE, rows.features.shape[1])
    for hit in range(begin - _AHEAD, end):
        if begin <= hit + _AHEAD < end:
            ahead = scan.ordered[hit + _AHEAD]
            if not certain[scan.owners[ahead]]:
                for m in asked:
                    prefetch_at(rows.probabilities, np.int64(lists.rows[scan.places[ahead]]), np.int64(m))
        if hit < begin:
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
    return taken, dropped, ANSWERED


@compiled
def _choose(
    weights: NDArray[np.float64],
    task: SearchSettings,
    classes: NDArray[np.int32],
    tail: float,
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
    """Take the relevant hits with the smallest mixed ids out of a stretch of ties; returns as `take_nearest`."""
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
                return taken, dropped, UNCHECKED
            answer = _is_relevant(weights, task, classes, tail, rows.probabilities[row])
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
    columns = min(_FEATURE, rows.features.shape[1])
    for place in chosen[:count]:
        for column in range(0, columns, 16):
            prefetch_at(rows.features, np.int64(lists.rows[place]), column)
    return taken + count, dropped, ANSWERED


@compiled
def _is_relevant(
    weights: NDArray[np.float64],
    task: SearchSettings,
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
