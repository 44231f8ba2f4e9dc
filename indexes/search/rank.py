"""The last step of a search: from relevant candidates to the k best, by exact distance, fused score or relevance.

`scoring.rounding` gives float32 distances of all candidates and bounds their error. The bound shows which candidates
can be among the k best: k of them, and sometimes a few that are almost tied with the last. Exact values of
`scoring.equations` are computed for these candidates only, and decide order and ties. The compiled counterpart is
`search.rank_numba`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import distance, fused_score, hamming
from semcut.indexes.scoring.packed_rows import PackedRows, exact_relevance, relevance_error, relevance_products
from semcut.indexes.scoring.rounding import UNDERFLOW, relative_error, squared_distances
from semcut.indexes.search_params import SearchParams

Distances: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32] | None]
"""Computes squared distances between (nq, D) queries and their (nq, m) rows, inf where a row is -1, within the error
bound of `scoring.rounding`. Returns None if it cannot; the distances are then computed on the CPU."""

_CONVERTED = 1 << 23  # values of features that are converted to float32 at once: 32 MiB
_BLOCK = 1 << 17  # values whose exact sums are computed together: their float64 copies stay in the cache


class RecordReader(Protocol):
    """Reads records by row number, as a search needs them. Row -1 means no record.

    Attributes:
        ids: (n,) int64.
        codes: (n, bits / 8) uint8.
        cells: (n,) int32, positions in the `Cells` of the index; n is at least 1, so that `cells[-1]` exists.
    """

    @property
    def ids(self) -> NDArray[np.int64]: ...

    @property
    def codes(self) -> NDArray[np.uint8]: ...

    @property
    def cells(self) -> NDArray[np.int32]: ...

    def probabilities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read the probabilities of rows of any shape: an (M, C) matrix, and the position of each row in it."""
        ...

    def stored_probabilities(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32] | PackedRows, NDArray[np.int64]]:
        """Read the probabilities of rows of any shape, packed if they are stored so, and the position of each row."""
        ...

    def features(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read the features of rows of any shape: an (M, D) matrix, and the position of each row in it."""
        ...

    def release_pages(self, min_interval: float = 0) -> None:
        """Release memory-mapped pages that can be read again; called at the end of a search.

        Args:
            min_interval: minimum interval between releases, in seconds.
        """
        ...


def rank(
    queries: Encodings,
    weights: NDArray[np.float64],
    records: RecordReader,
    rows: NDArray[np.int64],
    params: SearchParams,
    scored: bool,
    distances: Distances | None = None,
) -> SearchResult:
    """Find the k best of each query's candidates. The counts in the result (`cells`, `codes` and others) are 0.

    Args:
        queries: nq queries.
        weights: (nq, C) float64, s = S p of each query.
        records: reads the candidates.
        rows: (nq, m) int64 candidates, all relevant, -1 for no candidate.
        params: k and ranking.
        scored: whether Eq. 4 applies (features are L2-normalised).
        distances: computes squared distances of all candidates; None for the CPU.
    """
    query, row = _contenders(queries, weights, records, rows, params, distances)
    ids = records.ids[row]
    exact = np.empty(len(row), np.float32)
    size = max(1, _BLOCK // queries.features.shape[1])
    for start in range(0, len(row), size):
        here = slice(start, start + size)
        features, at = records.features(row[here])
        exact[here] = distance(queries.features[query[here]], features[at])
    cost = exact
    if params.ranking != "distance":
        r = _relevance(weights, records, query, row)
        cost = -r if params.ranking == "relevance" else -fused_score(r, exact)
    keys = (ids, exact, cost) if params.ranking == "relevance" else (ids, cost)
    order = np.lexsort((*keys, query.astype(np.min_scalar_type(len(queries)))))  # small integers sort fast
    starts = np.searchsorted(query, np.arange(len(queries)))
    place = np.arange(len(order)) - starts[query]
    order, place = order[place < params.k], place[place < params.k]
    query, row, exact = query[order], row[order], exact[order]

    result = SearchResult.empty(len(queries), params.k)
    r = _relevance(weights, records, query, row)
    result.ids[query, place] = ids[order]
    result.distances[query, place] = exact
    result.relevance[query, place] = r
    result.scores[query, place] = fused_score(r, exact) if scored else np.nan
    result.hamming[query, place] = hamming(queries.codes[query], records.codes[row])
    return result


def _relevance(
    weights: NDArray[np.float64], records: RecordReader, query: NDArray[np.int64], row: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute exact R for pairs of a query and a row."""
    probabilities, at = records.stored_probabilities(row)
    return exact_relevance(weights, query, probabilities, at)


def _contenders(
    queries: Encodings,
    weights: NDArray[np.float64],
    records: RecordReader,
    rows: NDArray[np.int64],
    params: SearchParams,
    distances: Distances | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find pairs of a query and a row that include the k best rows of every query, in order of queries."""
    present = rows >= 0
    if rows.shape[1] > params.k:
        dim, squared = queries.features.shape[1], np.zeros((1, 1), np.float32)
        if params.ranking != "relevance":
            computed = None if distances is None else distances(queries.features, rows)
            squared = _squared_distances(queries.features, records, rows) if computed is None else computed
        if params.ranking == "distance":
            cost = squared
            limit = _smallest(cost, params.k) * np.float32(1 + 4 * relative_error(dim))
            limit += np.float32(UNDERFLOW)
        else:
            probabilities, at = records.stored_probabilities(rows)
            r = relevance_products(weights, probabilities, at).astype(np.float64)
            if params.ranking == "fused":
                squared[~present] = 0
            scaled = np.minimum(np.sqrt(squared, dtype=np.float64) / 2, 1)
            cost = np.where(present, -r * (1 - scaled), np.inf)
            slack = relative_error(dim) + relevance_error(weights, probabilities)
            limit = _smallest(cost, params.k) + 4 * slack * np.maximum(1, r.max(axis=1, keepdims=True))
        present &= cost <= limit
    query, place = np.nonzero(present)
    return query, rows[query, place]


def _squared_distances(
    queries: NDArray[np.float32], records: RecordReader, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute ||q - x||^2 as `squared_distances` does, and convert a bounded number of features at once."""
    width, (count, wide) = max(1, _CONVERTED // queries.shape[1]), rows.shape
    if rows.size <= width:
        features, at = records.features(rows)
        return squared_distances(queries, features, at)
    found = np.empty(rows.shape, np.float32)
    step, columns = max(1, width // wide), min(wide, width)
    for start in range(0, count, step):
        for first in range(0, wide, columns):
            part = slice(start, start + step), slice(first, first + columns)
            features, at = records.features(rows[part])
            found[part] = squared_distances(queries[part[0]], features, at)
    return found


def _smallest(values: NDArray[Any], k: int) -> NDArray[Any]:
    """Find the k-th smallest value of every row: (nq, m) to (nq, 1)."""
    return np.partition(values, k - 1, axis=1)[:, k - 1 : k]
