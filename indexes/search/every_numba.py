"""Numba kernels of searches of every record: all cells are kept, and they are scanned in the order of their codes.

Where a cutoff prunes, the kept cells are scanned in the order of their levels, so that the hits of a scan are in the
order of `tie_order` up to their ids. Where nothing is pruned, an index has thousands of cells, most of them small, and
jumping from one to the next takes longer than comparing their codes. So all codes are scanned in one run, and the
few hits are sorted by level afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled
from semcut.indexes.pruning.cell_table import EDGES
from semcut.indexes.scanners.scan_numba import ScanWorkspace
from semcut.indexes.search.prune_numba import CellBounds, PruneWorkspace
from semcut.indexes.search.tie_order import LEVELS, SMALLEST_WEIGHT

_HIGHEST_EDGE = EDGES[0]


@compiled
def keep_every(bounds: CellBounds, number: int, workspace: PruneWorkspace) -> tuple[int, int, int]:
    """Keep all cells that have records; arguments and results as those of `prune_numba.prune`.

    The kept cells are in the order of `bounds.used`, and their levels are not set.
    """
    codes = partitions = 0
    for place in range(bounds.used.shape[0]):
        cell = bounds.used[place]
        dominant = bounds.dominant[cell]
        codes += bounds.sizes[cell]
        if workspace.seen[dominant] != number:
            workspace.seen[dominant] = number
            partitions += 1
        workspace.kept[place], workspace.certain[place] = cell, True
    return bounds.used.shape[0], codes, partitions


@compiled
def sort_by_level(
    weights: NDArray[np.float64],
    largest: float,
    bounds: CellBounds,
    hits: int,
    workspace: PruneWorkspace,
    scan: ScanWorkspace,
) -> None:
    """Sort hits by distance, and those of one distance by level, the highest first.

    Levels are computed as in `tie_order.levels`.

    Args:
        weights: (C,) s of the query.
        largest: the largest weight.
        bounds: the bounds of the cells.
        hits: the number of hits.
        workspace: has the kept cells; its `levels` are set for the cells of hits.
        scan: has the hits; its `ordered` is overwritten.
    """
    top = largest * _HIGHEST_EDGE
    scale = (LEVELS - 1) / top if top > SMALLEST_WEIGHT else 0.0
    counts = scan.counts
    counts[:] = 0
    for hit in range(hits):
        owner = scan.owners[hit]
        cell = workspace.kept[owner]
        level = np.int64(weights[bounds.dominant[cell]] * bounds.edges[cell] * scale)
        workspace.levels[owner] = level
        counts[np.int64(scan.near[hit]) * LEVELS + LEVELS - level] += 1
    for place in range(1, counts.shape[0]):
        counts[place] += counts[place - 1]
    for hit in range(hits):
        place = np.int64(scan.near[hit]) * LEVELS + LEVELS - 1 - workspace.levels[scan.owners[hit]]
        scan.ordered[counts[place]] = hit
        counts[place] += 1
