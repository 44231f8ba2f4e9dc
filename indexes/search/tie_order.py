"""The order in which records come to a shortlist: one rule, a function of the query and the record alone.

1. Hamming distance, the smallest first.
2. Level, the largest first: what the kind of the record's cell says of its relevance to the query. With c the record's
   dominant class and e the fixed edge of its largest probability (`partitions.EDGES`), R is about s_c e or more. The
   level is the place of s_c e on a scale of `LEVELS` equal steps from 0 to max(s) times the highest edge.
3. The mixed id (`mixed`), the smallest first. No two ids have the same, so nothing is left undecided.

Where a code is shared by more records than a shortlist holds, step 2 decides what the answer is worth. Step 3 is a
draw that always ends the same: unlike the id itself it says nothing of the order in which records were added, which
often is the order of their classes. So an answer does not depend on the engine, on the order of adding, on compaction
or on what has been searched before.

Every index follows the rule; `compiled.shortlist` has it for kernels. A Milvus server chooses by itself among very many
records at one Hamming distance: see `milvus.hits`.

Source: mixing is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.pruning.cells import EDGES

LEVELS = 16

INCREMENT, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SMALLEST_WEIGHT = 1e-300
"""Largest weight of a query below which all its records have level 0: the scale would overflow."""


def mixed(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix ids, one to one, so that their order looks random: (n,) int64 to (n,) uint64."""
    z = ids.astype(np.uint64) + np.uint64(INCREMENT)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST_FACTOR)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND_FACTOR)
    return z ^ (z >> np.uint64(31))


def levels(weights: NDArray[np.float64], own: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int32]:
    """Compute the levels of records.

    Args:
        weights: (nq, C), s = S p of each query.
        own: (nq, m), the weight of each record's dominant class.
        edges: (nq, m), the edge of its largest probability.

    Returns:
        (nq, m) int32, from 0 to LEVELS - 1.
    """
    top = weights.max(axis=1, keepdims=True) * EDGES[0]
    scale = np.where(top > SMALLEST_WEIGHT, (LEVELS - 1) / np.maximum(top, SMALLEST_WEIGHT), 0.0)
    return (own * edges * scale).astype(np.int32)


def first(
    hamming: NDArray[np.int32], level: NDArray[np.int32], ids: NDArray[np.int64], among: NDArray[np.bool_], size: int
) -> NDArray[np.bool_]:
    """Find the first records of every row by the rule.

    Args:
        hamming, level, ids: (nq, m) of each record.
        among: (nq, m), which places hold a record.
        size: how many to find in a row, at most.

    Returns:
        (nq, m) bool; where a row holds no more than `size` records, all of them.
    """
    crowded = np.flatnonzero(np.count_nonzero(among, axis=1) > size)
    chosen = among.copy()
    if not len(crowded):
        return chosen
    order = np.where(among, hamming * LEVELS - level, np.iinfo(np.int32).max)[crowded]
    last = np.partition(order, size - 1, axis=1)[:, size - 1 : size]
    before = order < last
    left = size - np.count_nonzero(before, axis=1)
    row, place = np.nonzero(order == last)
    drawn = np.lexsort((mixed(ids[crowded[row], place]), row))
    starts = np.searchsorted(row, np.arange(len(crowded)))
    taken = drawn[np.arange(len(row)) - starts[row] < left[row]]
    before[row[taken], place[taken]] = True
    chosen[crowded] = before
    return chosen


def in_order(
    hamming: NDArray[np.int32], level: NDArray[np.int32], ids: NDArray[np.int64]
) -> NDArray[np.signedinteger[Any]]:
    """Sort n records by the rule: (n,) of each to (n,) positions, the first one first."""
    return np.lexsort((mixed(ids), -level, hamming))
