"""Numba kernels of exact pruning: they find the cells that can hold a record relevant to a query.

`pruning/cells` has the cells, their bounds and the mathematics; `Cells.prune` does the same for a whole batch. Cells
with envelopes above the threshold of `pruning/class_lists` are collected from the lists of the query's classes. A cell
is dropped if one of three upper bounds of R does not exceed the cutoff: the sum over the large weights plus the tail,
the second bound of `pruning/cells`, or the whole product s . M_L. Each of these tests is exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, compiled_allocating, trailing_zeros
from semcut.indexes.pruning.cell_table import EDGES
from semcut.indexes.pruning.class_lists import FLOOR, MARGIN, MOST, SHARE, SMALLEST
from semcut.indexes.scoring.equations_numba import weighted_sum
from semcut.indexes.scoring.rounding import UNDERFLOW
from semcut.indexes.search.tie_order import LEVELS, SMALLEST_WEIGHT

_HIGHEST_EDGE = EDGES[0]


class CellBounds(NamedTuple):
    """The arrays of `Cells` and their `ClassLists`, as kernels read them.

    Attributes:
        starts: (C + 1,) int64, where the list of each class starts, and the end of the last.
        cells: (m,) int32, the cells of all lists.
        values: (m,) float32, M_L(class) of each of these cells.
        envelopes: (cells, C) float32.
        dominant: (cells,) int32.
        lows: (cells,) float32, the smallest p(dominant) of the records.
        peaks: (cells,) float32, the largest p(dominant) of the records.
        edges: (cells,) float64, the fixed edge that `tie_order` uses for p(dominant).
        sizes: (cells,) int64, the number of records.
        used: (n,) int32, the cells that have records, in any order; a search of every record scans them in this order.
        masses: (cells,) float32, the largest mass of the records.
        mass: the largest of `masses`.
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
    used: NDArray[np.int32]
    masses: NDArray[np.float32]
    mass: float


