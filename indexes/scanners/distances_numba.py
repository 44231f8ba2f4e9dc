"""Numba kernels that compute Hamming distances of contiguous codes, and pick those within a radius.

**Comparing eight distances at once.** A 64-bit word holds eight distances of at most 127. For a radius r, the byte
d + (127 - r) has its highest bit set exactly if d > r, and never carries into the next byte.

Codes are rows of 64-bit words, padded with zeros. Vectorising is left to LLVM. Inner loops have unsigned indices: numba
tests every signed index for being negative, and LLVM does not vectorise such a loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, popcount, prefetch, trailing_zeros

LARGEST = 127
"""The largest distance in the buffer; larger distances are stored as this value."""
_ONES = 0x0101010101010101
"""A word with 1 in every byte."""
_TOPS = 0x8080808080808080
"""A word with the highest bit of every byte set."""
_MOST_PREFETCHED = 2048
"""The largest number of codes of a run that are prefetched."""
_LINE = 64
"""Bytes of a cache line."""


@compiled
def distances(
    codes: NDArray[np.uint64],
    start: int,
    count: int,
    query: NDArray[np.uint64],
    radius: int,
    buffer: NDArray[np.uint8],
    filled: int,
) -> None:
    """Write the distances of `count` codes, from position `start` on, to the buffer, from position `filled` on.

    Codes of one and two words have loops of their own, which LLVM vectorises. For a radius above 126, flags are written
    instead of distances: 0 within the radius, 127 outside.
    """
    one, to = np.uint64(start), np.uint64(filled)
    if radius >= LARGEST:
        for place in range(count):
            within = np.int64(hamming(codes, start + place, query)) <= radius
            buffer[filled + place] = 0 if within else LARGEST
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
            buffer[to + offset] = min(both, np.uint64(LARGEST))
    else:
        for place in range(count):
            buffer[filled + place] = min(hamming(codes, start + place, query), np.uint64(LARGEST))


@compiled
def pick_within(buffer: NDArray[np.uint8], places: NDArray[np.int32], filled: int, radius: int, hits: int) -> int:
    """Append to `places` the positions in the buffer at which the distance is within a radius.

    Args:
        buffer: (a multiple of 8,) the distances.
        places: (capacity,) int32, is written.
        filled: the number of distances in the buffer.
        radius: at most 126.
        hits: the number of `places` that are filled already.

    Returns:
        The new number of filled `places`.
    """
    end = (filled + 7) // 8
    for place in range(filled, end * 8):
        buffer[place] = LARGEST
    words = buffer.view(np.uint64)
    upper = np.uint64(LARGEST - radius) * np.uint64(_ONES)
    for word in range(np.uint64(end)):
        near = ~(words[np.uint64(word)] + upper) & np.uint64(_TOPS)
        while near != np.uint64(0):
            places[hits] = np.int64(word) * 8 + np.int64(trailing_zeros(near) >> np.uint64(3))
            hits += 1
            near &= near - np.uint64(1)
    return hits


@compiled
def hamming(codes: NDArray[np.uint64], place: int, query: NDArray[np.uint64]) -> np.uint64:
    """Compute the Hamming distance of one of (n, words) codes to a (words,) query."""
    total = np.uint64(0)
    for word in range(query.shape[0]):
        total += popcount(codes[place, word] ^ query[word])
    return total


@compiled
def prefetch_run(codes: NDArray[np.uint64], start: int, size: int) -> None:
    """Prefetch the codes of a run: runs are too short for the processor to predict that they will be needed."""
    step = max(1, _LINE // (8 * codes.shape[1]))
    for place in range(0, min(size, _MOST_PREFETCHED), step):
        prefetch(codes, start + place)
