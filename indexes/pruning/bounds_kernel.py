"""The cells that can hold a relevant record, query by query. `partitions` has cells and their bounds.

The cells that a query can `reach` are collected from the lists there. Those whose sum over all large weights, and the
tail of the others, does not exceed the cutoff go; so do those that the whole product s . M_L or the second bound of
`partitions` rules out. Each of these is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import SUM_TOLERANCE
from semcut.indexes.kernels.jit import compiled, compiled_sum, trailing_zeros
from semcut.indexes.pruning.cells import EDGES
from semcut.indexes.pruning.class_lists import FLOOR, MARGIN, MOST, SHARE, SMALLEST
from semcut.indexes.scoring.rounding import UNDERFLOW
from semcut.indexes.search.tie_order import LEVELS, SMALLEST_WEIGHT

_HIGHEST_EDGE = EDGES[0]


class Bounds(NamedTuple):
    """What `Cells` hold, as kernels read it.

    Attributes:
        starts: (C + 1,) int64: where the list of each class starts, and ends.
        cells: (m,) int32, of all lists.
        values: (m,) float32: M_L(class) of each.
        envelopes: (cells, C) float32.
        dominant: (cells,) int32.
        lows: (cells,) float32, the smallest p(dominant).
        peaks: (cells,) float32, the largest.
        edges: (cells,) float64, the fixed edge that `ties` takes for p(dominant).
        sizes: (cells,) int64.
    """

    starts: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]
    envelopes: NDArray[np.float32]
    dominant: NDArray[np.int32]
    lows: NDArray[np.float32]
    peaks: NDArray[np.float32]
    edges: NDArray[np.float64]
    sizes: NDArray[np.int64]


class PruneWorkspace(NamedTuple):
    """Room to prune in, for one query after the other.

    Attributes:
        large: (C,) int32, classes of large weights.
        found: (cells // 64 + 1,) uint64: bits of cells that are looked at; all 0 between queries.
        kept: (cells,) int32, cells to scan.
        certain: (cells,) bool, whether all records of each of these are relevant.
        levels: (cells,) int8, their levels in the rule of `ties`, the highest first.
        counts: (LEVELS + 1,) int64, to sort by.
        spare: (cells,) int32.
        sums: (cells,) float64; of kept cells the product of which their level is made.
        seen: (C,) int64, the last query that scans each partition.
    """

    large: NDArray[np.int32]
    found: NDArray[np.uint64]
    kept: NDArray[np.int32]
    certain: NDArray[np.bool_]
    levels: NDArray[np.int8]
    counts: NDArray[np.int64]
    spare: NDArray[np.int32]
    sums: NDArray[np.float64]
    seen: NDArray[np.int64]


@compiled
def prune_workspace(cells: int, classes: int) -> PruneWorkspace:
    """Room for an index of so many cells and classes."""
    return PruneWorkspace(
        np.empty(classes, np.int32),
        np.zeros(cells // 64 + 1, np.uint64),
        np.empty(cells, np.int32),
        np.empty(cells, np.bool_),
        np.empty(cells, np.int8),
        np.empty(LEVELS + 1, np.int64),
        np.empty(cells, np.int32),
        np.empty(cells, np.float64),
        np.full(classes, -1, np.int64),
    )


@compiled
def large_weights(weights: NDArray[np.float64], cutoff: float, large: NDArray[np.int32]) -> tuple[int, float]:
    """Fill `large` with the classes of large weights, the largest first unless they are very many; says how many they
    are, and the largest of the other weights."""
    least = max(cutoff * SHARE, SMALLEST)
    count, tail = 0, 0.0
    for m in range(weights.shape[0]):
        weight = weights[m]
        if weight > least:
            large[count] = m
            count += 1
        elif weight > tail:
            tail = weight
    if count <= MOST:
        for place in range(1, count):
            m = large[place]
            while place > 0 and weights[large[place - 1]] < weights[m]:
                large[place] = large[place - 1]
                place -= 1
            large[place] = m
    return count, tail


@compiled
def _reach(weights: NDArray[np.float64], limit: float, large: NDArray[np.int32], tail: float) -> tuple[int, float]:
    """How many of the large weights, the largest ones, need their lists looked at, and down to which envelope."""
    lists, reach, total = 0, -1.0, 0.0
    for place in range(large.shape[0]):
        total += weights[large[place]]
        rest = tail
        if place + 1 < large.shape[0]:
            if large.shape[0] > MOST:
                continue
            rest = weights[large[place + 1]]
        far = (limit - rest * (1 + SUM_TOLERANCE)) / total * (1 - MARGIN)
        if far > reach:
            lists, reach = place + 1, far
    return lists, reach


@compiled
def prune(
    weights: NDArray[np.float64],
    cutoff: float,
    slack: float,
    bounds: Bounds,
    number: int,
    large: int,
    tail: float,
    room: PruneWorkspace,
) -> tuple[int, int, int]:
    """Find the cells that can hold a record with R > cutoff.

    Args:
        weights: (C,) s of the query.
        cutoff: t of Eq. 2.
        slack: the error bound of `compare` for C terms.
        bounds: of the cells.
        number: of the query, another one for each.
        large, tail: from `large_weights`; the classes are in `room`.
        room: its `kept` and `certain` are filled.

    Returns:
        How many cells are kept, how many records they hold, and of how many partitions they are.
    """
    limit = (cutoff - UNDERFLOW) * (1 - slack)
    first = second = 0.0
    for place in range(large):
        weight = weights[room.large[place]]
        if weight > first:
            first, second = weight, first
        elif weight > second:
            second = weight
    second = max(second, tail) if first > 0 else tail
    first = max(first, tail)
    chosen, reach = _reach(weights, limit, room.large[:large], tail)
    if large == 0 and limit >= tail * (1 + SUM_TOLERANCE):
        return 0, 0, 0
    if reach >= FLOOR:
        for place in range(chosen):
            m = room.large[place]
            for entry in range(bounds.starts[m], bounds.starts[m + 1]):
                if bounds.values[entry] <= reach:
                    break
                cell = np.int64(bounds.cells[entry])
                room.found[cell >> 6] |= np.uint64(1) << np.uint64(cell & 63)
    else:
        room.found[:] = ~np.uint64(0)
    near = _cells_of(room.found, bounds.sizes.shape[0], room.spare)
    if limit >= 0:
        near = _near(weights, limit, bounds, room.large[:large], tail, near, room)
    kept = codes = partitions = 0
    for place in range(near):
        cell = room.spare[place]
        size, dominant = bounds.sizes[cell], bounds.dominant[cell]
        own, low = weights[dominant], np.float64(bounds.lows[cell])
        if size == 0:
            continue
        if limit >= 0:
            other = second if own == first else first
            p = np.float64(bounds.peaks[cell]) if own >= other else low
            if (own * p + other * (1 + SUM_TOLERANCE - p)) * (1 + slack) + UNDERFLOW <= cutoff:
                continue
            worth_it = room.sums[place] * (1 - slack) <= limit and size >= weights.shape[0]
            if worth_it and dot(weights, bounds.envelopes[cell]) <= limit:
                continue
        codes += size
        if room.seen[dominant] != number:
            room.seen[dominant] = number
            partitions += 1
        room.kept[kept], room.sums[kept] = cell, own * bounds.edges[cell]
        kept += 1
    _highest_level_first(weights, first, cutoff, slack, bounds, kept, room)
    return kept, codes, partitions


@compiled
def _near(
    weights: NDArray[np.float64],
    limit: float,
    bounds: Bounds,
    classes: NDArray[np.int32],
    tail: float,
    count: int,
    room: PruneWorkspace,
) -> int:
    """Leave only those of the first `count` cells in `spare` whose sum over the large weights and the tail is above the
    limit, and put these sums, without the tail, in `sums`; says how many cells there are then.

    Class by class, so that no processor has to wait for one envelope before it asks for the next, and without a branch:
    about every second cell goes.
    """
    number = np.uint64(count)
    for place in range(number):
        room.sums[place] = 0.0
    for m in classes:
        for place in range(number):
            room.sums[place] += weights[m] * bounds.envelopes[np.uint64(room.spare[place]), np.uint64(m)]
    rest, near = tail * (1 + SUM_TOLERANCE), 0
    for place in range(number):
        total = room.sums[place]
        room.spare[near], room.sums[near] = room.spare[place], total
        near += int(total + rest > limit)
    return near


@compiled
def _cells_of(found: NDArray[np.uint64], count: int, cells: NDArray[np.int32]) -> int:
    """Turn bits into a list of cells, of which there are `count` in all, and clear them; says how many are listed."""
    listed = 0
    for word in range(found.shape[0]):
        bits = found[word]
        found[word] = np.uint64(0)
        while bits != np.uint64(0):
            cell = word * 64 + np.int64(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            if cell < count:
                cells[listed] = cell
                listed += 1
    return listed


@compiled
def _highest_level_first(
    weights: NDArray[np.float64],
    largest: float,
    cutoff: float,
    slack: float,
    bounds: Bounds,
    kept: int,
    room: PruneWorkspace,
) -> None:
    """Sort the kept cells by the level of their records, from the products in `sums`, and say of which all records are
    relevant.

    Records that are scanned first come first among those at the same Hamming distance, so that only of one level some
    have to be chosen.
    """
    top = largest * _HIGHEST_EDGE
    scale = (LEVELS - 1) / top if top > SMALLEST_WEIGHT else 0.0
    room.counts[:] = 0
    for place in range(kept):
        room.spare[place] = room.kept[place]
        room.counts[LEVELS - np.int64(room.sums[place] * scale)] += 1
    for level in range(1, LEVELS + 1):
        room.counts[level] += room.counts[level - 1]
    for place in range(kept):
        cell, step = room.spare[place], LEVELS - 1 - np.int64(room.sums[place] * scale)
        at = room.counts[step]
        least = weights[bounds.dominant[cell]] * np.float64(bounds.lows[cell])
        room.kept[at], room.levels[at] = cell, LEVELS - 1 - step
        room.certain[at] = least * (1 - slack) > cutoff + UNDERFLOW
        room.counts[step] += 1


@compiled_sum
def dot(weights: NDArray[np.float64], probabilities: NDArray[np.float32]) -> float:
    """s . p in float64, added in any order."""
    total = 0.0
    for m in range(weights.shape[0]):
        total += weights[m] * np.float64(probabilities[m])
    return total
