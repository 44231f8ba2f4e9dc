"""Numba kernels of step 3 of `tie_order`: which records of the same distance and level enter a shortlist.

The records chosen so far are in a heap with the largest mixed id at its top. When the heap is full, a record with a
larger mixed id is dropped after one comparison, whether it is relevant or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled
from semcut.indexes.search.tie_order import FIRST_FACTOR, INCREMENT, SECOND_FACTOR


@compiled
def mixed(number: int) -> np.uint64:
    """Mix the bits of an id, as `tie_order.mixed` does."""
    z = np.uint64(number) + np.uint64(INCREMENT)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST_FACTOR)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND_FACTOR)
    return z ^ (z >> np.uint64(31))


@compiled
def push(keys: NDArray[np.uint64], places: NDArray[np.int32], count: int, key: np.uint64, place: int) -> None:
    """Add a key and its place to a heap of `count` entries, whose arrays have a free slot."""
    at = count
    while at > 0 and keys[(at - 1) // 2] < key:
        above = (at - 1) // 2
        keys[at], places[at] = keys[above], places[above]
        at = above
    keys[at], places[at] = key, place


@compiled
def replace_top(keys: NDArray[np.uint64], places: NDArray[np.int32], count: int, key: np.uint64, place: int) -> None:
    """Replace the largest key of a heap of `count` entries, and its place."""
    at = 0
    while True:
        below = 2 * at + 1
        if below + 1 < count and keys[below + 1] > keys[below]:
            below += 1
        if below >= count or keys[below] <= key:
            break
        keys[at], places[at] = keys[below], places[below]
        at = below
    keys[at], places[at] = key, place