class PruneWorkspace(NamedTuple):
    """Buffers for pruning one query after the other.

    Attributes:
        large: (C,) int32, the classes of large weights.
        found: (cells // 64 + 1,) uint64, one bit per cell, set if the cell is to be tested; all 0 between queries.
        kept: (cells,) int32, the cells to scan.
        certain: (cells,) bool, whether all records of each kept cell are relevant.
        levels: (cells,) int8, the level of each kept cell in `tie_order`, the highest first.
        counts: (LEVELS + 1,) int64, kept cells per level, for sorting.
        spare: (cells,) int32, the cells that are passed from one step to the next.
        sums: (cells,) float64, a bound of each cell in `spare`, later the product that gives the level of a kept cell.
        seen: (C,) int64, the number of the last query that keeps a cell of each partition.
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


@compiled_allocating
def prune_workspace(cells: int, classes: int) -> PruneWorkspace:
    """Allocate buffers for an index of this many cells and classes."""
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
    """Find the classes of large weights.

    Args:
        weights: (C,) s of the query.
        cutoff: t of Eq. 2.
        large: (C,) filled with the classes, the largest weight first; not sorted if there are more than `MOST`.

    Returns:
        The number of large weights, and the tail: the largest of the other weights.
    """
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
def _list_threshold(
    weights: NDArray[np.float64], limit: float, mass: float, large: NDArray[np.int32], tail: float
) -> tuple[int, float]:
    """Return the number of lists to read, those of the largest weights, and the threshold of their envelopes.

    This is `LargeWeights.thresholds` for one query.
    """
    lists, threshold, total = 0, -1.0, 0.0
    for place in range(large.shape[0]):
        total += weights[large[place]]
        rest = tail
        if place + 1 < large.shape[0]:
            if large.shape[0] > MOST:
                continue
            rest = weights[large[place + 1]]
        left, above = limit - rest * mass, max(0.0, total - (place + 1) * rest)
        candidate = left / above * (1 - MARGIN) if above > 0 else np.inf
        if left > 0 and candidate > threshold:
            lists, threshold = place + 1, candidate
    return lists, threshold


@compiled
def prune(
    weights: NDArray[np.float64],
    cutoff: float,
    slack: float,
    bounds: CellBounds,
    number: int,
    large: int,
    tail: float,
    workspace: PruneWorkspace,
) -> tuple[int, int, int]:
    """Find the cells that can hold a record with R > cutoff.

    Args:
        weights: (C,) s of the query.
        cutoff: t of Eq. 2.
        slack: `relative_error` of C terms.
        bounds: the bounds of the cells.
        number: a number of the query that is unique in this workspace.
        large, tail: the results of `large_weights`, which has also filled `workspace.large`.
        workspace: its `kept`, `certain` and `levels` are filled.

    Returns:
        The number of kept cells, the number of their records, and the number of their partitions.
    """
    limit = (cutoff - UNDERFLOW) * (1 - slack)
    first = second = 0.0
    for place in range(large):
        weight = weights[workspace.large[place]]
        if weight > first:
            first, second = weight, first
        elif weight > second:
            second = weight
    second = max(second, tail) if first > 0 else tail
    first = max(first, tail)
    lists, threshold = _list_threshold(weights, limit, bounds.mass, workspace.large[:large], tail)
    if large == 0 and limit >= tail * bounds.mass:
        return 0, 0, 0
    if threshold >= FLOOR:
        for place in range(lists):
            m = workspace.large[place]
            for entry in range(bounds.starts[m], bounds.starts[m + 1]):
                if bounds.values[entry] <= threshold:
                    break
                cell = np.int64(bounds.cells[entry])
                workspace.found[cell >> 6] |= np.uint64(1) << np.uint64(cell & 63)
        count = _list_set_bits(workspace.found, bounds.sizes.shape[0], workspace.spare)
    else:
        count = bounds.used.shape[0]
        for place in range(count):
            workspace.spare[place] = bounds.used[place]
    if limit >= 0:
        count = _drop_below(weights, limit, bounds, workspace.large[:large], tail, count, workspace)
    kept = codes = partitions = 0
    for place in range(count):
        cell = workspace.spare[place]
        size, dominant = bounds.sizes[cell], bounds.dominant[cell]
        own, low = weights[dominant], np.float64(bounds.lows[cell])
        if size == 0:
            continue
        if limit >= 0:
            other = second if own == first else first
            p = np.float64(bounds.peaks[cell]) if own >= other else low
            others = max(0.0, np.float64(bounds.masses[cell]) - p)
            if (own * p + other * others) * (1 + slack) + UNDERFLOW <= cutoff:
                continue
            worth_it = workspace.sums[place] * (1 - slack) <= limit and size >= weights.shape[0]
            if worth_it and weighted_sum(weights, bounds.envelopes[cell]) <= limit:
                continue
        codes += size
        if workspace.seen[dominant] != number:
            workspace.seen[dominant] = number
            partitions += 1
        workspace.kept[kept], workspace.sums[kept] = cell, own * bounds.edges[cell]
        kept += 1
    _sort_by_level(weights, first, cutoff, slack, bounds, kept, workspace)
    return kept, codes, partitions


@compiled
def _drop_below(
    weights: NDArray[np.float64],
    limit: float,
    bounds: CellBounds,
    classes: NDArray[np.int32],
    tail: float,
    count: int,
    workspace: PruneWorkspace,
) -> int:
    """Drop cells whose bound by the large weights and the tail does not exceed the limit, see `class_lists`.

    The loop runs class by class, so that the processor does not wait for one envelope before it reads the next. It has
    no branch, since about every second cell is dropped, which the processor could not predict.

    Args:
        weights: (C,) s of the query.
        limit: the value that the sum must exceed.
        bounds: the bounds of the cells.
        classes, tail: the classes of the large weights, and the largest of the other weights.
        count: the number of cells in `spare`.
        workspace: its `spare` is overwritten with the remaining cells, its `sums` with a part of their bounds.

    Returns:
        The number of remaining cells.
    """
    number = np.uint64(count)
    for place in range(number):
        workspace.sums[place] = 0.0
    for m in classes:
        above = weights[m] - tail
        for place in range(number):
            workspace.sums[place] += above * bounds.envelopes[np.uint64(workspace.spare[place]), np.uint64(m)]
    remaining = 0
    for place in range(number):
        cell, total = workspace.spare[place], workspace.sums[place]
        workspace.spare[remaining], workspace.sums[remaining] = cell, total
        remaining += int(total + tail * bounds.masses[np.uint64(cell)] > limit)
    return remaining


@compiled
def _list_set_bits(found: NDArray[np.uint64], count: int, cells: NDArray[np.int32]) -> int:
    """Turn a bit per cell into a list of cells, and clear the bits.

    Args:
        found: the bits.
        count: the number of cells; bits beyond it are ignored.
        cells: filled with the cells whose bit is set, ascending.

    Returns:
        The number of cells in the list.
    """
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
def _sort_by_level(
    weights: NDArray[np.float64],
    largest: float,
    cutoff: float,
    slack: float,
    bounds: CellBounds,
    kept: int,
    workspace: PruneWorkspace,
) -> None:
    """Sort the kept cells by the level of their records, highest first, and mark cells whose records are all relevant.

    Levels follow from the products in `sums`, as in `tie_order.levels`. Among records at the same Hamming distance,
    those that are scanned first come first. So records must be chosen by their ids only within one level.
    """
    top = largest * _HIGHEST_EDGE
    scale = (LEVELS - 1) / top if top > SMALLEST_WEIGHT else 0.0
    workspace.counts[:] = 0
    for place in range(kept):
        workspace.spare[place] = workspace.kept[place]
        workspace.counts[LEVELS - np.int64(workspace.sums[place] * scale)] += 1
    for level in range(1, LEVELS + 1):
        workspace.counts[level] += workspace.counts[level - 1]
    for place in range(kept):
        cell, step = workspace.spare[place], LEVELS - 1 - np.int64(workspace.sums[place] * scale)
        at = workspace.counts[step]
        least = weights[bounds.dominant[cell]] * np.float64(bounds.lows[cell])
        workspace.kept[at], workspace.levels[at] = cell, LEVELS - 1 - step
        workspace.certain[at] = least * (1 - slack) > cutoff + UNDERFLOW
        workspace.counts[step] += 1
