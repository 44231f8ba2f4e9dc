"""The cutoff of Eq. 2: which candidates are relevant to a query. Exact, and about as fast as a float32 product.

There are three tests, each for the candidates that the previous test cannot decide:

    bounds      with many classes: a query's few large weights, or a record's first probabilities, bound R
    float32     R as a float32 product, with its error bound (`scoring.rounding`); not if probabilities are packed
    exact       R by `scoring.equations`, for the few candidates whose float32 value is within the error bound of t

Candidates in cells whose records are all certain to be relevant need no test. The compiled counterpart is
`search.shortlist_numba`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.pruning.class_lists import LargeWeights
from semcut.indexes.scoring.equations import is_relevant
from semcut.indexes.scoring.packed_rows import PackedRows, exact_relevance, relevance_products
from semcut.indexes.scoring.rounding import UNDERFLOW, relative_error
from semcut.indexes.search.rank import RecordReader
from semcut.indexes.search_tuning import TUNING


def relevant_candidates(
    records: RecordReader,
    rows: NDArray[np.int64],
    certain: NDArray[np.bool_],
    weights: NDArray[np.float64],
    cutoff: float,
    mass: float,
) -> NDArray[np.bool_]:
    """Return which candidates exist and have R > t.

    Args:
        records: reads the probabilities of the candidates.
        rows: (nq, m) int64, the candidates; -1 for no candidate.
        certain: (nq, m) bool, which candidates are known to be relevant.
        weights: (nq, C) float64, s = S p of each query.
        cutoff: t of Eq. 2.
        mass: the largest mass of all records, see `pruning.cells`.

    Returns:
        (nq, m) bool.
    """
    present = rows >= 0
    relevant, open_ = present & certain, present & ~certain
    probabilities, at = records.stored_probabilities(np.where(open_, rows, -1))
    classes = weights.shape[1]
    if isinstance(probabilities, PackedRows) or classes >= TUNING.wide:
        query, place = np.nonzero(open_)
        if isinstance(probabilities, PackedRows):
            passes, fails = probabilities.bounded(weights, query, at[query, place], cutoff, mass)
        else:
            passes, fails = _bounded(query, at[query, place], probabilities, weights, cutoff, mass)
        relevant[query, place] = passes
        open_[query, place] = ~passes & ~fails
        at = np.where(open_, at, -1)
    if open_.any() and isinstance(probabilities, PackedRows):
        query, place = np.nonzero(open_)
        exact = exact_relevance(weights, query, probabilities, at[query, place])
        relevant[query, place] = is_relevant(exact, cutoff)
    elif open_.any():
        r = relevance_products(weights, probabilities, at)
        doubtful = np.abs(r - cutoff) <= cutoff * 2 * relative_error(classes) + UNDERFLOW
        relevant |= open_ & (r > cutoff)
        query, place = np.nonzero(doubtful & open_)
        exact = exact_relevance(weights, query, probabilities, at[query, place])
        relevant[query, place] = is_relevant(exact, cutoff)
    return relevant


def _bounded(
    query: NDArray[np.int64],
    at: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    weights: NDArray[np.float64],
    cutoff: float,
    mass: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bound R of (n,) pairs of a query and a row of probabilities, for queries that have few large weights.

    Only the row's probabilities of the classes with large weights are read. With `known` their sum, the other
    probabilities sum to mass - known at most; the upper bound multiplies this by the largest of the other weights.

    Returns:
        passes (n,) bool, whether R is certainly above the cutoff; fails (n,) bool, whether R is certainly not above it.
    """
    large, slack = LargeWeights.of(weights, cutoff), relative_error(probabilities.shape[1])
    passes, fails = np.zeros(len(query), bool), np.zeros(len(query), bool)
    few = np.flatnonzero(large.few[query])
    query, at = query[few], at[few]
    least, known = large.sums(query, at, probabilities)
    most = least + large.tails[query] * np.maximum(0, mass - known)
    passes[few] = least * (1 - slack) > cutoff + UNDERFLOW
    fails[few] = most * (1 + slack) + UNDERFLOW <= cutoff
    return passes, fails
