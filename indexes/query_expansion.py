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

_VALUES = 1 << 21
"""Values of results that are in memory at once."""
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
    widest = max(features.shape[1], probabilities.shape[1], 8 * codes.shape[1])
    step = max(1, _VALUES // (max(1, found.ids.shape[1]) * widest))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        there = found.ids[block] >= 0
        near = np.searchsorted(every, np.where(there, found.ids[block], every[0] if len(every) else 0))
        if not len(every):
            break
        own = queries.features[block].astype(np.float64)
        cosines = np.einsum("qkd,qd->qk", records.features[near].astype(np.float64), own)
        weights = np.where(there & (cosines > 0), np.maximum(cosines, 0) ** power, 0)
        mean = own + _weighted(weights, records.features[near])
        features[block] = mean / np.linalg.norm(mean, axis=1, keepdims=True)  # not 0: no result points away
        shares = probabilities[block] + _weighted(weights, records.probabilities[near])
        probabilities[block] = shares / (1 + weights.sum(axis=1, keepdims=True))
        signs = _signs(codes[block])
        votes = signs + _weighted(weights, _signs(records.codes[near]))
        codes[block] = np.packbits(np.where(np.abs(votes) < 1e-9, signs > 0, votes > 0), axis=1)
    return Encodings(
        probabilities=np.minimum(probabilities, 1), codes=codes, features=features, ids=queries.ids, any_mass=True
    )


def _weighted(weights: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the sums of (q, k, w) values with (q, k) weights: (q, w) float64."""
    sums: NDArray[np.float64] = np.einsum("qk,qkw->qw", weights, values.astype(np.float64))
    return sums


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return 1 for a bit that is set, -1 for others: (..., bits / 8) uint8 to (..., bits)."""
    return 2 * np.unpackbits(codes, axis=-1).astype(np.float64) - 1
