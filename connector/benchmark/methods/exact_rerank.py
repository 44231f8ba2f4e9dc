"""Re-rank the results of a FAISS index by the exact Euclidean distance of features.

All binary indexes of FAISS get the same fast re-rank: distances of the shortlist are computed in C++ from features that
are read in place; then the k smallest are found by sorting integers that hold both distance and id.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.structures import Ids, Search
from semcut.indexes import Encodings
from semcut.indexes.scoring.rounding import squared_distances

_LOW_BITS = np.uint64(0xFFFFFFFF)
_INFINITE = np.float32(np.inf).view(np.uint32).astype(np.uint64)


def rerank(queries: NDArray[np.float32], features: NDArray[np.float32], rows: Ids, k: int) -> Ids:
    """Return the k candidate rows nearest to each query by Euclidean distance, ties by row.

    Args:
        queries: (nq, D) float32.
        features: (n, D) float32, n < 2^32.
        rows: (nq, m) int64 candidates, -1 for none.
        k: results per query.

    Returns:
        (nq, k) int64, padded with -1 at the end of a row that has fewer candidates.
    """
    squared = squared_distances(queries, features, rows)
    # float32 numbers that are not negative are ordered like their bits
    keys = squared.view(np.uint32).astype(np.uint64) << np.uint64(32) | rows.view(np.uint64) & _LOW_BITS
    if keys.shape[1] > k:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys = np.sort(keys, axis=1)
    best = np.full((len(rows), k), -1, np.int64)
    found = (keys & _LOW_BITS).astype(np.int64)
    best[:, : keys.shape[1]] = np.where(keys >> np.uint64(32) >= _INFINITE, -1, found)
    return best


def with_rerank(search: Search, features: Callable[[], NDArray[np.float32]], shortlist: int) -> Search:
    """Return a search that orders the first `shortlist` results of another search by exact distance."""

    def search_and_rerank(queries: Encodings, k: int) -> Ids:
        return rerank(queries.features, features(), search(queries, shortlist), k)

    return search_and_rerank
