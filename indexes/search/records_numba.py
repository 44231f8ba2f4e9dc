"""Numba kernels that read the probabilities and the feature of a record, in the form in which the index stores them.

An index has one form of each (`stored_values`): the arrays of the other forms have no rows. The form is a branch at run
time, which the processor predicts, so that kernels are compiled once for all forms.

Stored classes come from files that another program can change at any moment, so none is used as a position before it is
compared with the number of classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, compiled_rounded_sum, compiled_sum, half_to_float, prefetch_at
from semcut.indexes.scoring.equations_numba import (
    relevance_bound,
    rough_squared_distance,
    squared_distance,
    weighted_sum,
)
from semcut.indexes.scoring.rounding import SUM_ERROR, UNDERFLOW
from semcut.indexes.search.numba_arrays import RecordArrays

_STEP = 2.0**-16
"""`packed_rows.STEP`."""
_MARGIN = 1e-6
"""Far more than the rounding of R and of the cutoff to float32."""
_FIRST = 4
"""How many probabilities of a record bound its R, before it is computed."""
_LINE = 64
"""Bytes of a cache line."""
_PREFETCHED_BYTES = 512
"""The largest number of bytes of a feature that are prefetched."""


@compiled
def _packed_sum(weights: NDArray[np.float64], packed: NDArray[np.uint16], row: int) -> float:
    """Compute s . p in float64 from packed probabilities."""
    classes, total = weights.shape[0], 0.0
    for place in range(0, packed.shape[1], 2):
        number, value = packed[row, place], packed[row, place + 1]
        if value == 0:  # the largest come first
            break
        if number < classes:
            total += weights[number] * np.float64(value)
    return total * _STEP


@compiled
def compare_packed(
    weights: NDArray[np.float64], largest: float, mass: float, cutoff: float, packed: NDArray[np.uint16], row: int
) -> int:
    """Return 1 if R is surely above the cutoff, both in float32, -1 if it surely is not, and 0 in doubt.

    Mostly the first probabilities decide: the others can add at most the largest weight times what is left of the mass.

    Args:
        weights: (C,) s of the query.
        largest: the largest of them.
        mass: the largest mass of all records.
        cutoff: t of Eq. 2.
        packed, row: the probabilities of the record.
    """
    above, below = (cutoff * (1 + _MARGIN) + UNDERFLOW) / _STEP, (cutoff * (1 - _MARGIN) - UNDERFLOW) / _STEP
    classes, part, left = weights.shape[0], 0.0, mass / _STEP
    for place in range(0, packed.shape[1], 2):
        number, value = packed[row, place], np.float64(packed[row, place + 1])
        if number < classes:
            part += weights[number] * value
        left -= value
        if part > above:
            return 1
        if part + largest * max(left, 0.0) <= below:
            return -1
    return 0


@compiled
def _packed_bound(
    weights: NDArray[np.float64], largest: float, mass: float, packed: NDArray[np.uint16], row: int
) -> float:
    """Return an upper bound of R from the first probabilities of a record, see `compare_packed`."""
    classes, part, left = weights.shape[0], 0.0, mass / _STEP
    for place in range(0, min(2 * _FIRST, packed.shape[1]), 2):
        number, value = packed[row, place], np.float64(packed[row, place + 1])
        if number < classes:
            part += weights[number] * value
        left -= value
    return (part + largest * max(left, 0.0)) * _STEP


@compiled
def largest_weight(weights: NDArray[np.float64], classes: NDArray[np.int32], tail: float) -> float:
    """Return the largest of all weights, given the classes of the large weights and the largest of the others."""
    largest = tail
    for m in classes:
        largest = max(largest, weights[m])
    return largest


@compiled
def rounded_relevance(
    weights: NDArray[np.float64], rows: RecordArrays, row: int, doubt: float
) -> tuple[np.float32, np.float32]:
    """Return the smallest and the largest float32 value of R (Eq. 1) over all orders of its sum.

    The two are hardly ever different.

    Args:
        weights: (C,) s of the query.
        rows: the records.
        row: the record.
        doubt: a factor on the rounding bound, see `SearchSettings`.
    """
    terms = weights.shape[0]
    if rows.packed.shape[0] > 0:
        terms, total = rows.packed.shape[1] // 2, _packed_sum(weights, rows.packed, row)
    else:
        total = weighted_sum(weights, rows.probabilities[row])
    rounding = (terms + 8) * SUM_ERROR * doubt
    return np.float32(total * (1 - rounding)), np.float32(total * (1 + rounding))


@compiled
def largest_relevance(
    weights: NDArray[np.float64], classes: NDArray[np.int32], tail: float, mass: float, rows: RecordArrays, row: int
) -> float:
    """Return an upper bound of R, up to its rounding, for which only a part of the probabilities is read."""
    if rows.packed.shape[0] > 0:
        return _packed_bound(weights, largest_weight(weights, classes, tail), mass, rows.packed, row)
    return relevance_bound(weights, classes, tail, rows.probabilities[row], mass)


@compiled
def prefetch_probabilities(rows: RecordArrays, row: int, classes: NDArray[np.int32]) -> None:
    """Prefetch the probabilities of some classes, or the largest that are stored."""
    if rows.packed.shape[0] > 0:
        prefetch_at(rows.packed, np.int64(row), np.int64(0))
    else:
        for m in classes:
            prefetch_at(rows.probabilities, np.int64(row), np.int64(m))


@compiled
def prefetch_all_probabilities(rows: RecordArrays, row: int) -> None:
    """Prefetch all probabilities of a record."""
    for column in range(0, rows.packed.shape[1] if rows.packed.shape[0] > 0 else 0, _LINE // 2):
        prefetch_at(rows.packed, np.int64(row), np.int64(column))
    for column in range(0, rows.probabilities.shape[1] if rows.probabilities.shape[0] > 0 else 0, _LINE // 4):
        prefetch_at(rows.probabilities, np.int64(row), np.int64(column))


@compiled
def prefetch_feature(rows: RecordArrays, row: int) -> None:
    """Prefetch the feature of a record, up to `_PREFETCHED_BYTES`."""
    if rows.features.shape[0] > 0:
        for column in range(0, min(_PREFETCHED_BYTES // 4, rows.features.shape[1]), _LINE // 4):
            prefetch_at(rows.features, np.int64(row), np.int64(column))
    elif rows.halves.shape[0] > 0:
        for column in range(0, min(_PREFETCHED_BYTES // 2, rows.halves.shape[1]), _LINE // 2):
            prefetch_at(rows.halves, np.int64(row), np.int64(column))
    else:
        for column in range(0, min(_PREFETCHED_BYTES, rows.bytes.shape[1]), _LINE):
            prefetch_at(rows.bytes, np.int64(row), np.int64(column))


@compiled
def feature_distance(feature: NDArray[np.float32], rows: RecordArrays, row: int) -> float:
    """Compute ||q - x||^2 in float64, with its terms added in any order."""
    if rows.features.shape[0] > 0:
        return squared_distance(feature, rows.features[row])
    if rows.halves.shape[0] > 0:
        return _distance_of_halves(feature, rows.halves[row])
    return _distance_of_bytes(feature, rows.bytes[row], rows.step)


@compiled
def rough_feature_distance(feature: NDArray[np.float32], rows: RecordArrays, row: int) -> np.float32:
    """Compute ||q - x||^2 in float32, which is faster. `rounding.relative_error` bounds its error."""
    if rows.features.shape[0] > 0:
        return rough_squared_distance(feature, rows.features[row])
    if rows.halves.shape[0] > 0:
        return _rough_distance_of_halves(feature, rows.halves[row])
    return _rough_distance_of_bytes(feature, rows.bytes[row], rows.step)


@compiled_sum
def _distance_of_halves(query: NDArray[np.float32], feature: NDArray[np.uint16]) -> float:
    total = 0.0
    for column in range(np.uint64(query.shape[0])):
        difference = np.float64(query[column]) - np.float64(half_to_float(feature[column]))
        total += difference * difference
    return total


@compiled_rounded_sum
def _distance_of_bytes(query: NDArray[np.float32], feature: NDArray[np.int8], step: np.float32) -> float:
    total = 0.0
    for column in range(np.uint64(query.shape[0])):
        difference = np.float64(query[column]) - np.float64(np.float32(feature[column]) * step)
        total += difference * difference
    return total


@compiled_sum
def _rough_distance_of_halves(query: NDArray[np.float32], feature: NDArray[np.uint16]) -> np.float32:
    total = np.float32(0)
    for column in range(np.uint64(query.shape[0])):
        difference = query[column] - half_to_float(feature[column])
        total += difference * difference
    return total


@compiled_rounded_sum
def _rough_distance_of_bytes(query: NDArray[np.float32], feature: NDArray[np.int8], step: np.float32) -> np.float32:
    total = np.float32(0)
    for column in range(np.uint64(query.shape[0])):
        difference = query[column] - np.float32(feature[column]) * step
        total += difference * difference
    return total
