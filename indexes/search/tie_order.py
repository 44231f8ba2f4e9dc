"""The order in which records enter a shortlist: one rule, a function of the query and the record alone.

1. Hamming distance, the smallest first.
2. Level, the largest first: a coarse estimate of the record's relevance to the query. With c the record's dominant
   class and e the fixed edge below its largest probability (`pruning.cell_table.EDGES`), R is about s_c e or more. The
   level is s_c e on a scale of `LEVELS` equal steps, from 0 to max(s) times the highest edge.
3. Mixed id (`mixed`), the smallest first. Different ids have different mixed ids, so no tie remains.

Where more records share a code than a shortlist has slots, step 2 prefers records that are probably relevant. Step 3 is
a random draw that always has the same outcome. The order of the ids themselves is not random: it is often the order in
which records were added, which is often the order of their classes.

So an answer does not depend on the scanner, on the order in which records were added, on compaction or on earlier
searches. Every index follows the rule; `search.tie_order_numba` has step 3 for kernels. One exception: among very many
records at the same Hamming distance a Milvus server chooses by its own order, see `milvus.server_scanner`.

Source: mixing is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.pruning.cell_table import EDGES

LEVELS = 16
"""The number of levels in step 2."""

INCREMENT, FIRST_FACTOR, SECOND_FACTOR = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
SMALLEST_WEIGHT = 1e-300
"""If the largest weight of a query is below about this, all records have level 0: the scale would overflow."""


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
    """Find the records that come first by the rule, in every row.

    Args:
        hamming, level, ids: (nq, m), Hamming distance, level and id of each record.
        among: (nq, m) bool, where the other arrays have a record.
        size: number of records to find in a row.

    Returns:
        (nq, m) bool: the first `size` records of each row; all records of a row that has fewer.
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
    """Sort n records by the rule: (n,) distances, levels and ids to (n,) positions, the first record first."""
    return np.lexsort((mixed(ids), -level, hamming))
