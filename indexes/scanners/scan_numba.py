"""Numba kernels that compute Hamming distances of contiguous codes, and select the nearest codes by counting.

The codes of an index are in one array, cell by cell (`CodeLists`). The cells of a query form a few *runs* in this
array: adjacent cells, also with a small gap between them, are scanned as one run. Codes in a gap are not hits.

A sample of the distances gives a radius within which there should be enough codes. Then the runs are scanned: distances
are written to a buffer of bytes, run after run, and the codes within the radius are hits. If the distances of all codes
fit in the buffer, the codes are scanned once, before the sample is taken, and the buffer serves every radius. If not,
the sample is taken first, and each radius needs a scan of its own. Distances above 127 are stored as 127. For a radius
above 126, which is rare and occurs with long codes only, the buffer stores flags instead: whether a code is within the
radius.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import (
    compiled,
    compiled_allocating,
    compiled_inline,
    prefetch,
)
from semcut.indexes.scanners.distances_numba import LARGEST, distances, hamming, pick_within, prefetch_run

_BUFFER = 1 << 16
"""Bytes of the buffer, one for the distance of each code."""
_IN_SAMPLE = 4
"""The smallest number of codes within the first radius that the sample should contain."""
_SAMPLE = 512
"""The smallest number of codes that the sample should contain."""
_GAP = 64
"""The largest number of codes between two cells of one run: skipping them would take as long as scanning them."""


class CodeLists(NamedTuple):
    """The codes of an index, cell by cell.

    Attributes:
        codes: (capacity, words) uint64.
        rows: (capacity,) int32, the row of each code.
        starts: (cells,) int64, the position of the first code of each cell.
        sizes: (cells,) int64, the number of codes in each cell.
    """

    codes: NDArray[np.uint64]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class ScanWorkspace(NamedTuple):
    """Buffers that the scans of all queries use one after the other, and the hits of the last scan.

    Attributes:
        buffer: uint8, distances of codes.
        runs: (m,) int64, the position in `CodeLists` where each run starts.
        lengths: (m,) int64, the number of codes in each run.
        firsts: (m,) int64, the first cell of each run, as a position among the query's cells.
        places: (capacity,) int32, the position of each hit in `CodeLists`, in order of runs.
        near: (capacity,) uint16, the distance of each hit.
        owners: (capacity,) int32, the cell of each hit, as a position among the query's cells.
        ordered: (capacity,) int32, the hits in order of distance.
        counts: ((bits + 1) * levels + 1,) int64, hits per distance, or per distance and level, for sorting.
        histogram: (bits + 1,) int64, codes of the sample per distance.
    """

    buffer: NDArray[np.uint8]
    runs: NDArray[np.int64]
    lengths: NDArray[np.int64]
    firsts: NDArray[np.int64]
    places: NDArray[np.int32]
    near: NDArray[np.uint16]
    owners: NDArray[np.int32]
    ordered: NDArray[np.int32]
    counts: NDArray[np.int64]
    histogram: NDArray[np.int64]


@compiled_allocating
def scan_workspace(codes: int, cells: int, bits: int, levels: int) -> ScanWorkspace:
    """Allocate buffers.

    Args:
        codes: capacity in hits.
        cells: capacity in cells of a query.
        bits: length of a code.
        levels: how many kinds of hits at one distance are sorted.
    """
    return ScanWorkspace(
        np.empty(_BUFFER, np.uint8),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty(codes, np.int32),
        np.empty(codes, np.uint16),
        np.empty(codes, np.int32),
        np.empty(codes, np.int32),
        np.empty((bits + 1) * levels + 1, np.int64),
        np.empty(bits + 1, np.int64),
    )


@compiled
def find_runs(cells: NDArray[np.int32], lists: CodeLists, scan: ScanWorkspace) -> tuple[int, int]:
    """Join the cells of a query into runs; return the number of runs, and the number of codes in them."""
    count, size, end = 0, 0, np.int64(0)
    for place in range(cells.shape[0]):
        cell = cells[place]
        start, after = lists.starts[cell], lists.starts[cell] + lists.sizes[cell]
        if count > 0 and 0 <= start - end <= _GAP:
            scan.lengths[count - 1] = after - scan.runs[count - 1]
        else:
            scan.runs[count], scan.lengths[count], scan.firsts[count] = start, after - start, place
            count += 1
        end = after
    for run in range(count):
        size += scan.lengths[run]
    return count, size


@compiled
def take_sample(
    code: NDArray[np.uint64], count: int, size: int, wanted: int, lists: CodeLists, scan: ScanWorkspace
) -> int:
    """Count the distances of a sample, evenly spaced codes of the runs, in `histogram`.

    Args:
        code: (words,) the query.
        count, size: the number of runs, and of codes in them.
        wanted: the number of codes that the radius should contain.
        lists: the codes.
        scan: has the runs.

    Returns:
        The step of the sample: it contains one of every `step` codes.
    """
    scan.histogram[:] = 0
    step = max(1, min(wanted // _IN_SAMPLE, size // _SAMPLE))
    farthest = len(scan.histogram) - 1  # codes in gaps are undefined, and may have bits set in the padding
    place = step // 2
    if _fits(size, scan):
        filled = 0
        for run in range(count):
            if run + 1 < count:
                prefetch_run(lists.codes, scan.runs[run + 1], scan.lengths[run + 1])
            distances(lists.codes, scan.runs[run], scan.lengths[run], code, 0, scan.buffer, filled)
            filled += scan.lengths[run]
        while place < size:
            away = np.int64(scan.buffer[place])
            scan.histogram[away if away < farthest else farthest] += 1
            place += step
        return step
    for run in range(count):
        start, length = scan.runs[run], scan.lengths[run]
        while place < length:
            away = np.int64(hamming(lists.codes, start + place, code))
            scan.histogram[away if away < farthest else farthest] += 1
            place += step
        place -= length
    return step


@compiled
def _fits(size: int, scan: ScanWorkspace) -> bool:
    """Return whether the buffer can hold the distances of all runs, so that they are computed once."""
    return size <= _BUFFER and len(scan.histogram) <= LARGEST + 2


@compiled
def radius_of(histogram: NDArray[np.int64], step: int, wanted: int, least: int) -> int:
    """Return the smallest radius of at least `least` within which `wanted` codes can be expected."""
    found = 0
    for radius in range(histogram.shape[0] - 1):
        found += histogram[radius] * step
        if found >= wanted and radius >= least:
            return radius
    return len(histogram) - 1


@compiled
def find_hits(
    code: NDArray[np.uint64],
    cells: NDArray[np.int32],
    count: int,
    size: int,
    above: int,
    radius: int,
    lists: CodeLists,
    scan: ScanWorkspace,
) -> int:
    """Find the codes of the cells whose distance is above one radius and at most another, and sort them by distance.

    Args:
        code: (words,) the query.
        cells: the cells that were joined into runs.
        count, size: the number of runs, and of codes in them; `take_sample` was called for them.
        above: the radius that distances must exceed; -1 for no lower limit.
        radius: at most the number of bits.
        lists: the codes.
        scan: has the runs; its hits are filled in.

    Returns:
        The number of hits.
    """
    hits = run = done = 0
    flags = radius >= LARGEST  # the buffer holds flags, not distances
    precomputed = _fits(size, scan) and not flags
    while run < count:
        first, skipped, filled = run, done, 0
        if precomputed:
            run, filled = count, size
        while run < count and filled < _BUFFER:
            taken = min(scan.lengths[run] - done, _BUFFER - filled)
            if run + 1 < count:
                prefetch_run(lists.codes, scan.runs[run + 1], scan.lengths[run + 1])
            distances(lists.codes, scan.runs[run] + done, taken, code, radius, scan.buffer, filled)
            filled, done = filled + taken, done + taken
            if done == scan.lengths[run]:
                run, done = run + 1, 0
        found = pick_within(scan.buffer, scan.places, filled, min(radius, LARGEST - 1), hits)
        end = scan.lengths[first] - skipped
        shift, owner = scan.runs[first] + skipped, scan.firsts[first]
        for hit in range(hits, found):
            at = scan.places[hit]
            while at >= end:
                first += 1
                shift, owner = scan.runs[first] - end, scan.firsts[first]
                end += scan.lengths[first]
            place = at + shift
            owner = _owner_of(place, owner, scan.firsts[first + 1] if first + 1 < count else len(cells), cells, lists)
            if place < lists.starts[cells[owner]] + lists.sizes[cells[owner]]:
                away = np.int64(hamming(lists.codes, place, code)) if flags else np.int64(scan.buffer[at])
                if away > above:
                    prefetch(lists.rows, place)
                    scan.places[hits], scan.owners[hits], scan.near[hits] = place, owner, away
                    hits += 1
    _sort_hits(hits, scan)
    return hits


@compiled_inline
def _owner_of(place: int, owner: int, end: int, cells: NDArray[np.int32], lists: CodeLists) -> int:
    """Return the last cell of a run, before `end`, that starts at or before a position; `owner` is one that does."""
    step = 1
    while owner + step < end and lists.starts[cells[owner + step]] <= place:
        owner += step
        step *= 2
    while step > 1:
        step //= 2
        if owner + step < end and lists.starts[cells[owner + step]] <= place:
            owner += step
    return owner


@compiled
def _sort_hits(hits: int, scan: ScanWorkspace) -> None:
    """Fill `ordered` with the hits in order of distance, by counting."""
    counts = scan.counts[: scan.histogram.shape[0] + 1]
    counts[:] = 0
    for hit in range(hits):
        counts[scan.near[hit] + 1] += 1
    for radius in range(1, counts.shape[0]):
        counts[radius] += counts[radius - 1]
    for hit in range(hits):
        radius = scan.near[hit]
        scan.ordered[counts[radius]] = hit
        counts[radius] += 1
