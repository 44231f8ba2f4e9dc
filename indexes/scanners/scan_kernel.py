"""Hamming distances of contiguous codes, and the nearest of them by counting.

The codes of an index lie in one array, cell by cell (`Lists`); those of a query's cells are a few *runs* of it, since
cells that lie side by side, or almost, are scanned as one. What is scanned between two cells does not count.

A sample of the distances gives a radius within which there should be enough codes. The runs are scanned: distances go
to a buffer of bytes, one run behind the other, and those within the radius are picked out of it. What fits in the
buffer is scanned once, before the sample is taken; of more codes the sample is taken first, and each radius is a scan.
Distances above 127 are 127 there; for the rare radius above 126, of long codes, the buffer holds whether a code is
within it instead.

**Comparing eight at once.** A 64-bit word holds eight distances of at most 127. For a radius r, d + (127 - r) has the
highest bit of its byte set just if d > r, and never carries into the next one.

Codes are rows of 64-bit words, padded with zeros. Vectorising is left to LLVM. Inner loops have unsigned indices: of
others numba looks at each whether it is negative, and LLVM then gives up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, popcount, prefetch, trailing_zeros

_LARGEST = 127  # distance in the buffer
_BUFFER = 1 << 16
_ONES = 0x0101010101010101
_TOPS = 0x8080808080808080
_MOST_ASKED = 2048  # codes
_IN_SAMPLE = 4  # how many of the codes within the radius should be in the sample at least
_SAMPLE = 512  # how many codes should be
_LINE = 64  # bytes of a cache line
_GAP = 64  # codes that may lie between cells of the same run: to skip them would cost as much


class CodeLists(NamedTuple):
    """The codes of an index, cell by cell.

    Attributes:
        codes: (capacity, words) uint64.
        rows: (capacity,) int32, the row of each code.
        starts: (cells,) int64, where the codes of a cell are.
        sizes: (cells,) int64, how many they are.
    """

    codes: NDArray[np.uint64]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class ScanWorkspace(NamedTuple):
    """Room to scan in, for one query after the other, and what a scan has found.

    Attributes:
        buffer: uint8, distances of codes.
        runs: (m,) int64, where each run starts in `Lists`.
        lengths: (m,) int64, how many codes each has.
        firsts: (m,) int64, which of the query's cells is its first.
        places: hits: where in `Lists` they are, run by run,
        near: their distances, uint16,
        owners: and which of the query's cells they are in, int32.
        ordered: int32, positions of hits in order of distance.
        counts: (bits + 2,) int64.
        histogram: (bits + 1,) int64.
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


@compiled
def scan_workspace(codes: int, cells: int, bits: int) -> ScanWorkspace:
    """Room for so many hits in so many cells."""
    return ScanWorkspace(
        np.empty(_BUFFER, np.uint8),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty(codes, np.int32),
        np.empty(codes, np.uint16),
        np.empty(codes, np.int32),
        np.empty(codes, np.int32),
        np.empty(bits + 2, np.int64),
        np.empty(bits + 1, np.int64),
    )


