"""`expanded_queries`: search again with the mean of a query and its first results.

With the query numbered 0, of weight 1, the results i = 1..n, and w_i = cos(g_0, g_i) ** power, or 0 where the cosine is
not above 0,

    feature        sum w_i g_i, divided by its length
    probabilities  sum w_i p_i / sum w_i
    code           bit by bit the sign of sum w_i b_i, with b = 1 for a bit that is set and -1 for others; where that is
                   0, the bit of the query

A power of 0 is the plain average; a higher one trusts near results more. Results that show the same thing fill in what
the query does not show; wrong ones lead away from it. So it helps where the first n results are mostly right.

Source: Chum, Philbin, Sivic, Isard and Zisserman, "Total recall: automatic query expansion with a generative feature
model for object retrieval" (ICCV 2007), power 0; Radenovic, Tolias and Chum, "Fine-tuning CNN image retrieval with no
human annotation" (TPAMI 2019), which calls the power alpha.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.argument_checks import instance_given, number_given
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.index import SemanticIndex
from semcut.indexes.result import SearchResult

EXPANSION_POWER, MOST_POWER = 3.0, 100.0
"""The default power, that of the second paper, and the highest."""

_ROUNDED = 0.05
"""Largest difference of the length of a feature from 1, which an index may have stored as bytes."""


def expanded_queries(
    index: SemanticIndex, queries: Encodings, found: SearchResult, *, power: float = EXPANSION_POWER
) -> Encodings:
    """Average each query with its results.

    Args:
        index: the index that was searched.
        queries: nq queries with features of length 1.
        found: the result of a search with these queries, such as `index.search(queries, k=3)`: all its records count.
        power: from 0 to 100.

    Returns:
        nq queries with the ids of the given ones.

    Raises:
        InvalidParameterError: an argument is of another type or out of range, `found` is not of these queries, or
            features have another length.
        UnknownIdError: a record was removed since.
        InvalidEncodingsError: the queries are not of the index.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    index.config.check(instance_given("queries", queries, Encodings))
    instance_given("found", found, SearchResult, "index.search(queries, k=3) returns one")
    power = number_given("power", power, 0, MOST_POWER)
    if len(found.ids) != len(queries):
        raise InvalidParameterError(f"found has {len(found.ids):,} queries, expected {len(queries):,}: those given")
    every = np.unique(found.ids[found.ids >= 0])
    records = index.get(every)
    if not (queries.normalised(_ROUNDED) and records.normalised(_ROUNDED)):
        raise InvalidParameterError("query expansion averages directions: expected features of length 1")
    features, probabilities = queries.features.copy(), queries.probabilities.copy()
    codes = queries.codes.copy()
    for place, ids in enumerate(found.ids):
        near = np.searchsorted(every, ids[ids >= 0])
        if not len(near):
            continue
        own = queries.features[place].astype(np.float64)
        cosines = records.features[near].astype(np.float64) @ own
        weights = np.concatenate([[1.0], np.where(cosines > 0, np.maximum(cosines, 0) ** power, 0)])
        mean = _weighted(weights, own, records.features[near])
        features[place] = mean / np.linalg.norm(mean)  # not 0: the query has weight 1, and no other points away
        probabilities[place] = _weighted(weights, probabilities[place], records.probabilities[near]) / weights.sum()
        votes = _weighted(weights, _signs(codes[place]), _signs(records.codes[near]))
        bits = np.where(np.abs(votes) < 1e-9, _signs(codes[place]) > 0, votes > 0)
        codes[place] = np.packbits(bits)
    return Encodings(
        probabilities=np.minimum(probabilities, 1), codes=codes, features=features, ids=queries.ids, any_mass=True
    )


def _weighted(
    weights: NDArray[np.float64], query: NDArray[np.floating], results: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the weighted sum of a query's row and the (n, w) rows of its results: (w,) float64."""
    total: NDArray[np.float64] = weights[0] * query.astype(np.float64) + weights[1:] @ results.astype(np.float64)
    return total


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return 1 for a bit that is set, -1 for others: (..., bits / 8) uint8 to (..., bits)."""
    return 2 * np.unpackbits(codes, axis=-1).astype(np.float64) - 1
