"""Average precision of lists, and of rankings with ties.

Many records have the same short code, so a ranking by Hamming distance is a list of groups of tied records. Its average
precision depends on the order inside the groups, by one or two points of mAP. `tied_average_precision` is the mean over
all these orders, so it depends only on the distances.

`trapezoid_average_precision` is what the programs of Oxford 5k and of Holidays compute: the area under the line that
joins the points of precision and recall. It is never above the usual one, which is the area under steps.

All functions divide by a number that the caller gives: for AP@all the number of all right records, found or not; for
AP@k the smaller of that number and k.

Source: McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied
Scores" (ECIR 2008). The trapezoid rule: Philbin, Chum, Isard, Sivic and Zisserman, "Object retrieval with large
vocabularies and fast spatial matching" (CVPR 2007), program `compute_ap`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.argument_checks import flag_given, integer_given
from semcut.indexes.array_checks import array_of, integers_given
from semcut.indexes.errors import InvalidParameterError

MAX_RECORDS = 1 << 30
"""The largest number of records that a query is compared with; tables of its length are made."""


def average_precision(right: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the average precision of every query.

    Args:
        right: (nq, m) bool; whether the result at each place is right, best first.
        relevant: (nq,) int64, at least 1; the number to divide by.

    Returns:
        (nq,) float64.

    Raises:
        InvalidParameterError: an array has another dtype or shape, or a number is out of range.
    """
    right = array_of("right", right, "b", (None, None))
    relevant = integers_given("relevant", relevant, 1, MAX_RECORDS, (len(right),))
    places = np.arange(1, right.shape[1] + 1)
    precision = np.cumsum(right, axis=1) / places
    total: NDArray[np.float64] = np.where(right, precision, 0).sum(axis=1) / relevant
    return total


def trapezoid_average_precision(right: NDArray[np.bool_], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the average precision of every query by the trapezoid rule.

    Each right result adds the mean of the precision before it and the precision with it; before the first result, the
    precision is 1.

    Args:
        right, relevant: as for `average_precision`; without results that are ignored.

    Returns:
        (nq,) float64.

    Raises:
        InvalidParameterError: an array has another dtype or shape, or a number is out of range.
    """
    right = array_of("right", right, "b", (None, None))
    relevant = integers_given("relevant", relevant, 1, MAX_RECORDS, (len(right),))
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    before = np.concatenate([np.ones((len(right), 1)), precision[:, :-1]], axis=1)[:, : right.shape[1]]
    total: NDArray[np.float64] = np.where(right, (precision + before) / 2, 0).sum(axis=1) / relevant
    return total


def tied_average_precision(
    right: NDArray[np.int64],
    every: NDArray[np.int64],
    relevant: NDArray[np.int64],
    k: int | None = None,
    *,
    trapezoid: bool = False,
) -> NDArray[np.float64]:
    """Compute the average precision of every query, as the mean over all orders of tied records.

    Take a group of n tied records, r of them right, and let a records, b of them right, come before the group. The
    record at the i-th place of the group is right with probability r / n. If it is right, then on average
    (i - 1) (r - 1) / (n - 1) of the records before it in the group are right. So the group adds the sum over i of

        r / n (b + 1 + (i - 1) (r - 1) / (n - 1)) / (a + i)

    This sum is computed from differences of harmonic numbers, without a loop over i. By the trapezoid rule, half of it
    is replaced by half of the same sum for the precision before that record,

        r / n (b + (i - 1) (r - 1) / (n - 1)) / (a + i - 1)

    which is r / n for the first record of all.

    Args:
        right: (nq, groups) int64; number of right records in each group of ties, the best group first.
        every: (nq, groups) int64; number of all records in each group.
        relevant: (nq,) int64, at least 1; the number to divide by.
        k: count only the first k places; None counts all.
        trapezoid: whether to use the trapezoid rule, see `trapezoid_average_precision`.

    Returns:
        (nq,) float64.

    Raises:
        InvalidParameterError: an array has another dtype or shape, or a number is out of range.
    """
    every = integers_given("every", every, 0, MAX_RECORDS, (None, None))
    right = integers_given("right", right, 0, MAX_RECORDS, every.shape)
    relevant = integers_given("relevant", relevant, 1, MAX_RECORDS, (len(every),))
    k = None if k is None else integer_given("k", k, 1, MAX_RECORDS)
    trapezoid = flag_given("trapezoid", trapezoid)
    if (right > every).any() or int(every.sum(axis=1).max(initial=0)) > MAX_RECORDS:
        raise InvalidParameterError(
            f"right and every do not fit: expected at most {MAX_RECORDS:,} records of a query, and in each group at "
            "most as many right ones as there are"
        )
    before = np.cumsum(every, axis=1) - every
    right_before = np.cumsum(right, axis=1) - right
    counted = every if k is None else np.clip(k - before, 0, every)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 1 + int(every.sum(axis=1).max(initial=0))))])
    inverse = harmonic[before + counted] - harmonic[before]
    share = right / np.maximum(every, 1)
    others = np.maximum(right - 1, 0) / np.maximum(every - 1, 1)
    sums = share * ((right_before + 1) * inverse + others * (counted - (before + 1) * inverse))
    if trapezoid:
        inverse_before = harmonic[np.maximum(before + counted - 1, 0)] - harmonic[np.maximum(before - 1, 0)]
        later = others * counted + (right_before - before * others) * inverse_before
        first = np.where(counted > 0, 1 + others * (counted - 1), 0)
        sums = (sums + share * np.where(before == 0, first, later)) / 2
    total: NDArray[np.float64] = sums.sum(axis=1) / relevant
    return total
