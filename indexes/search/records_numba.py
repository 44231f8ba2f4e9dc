"""Numba kernels that read the probabilities and the feature of a record, in the form in which the index stores them.

An index has one form of each (`stored_values`): the arrays of the other forms have no rows. The form is a branch at run
time, which the processor predicts, so that kernels are compiled once for all forms.

Stored classes come from files that another program can change at any moment, so none is used as a position before it is
limited to the last class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import (
    compiled,
    compiled_inline,
    compiled_rounded_sum,
    compiled_sum,
    half_to_float,
    prefetch_at,
)
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
"""How many probabilities of a record bound its R, before it is computed or more of them are read."""
_SUM_MARGIN = 1e-9
"""More than the rounding of a sum of weights."""
_LINE = 64
"""Bytes of a cache line."""
_PREFETCHED_BYTES = 512
"""The largest number of bytes of a feature that are prefetched."""


@compiled_sum
def _packed_sum(weights: NDArray[np.float64], packed: NDArray[np.uint16], row: int) -> float:
    """Compute s . p in float64 from packed probabilities."""
    at, last, total = np.uint64(row), weights.shape[0] - 1, 0.0
    for place in range(np.uint64(0), np.uint64(packed.shape[1]), np.uint64(2)):
        weight = weights[np.uint64(min(np.int64(packed[at, place]), last))]
        total += weight * np.float64(packed[at, place + np.uint64(1)])
    return total * _STEP


class WeightLimits(NamedTuple):
    """What bounds the part of R that a record's smaller probabilities add.

    Attributes:
        largest: the largest weight of the query.
        total: the sum of its weights, rounded up.
    """

    largest: float
    total: float


@compiled
def weight_limits(weights: NDArray[np.float64], classes: NDArray[np.int32], tail: float) -> WeightLimits:
    """Return the limits of a query, given the classes of its large weights and the largest of the others."""
    largest, total = tail, 0.0
    for m in classes:
        largest = max(largest, weights[m])
    for m in range(weights.shape[0]):
        total += weights[m]
    return WeightLimits(largest, total * (1 + _SUM_MARGIN))


@compiled
def compare_packed(
    weights: NDArray[np.float64], limits: WeightLimits, mass: float, cutoff: float, packed: NDArray[np.uint16], row: int
) -> int:
    """Return 1 if R is surely above the cutoff, both in float32, -1 if it surely is not, and 0 in doubt.

    Mostly the first probabilities decide. The others are not larger than the last that was read, and sum to at most
    what is left of the mass. So they add at most the smaller of two products: the largest weight times what is left of
    the mass, and what is left of the sum of weights times the last probability. The loop decides only after every
    fourth probability, since the processor cannot predict where it ends.

    Args:
        weights: (C,) s of the query.
        limits: the limits of these weights.
        mass: the largest mass of all records.
        cutoff: t of Eq. 2.
        packed, row: the probabilities of the record.
    """
    above, below = (cutoff * (1 + _MARGIN) + UNDERFLOW) / _STEP, (cutoff * (1 - _MARGIN) - UNDERFLOW) / _STEP
    at, last, width = np.uint64(row), weights.shape[0] - 1, np.uint64(packed.shape[1])
    part, left, unread, place = 0.0, mass / _STEP, limits.total, np.uint64(0)
    while place < width:
        end, value = min(place + np.uint64(2 * _FIRST), width), 0.0
        while place < end:
            weight = weights[np.uint64(min(np.int64(packed[at, place]), last))]
            value = np.float64(packed[at, place + np.uint64(1)])
            part += weight * value
            left -= value
            unread -= weight
            place += np.uint64(2)
        if part > above:
            return 1
        if part + min(limits.largest * max(left, 0.0), max(unread, 0.0) * value) <= below:
            return -1
    return -1 if part <= below else 0


@compiled
def _packed_bound(
    weights: NDArray[np.float64], limits: WeightLimits, mass: float, packed: NDArray[np.uint16], row: int
) -> float:
    """Return an upper bound of R from the first probabilities of a record, see `compare_packed`."""
    at, last, value = np.uint64(row), weights.shape[0] - 1, 0.0
    part, left, unread = 0.0, mass / _STEP, limits.total
    for place in range(np.uint64(0), np.uint64(min(2 * _FIRST, packed.shape[1])), np.uint64(2)):
        weight = weights[np.uint64(min(np.int64(packed[at, place]), last))]
        value = np.float64(packed[at, place + np.uint64(1)])
        part += weight * value
        left -= value
        unread -= weight
    return (part + min(limits.largest * max(left, 0.0), max(unread, 0.0) * value)) * _STEP


@compiled_inline
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


@compiled_inline
def largest_relevance(
    weights: NDArray[np.float64],
    classes: NDArray[np.int32],
    tail: float,
    limits: WeightLimits,
    mass: float,
    rows: RecordArrays,
    row: int,
) -> float:
    """Return an upper bound of R, up to its rounding, for which only a part of the probabilities is read."""
    if rows.packed.shape[0] > 0:
        return _packed_bound(weights, limits, mass, rows.packed, row)
    return relevance_bound(weights, classes, tail, rows.probabilities[row], mass)


@compiled_inline
def prefetch_probabilities(rows: RecordArrays, row: int, classes: NDArray[np.int32]) -> None:
    """Prefetch the probabilities of some classes, or the largest that are stored."""
    if rows.packed.shape[0] > 0:
        prefetch_at(rows.packed, np.int64(row), np.int64(0))
    else:
        for m in classes:
            prefetch_at(rows.probabilities, np.int64(row), np.int64(m))


@compiled_inline
def prefetch_all_probabilities(rows: RecordArrays, row: int) -> None:
    """Prefetch all probabilities of a record."""
    for column in range(0, rows.packed.shape[1] if rows.packed.shape[0] > 0 else 0, _LINE // 2):
        prefetch_at(rows.packed, np.int64(row), np.int64(column))
    for column in range(0, rows.probabilities.shape[1] if rows.probabilities.shape[0] > 0 else 0, _LINE // 4):
        prefetch_at(rows.probabilities, np.int64(row), np.int64(column))


@compiled_inline
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


@compiled_inline
def feature_distance(feature: NDArray[np.float32], rows: RecordArrays, row: int) -> float:
    """Compute ||q - x||^2 in float64, with its terms added in any order."""
    if rows.features.shape[0] > 0:
        return squared_distance(feature, rows.features[row])
    if rows.halves.shape[0] > 0:
        return _distance_of_halves(feature, rows.halves[row])
    return _distance_of_bytes(feature, rows.bytes[row], rows.step)


@compiled_inline
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
