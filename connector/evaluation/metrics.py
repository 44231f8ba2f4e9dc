"""Average precision, of lists and of rankings with ties.

A short code is shared by many records, so a ranking by Hamming distance is a list of groups, and its average precision
depends on the order inside them: by one or two points of mAP. `tied_average_precision` is the mean over all orders,
so it depends on nothing but the distances.

Both divide by what the caller says: by all right records for AP@all, found or not, and by what k places could hold for
AP@k.

Source: McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores" (ECIR 2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(right: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average precision of every query.

    Args:
        right: (nq, m) bool; whether the result at each place is right, best first.
        relevant: (nq,) int64, at least 1; what to divide by.

    Returns:
        (nq,) float64.
    """
    places = np.arange(1, right.shape[1] + 1)
    precision = np.cumsum(right, axis=1) / places
    total: NDArray[np.float64] = np.where(right, precision, 0).sum(axis=1) / relevant
    return total


def tied_average_precision(
    right: NDArray[np.int64], every: NDArray[np.int64], relevant: NDArray[np.int64], k: int | None = None
) -> NDArray[np.float64]:
    """Average precision of every query, the mean over all orders of records that are tied.

    In a group of n records, r of them right, behind a records of which b are right, the record at the i-th place is
    right with probability r / n, and then (i - 1) (r - 1) / (n - 1) of those before it in the group are right, too. So
    the group adds the sum over i of

        r / n (b + 1 + (i - 1) (r - 1) / (n - 1)) / (a + i)

    which harmonic numbers give at once.

    Args:
        right: (nq, groups) int64; right records in each group of ties, the best group first.
        every: (nq, groups) int64; all records in it.
        relevant: (nq,) int64, at least 1; what to divide by.
        k: count the first k places only.

    Returns:
        (nq,) float64.
    """
    before = np.cumsum(every, axis=1) - every
    right_before = np.cumsum(right, axis=1) - right
    seen = every if k is None else np.clip(k - before, 0, every)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 1 + int(every.sum(axis=1).max(initial=0))))])
    inverse = harmonic[before + seen] - harmonic[before]
    share = right / np.maximum(every, 1)
    others = np.maximum(right - 1, 0) / np.maximum(every - 1, 1)
    sums = share * ((right_before + 1) * inverse + others * (seen - (before + 1) * inverse))
    total: NDArray[np.float64] = sums.sum(axis=1) / relevant
    return total
