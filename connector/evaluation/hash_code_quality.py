"""Measure how well hash codes rank records: average precision by Hamming distance, without an index.

The average precision is the mean over all orders of the records that are at the same Hamming distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import MAX_CLASSES
from semcut.connector.evaluation.metrics import MAX_RECORDS, average_precision, tied_average_precision
from semcut.indexes.array_checks import array_of, integers_given
from semcut.indexes.errors import DataError, InvalidParameterError, shown

_ROWS_PER_BLOCK = 256


def codes_given(name: str, value: NDArray[np.uint8], width: int | None = None) -> NDArray[np.uint8]:
    """Read packed codes, (n, width) uint8."""
    array = array_of(name, value, "u", (None, width))
    if array.dtype != np.uint8:
        raise InvalidParameterError(f"{name} have dtype {array.dtype}, expected uint8")
    return array


def ks_given(ks: Sequence[int]) -> tuple[int, ...]:
    """Read the values of k, at least one."""
    if not len(found := integers_given("ks", ks, 1, MAX_RECORDS)):
        raise InvalidParameterError(f"ks = {shown(ks)}, expected at least one value of k")
    return tuple(found.tolist())


def totals_given(labels: NDArray[np.int64], query_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the records that have the label of each query.

    Raises:
        DataError: no record has the label of a query.
        InvalidParameterError: a label is no integer, or out of range.
    """
    labels = integers_given("labels", labels, -1, MAX_CLASSES - 1)
    query_labels = integers_given("query_labels", query_labels, 0, MAX_CLASSES - 1)
    highest = int(query_labels.max(initial=0))
    total = np.bincount(labels[labels >= 0], minlength=highest + 1)[query_labels]
    if (total < 1).any():
        raise DataError(f"{np.count_nonzero(total < 1)} of {len(total)} queries have no record of their class")
    return total


def hamming_all_pairs(queries: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Compute the (nq, n) Hamming distances of all pairs of (nq, bytes) and (n, bytes) packed codes.

    The loop over bytes needs temporary arrays of shape (nq, n) only; `equations.hamming` needs (nq, n, bytes).
    """
    queries = codes_given("queries", queries)
    codes = codes_given("codes", codes, queries.shape[1])
    distances = np.zeros((len(queries), len(codes)), np.int16)
    for byte in range(codes.shape[1]):
        distances += np.bitwise_count(queries[:, byte, None] ^ codes[None, :, byte])
    return distances


def code_average_precision(
    codes: NDArray[np.uint8],
    labels: NDArray[np.int64],
    queries: NDArray[np.uint8],
    query_labels: NDArray[np.int64],
    *,
    ks: tuple[int, ...],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the average precision of every query, with all records ranked by Hamming distance.

    Args:
        codes: (n, bytes) packed.
        labels: (n,) int64, -1 for unknown.
        queries: (nq, bytes) packed.
        query_labels: (nq,) int64; at least one record has the label of each query.
        ks: the values of k for AP@k.

    Returns:
        (nq,) AP@all and (nq, ks) AP@k, float64.

    Raises:
        InvalidParameterError: an array has another dtype or shape, or a number is out of range.
        DataError: no record has the label of a query.
    """
    codes = codes_given("codes", codes)
    queries = codes_given("queries", queries, codes.shape[1])
    labels = integers_given("labels", labels, -1, MAX_CLASSES - 1, (len(codes),))
    query_labels = integers_given("query_labels", query_labels, 0, MAX_CLASSES - 1, (len(queries),))
    ks = ks_given(ks)
    total = totals_given(labels, query_labels)
    every, right = np.zeros((2, len(queries), 8 * codes.shape[1] + 1), np.int64)
    for i, query in enumerate(queries):
        distances = hamming_all_pairs(query[None], codes)[0]
        every[i] = np.bincount(distances, minlength=every.shape[1])
        right[i] = np.bincount(distances[labels == query_labels[i]], minlength=every.shape[1])
    at_k = [tied_average_precision(right, every, np.minimum(k, total), k) for k in ks]
    return tied_average_precision(right, every, total), np.stack(at_k, axis=1)


def leave_one_out_map(
    codes: NDArray[np.uint8], probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[float, float] | None:
    """Compute mAP@all with each record as a query among all other records.

    Args:
        codes: (n, bytes) packed.
        probabilities: (n, C) float64.
        labels: (n,) int64, 0 or more.

    Returns:
        mAP@all by Hamming distance, and mAP@all by relevance R with S = I. Both are means over the records whose class
        has another record; None if no class has two records.

    Raises:
        InvalidParameterError: an array has another dtype or shape, or a number is out of range.
    """
    codes = codes_given("codes", codes)
    probabilities = array_of("probabilities", probabilities, "f", (len(codes), None))
    labels = integers_given("labels", labels, 0, MAX_CLASSES - 1, (len(codes),))
    total = np.bincount(labels)[labels] - 1
    queries = np.flatnonzero(total)
    if not len(queries):
        return None
    bins = 8 * codes.shape[1] + 1
    by_code, by_relevance = np.empty((2, len(queries)))
    for start in range(0, len(queries), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        rows = queries[block]
        positions = np.arange(len(rows))
        same = labels[rows, None] == labels
        bin_of_pair = hamming_all_pairs(codes[rows], codes) + bins * positions[:, None]
        every = np.bincount(bin_of_pair.ravel(), minlength=bins * len(rows)).reshape(-1, bins)
        right = np.bincount(bin_of_pair[same], minlength=bins * len(rows)).reshape(-1, bins)
        every[:, 0] -= 1  # the record itself, at distance 0
        right[:, 0] -= 1
        by_code[block] = tied_average_precision(right, every, total[rows])
        relevance = probabilities[rows] @ probabilities.T
        relevance[positions, rows] = -1  # below every relevance: the record itself comes last and is removed
        order = np.argsort(-relevance, axis=1, kind="stable")[:, :-1]
        by_relevance[block] = average_precision(np.take_along_axis(same, order, axis=1), total[rows])
    return float(by_code.mean()), float(by_relevance.mean())