@compiled
def find_runs(cells: NDArray[np.int32], lists: CodeLists, scan: ScanWorkspace) -> tuple[int, int]:
    """Cut cells into runs; says how many runs there are, and how many codes are in them."""
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
    """Count the distances of some codes of the runs, evenly, in `histogram`; says one of how many codes.

    Args:
        code: (words,) the query's.
        count, size: of runs and their codes.
        wanted: how many codes a radius is looked for that has.
        lists: with the codes.
        scan: with the runs.
    """
    scan.histogram[:] = 0
    step = max(1, min(wanted // _IN_SAMPLE, size // _SAMPLE))
    farthest = len(scan.histogram) - 1  # between cells there may be anything
    place = step // 2
    if _fits(size, scan):
        filled = 0
        for run in range(count):
            if run + 1 < count:
                _ask_for(lists.codes, scan.runs[run + 1], scan.lengths[run + 1])
            _distances(lists.codes, scan.runs[run], scan.lengths[run], code, 0, scan.buffer, filled)
            filled += scan.lengths[run]
        while place < size:
            away = np.int64(scan.buffer[place])
            scan.histogram[away if away < farthest else farthest] += 1
            place += step
        return step
    for run in range(count):
        start, length = scan.runs[run], scan.lengths[run]
        while place < length:
            away = np.int64(distance(lists.codes, start + place, code))
            scan.histogram[away if away < farthest else farthest] += 1
            place += step
        place -= length
    return step


@compiled
def _fits(size: int, scan: ScanWorkspace) -> bool:
    """Whether the buffer holds the distances of all runs, so that they are computed once."""
    return size <= _BUFFER and len(scan.histogram) <= _LARGEST + 2


@compiled
def radius_of(histogram: NDArray[np.int64], step: int, wanted: int, least: int) -> int:
    """The smallest radius, at least `least`, within which so many distances are to be expected."""
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
        code: (words,) the query's.
        cells: those that were cut into runs.
        count, size: of runs and their codes, of which a sample was taken.
        above: -1 for no lower limit.
        radius: at most bits.
        lists: with the codes.
        scan: with the runs; hits are filled in.

    Returns:
        How many there are.
    """
    hits = run = done = 0
    flags = radius >= _LARGEST  # in the buffer, instead of distances
    there = _fits(size, scan) and not flags
    while run < count:
        first, skipped, filled = run, done, 0
        if there:
            run, filled = count, size
        while run < count and filled < _BUFFER:
            taken = min(scan.lengths[run] - done, _BUFFER - filled)
            if run + 1 < count:
                _ask_for(lists.codes, scan.runs[run + 1], scan.lengths[run + 1])
            _distances(lists.codes, scan.runs[run] + done, taken, code, radius, scan.buffer, filled)
            filled, done = filled + taken, done + taken
            if done == scan.lengths[run]:
                run, done = run + 1, 0
        found = _pick(scan, filled, min(radius, _LARGEST - 1), hits)
        end = scan.lengths[first] - skipped
        shift, owner = scan.runs[first] + skipped, scan.firsts[first]
        for hit in range(hits, found):
            at = scan.places[hit]
            while at >= end:
                first += 1
                shift, owner = scan.runs[first] - end, scan.firsts[first]
                end += scan.lengths[first]
            place = at + shift
            while lists.starts[cells[owner]] + lists.sizes[cells[owner]] <= place:
                owner += 1
            if place >= lists.starts[cells[owner]]:
                away = np.int64(distance(lists.codes, place, code)) if flags else np.int64(scan.buffer[at])
                if away > above:
                    prefetch(lists.rows, place)
                    scan.places[hits], scan.owners[hits], scan.near[hits] = place, owner, away
                    hits += 1
    _sort_hits(hits, scan)
    return hits


@compiled
def _pick(scan: ScanWorkspace, filled: int, radius: int, hits: int) -> int:
    """Append the places in the buffer whose distances are within a radius to `places`, of which `hits` are filled; says
    how many are then."""
    end = (filled + 7) // 8
    for place in range(filled, end * 8):
        scan.buffer[place] = _LARGEST
    words = scan.buffer.view(np.uint64)
    upper = np.uint64(_LARGEST - radius) * np.uint64(_ONES)
    for word in range(np.uint64(end)):
        near = ~(words[np.uint64(word)] + upper) & np.uint64(_TOPS)
        while near != np.uint64(0):
            scan.places[hits] = np.int64(word) * 8 + np.int64(trailing_zeros(near) >> np.uint64(3))
            hits += 1
            near &= near - np.uint64(1)
    return hits


@compiled
def _distances(
    codes: NDArray[np.uint64],
    start: int,
    count: int,
    query: NDArray[np.uint64],
    radius: int,
    buffer: NDArray[np.uint8],
    filled: int,
) -> None:
    """Distances of so many codes, from `start` on, into the buffer from `filled` on."""
    one, to = np.uint64(start), np.uint64(filled)
    if radius >= _LARGEST:
        for place in range(count):
            within = np.int64(distance(codes, start + place, query)) <= radius
            buffer[filled + place] = 0 if within else _LARGEST
    elif len(query) == 1:
        word = query[0]
        for i in range(np.uint64(count)):
            offset = np.uint64(i)
            buffer[to + offset] = popcount(codes[one + offset, np.uint64(0)] ^ word)
    elif len(query) == 2:
        word, other = query[0], query[1]
        for i in range(np.uint64(count)):
            offset = np.uint64(i)
            both = popcount(codes[one + offset, np.uint64(0)] ^ word) + popcount(
                codes[one + offset, np.uint64(1)] ^ other
            )
            buffer[to + offset] = min(both, np.uint64(_LARGEST))
    else:
        for place in range(count):
            buffer[filled + place] = min(distance(codes, start + place, query), np.uint64(_LARGEST))


@compiled
def _ask_for(codes: NDArray[np.uint64], start: int, size: int) -> None:
    """Have codes brought to the cache: runs are too short for the processor to see that they will be needed."""
    step = max(1, _LINE // (8 * codes.shape[1]))
    for place in range(0, min(size, _MOST_ASKED), step):
        prefetch(codes, start + place)


@compiled
def _sort_hits(hits: int, scan: ScanWorkspace) -> None:
    counts = scan.counts
    counts[:] = 0
    for hit in range(hits):
        counts[scan.near[hit] + 1] += 1
    for radius in range(1, counts.shape[0]):
        counts[radius] += counts[radius - 1]
    for hit in range(hits):
        radius = scan.near[hit]
        scan.ordered[counts[radius]] = hit
        counts[radius] += 1


@compiled
def distance(codes: NDArray[np.uint64], place: int, query: NDArray[np.uint64]) -> np.uint64:
    """Hamming distance of one of (n, words) codes to a (words,) query."""
    total = np.uint64(0)
    for word in range(query.shape[0]):
        total += popcount(codes[place, word] ^ query[word])
    return total
