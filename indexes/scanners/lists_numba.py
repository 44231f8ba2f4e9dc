"""Numba kernels that add, move, remove and search the codes of the "compiled" scanner (`hamming_numba_cpu`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import kernel
from semcut.indexes.scanners.scan_numba import CodeLists, find_hits, find_runs, radius_of, scan_workspace, take_sample
from semcut.indexes.search_tuning import TUNING

_FIRST_RADIUS, _WIDER = TUNING.first_radius, TUNING.wider


@kernel
def move(
    lists: CodeLists,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    fresh: CodeLists,
    targets: NDArray[np.int64],
    moved: NDArray[np.int64],
) -> None:
    """Copy the codes of some cells to new positions.

    Args:
        lists: the codes.
        starts, sizes: (cells,) the position of each cell in `lists`, and the number of its codes.
        fresh: the arrays to copy to: those of `lists`, or larger ones.
        targets: (cells,) the new position of each cell, in `fresh`.
        moved: the cells to copy.
    """
    for cell in moved:
        source, target, size = starts[cell], targets[cell], sizes[cell]
        fresh.codes[target : target + size] = lists.codes[source : source + size]
        fresh.rows[target : target + size] = lists.rows[source : source + size]


@kernel
def append(lists: CodeLists, codes: NDArray[np.uint64], rows: NDArray[np.int64], cells: NDArray[np.int64]) -> None:
    """Append n codes and their rows to their cells, which have spare capacity for them."""
    for i in range(codes.shape[0]):
        cell = cells[i]
        at = lists.starts[cell] + lists.sizes[cell]
        lists.codes[at] = codes[i]
        lists.rows[at] = rows[i]
        lists.sizes[cell] += 1


@kernel
def remove(lists: CodeLists, cells: NDArray[np.int64], first: NDArray[np.int64], removed: NDArray[np.int64]) -> None:
    """Remove rows from cells; the remaining codes keep their order and close the gaps.

    Args:
        lists: the codes.
        cells: (n,) the cells to remove from.
        first: (n + 1,) the start of the rows of each of these cells in `removed`, and the end of the last.
        removed: the rows to remove, those of one cell ascending.
    """
    for i in range(cells.shape[0]):
        cell = cells[i]
        out = removed[first[i] : first[i + 1]]
        start, kept = lists.starts[cell], lists.starts[cell]
        for at in range(start, start + lists.sizes[cell]):
            row = np.int64(lists.rows[at])
            place = np.searchsorted(out, row)
            if place < out.shape[0] and out[place] == row:
                continue
            lists.codes[kept] = lists.codes[at]
            lists.rows[kept] = lists.rows[at]
            kept += 1
        lists.sizes[cell] = kept - start


@kernel
def search(
    codes: NDArray[np.uint64],
    cells: NDArray[np.int64],
    lists: CodeLists,
    bits: int,
    rows: NDArray[np.int64],
    hamming: NDArray[np.int32],
) -> None:
    """Find the codes nearest to each query within its cells, nearest first.

    The radius grows until enough codes are within it, or all codes are.

    Args:
        codes: (nq, words) the queries.
        cells: (nq, w) the cells of each query; -1, and cells that have no list, are skipped.
        lists: the codes.
        bits: length of a code.
        rows, hamming: (nq, depth) the result; slots without a code are not written.
    """
    depth = rows.shape[1]
    scan = scan_workspace(0, lists.sizes.shape[0], bits, 1)
    chosen = np.empty(cells.shape[1], np.int32)
    for query in range(codes.shape[0]):
        count = 0
        for cell in cells[query]:
            if 0 <= cell < lists.sizes.shape[0]:
                chosen[count] = cell
                count += 1
        runs, size = find_runs(chosen[:count], lists, scan)
        if size > scan.places.shape[0]:
            scan = scan_workspace(size + size // 4, lists.sizes.shape[0], bits, 1)
            runs, size = find_runs(chosen[:count], lists, scan)
        wanted, radius = int(depth * _FIRST_RADIUS), -1
        step = take_sample(codes[query], runs, size, wanted, lists, scan)
        while True:
            radius = radius_of(scan.histogram, step, wanted, radius + 1)
            hits = find_hits(codes[query], chosen[:count], runs, size, -1, radius, lists, scan)
            if hits >= depth or radius == bits:
                break
            wanted *= _WIDER
        for hit in range(min(hits, depth)):
            at = scan.ordered[hit]
            rows[query, hit], hamming[query, hit] = lists.rows[scan.places[at]], scan.near[at]
