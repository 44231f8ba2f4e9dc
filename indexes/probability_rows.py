"""Check rows of probabilities: they sum to 1, unless any mass is allowed; scale those that do not by rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidEncodingsError

SUM_TOLERANCE = 1e-3
"""Largest difference between the sum of a row of probabilities and 1. A softmax of 1000 classes in float16 passes."""

LARGEST_UNIT_MASS = np.nextafter(np.float32(1 + SUM_TOLERANCE), np.float32(np.inf))
"""What `row_masses` returns for a row whose sum is `SUM_TOLERANCE` above 1."""

ROUNDED_SUM_TOLERANCE = 1e-2
"""Largest such difference that is put down to rounding, and scaled away: a softmax that was computed in bfloat16."""

ROUNDED_STEPS = (100, 1_000, 10_000, 255, 256)
"""Probabilities may have been rounded to multiples of 1 / step, after which rows can be further from 1: to 2, 3 or 4
decimals, or to bytes."""

_ROWS_AT_ONCE = 1024

ZERO_TOLERANCE = 1e-6
"""Probabilities below zero by at most this were rounded, and become 0."""


def checked_probabilities(probabilities: NDArray[np.float32], any_mass: bool) -> NDArray[np.float32]:
    """Return (n, C) probabilities whose rows sum to 1, scaled where they were rounded.

    Args:
        probabilities: (n, C) float32.
        any_mass: whether rows may have any sum, and only single values are limited by 1. No row is scaled then.

    Raises:
        InvalidEncodingsError: values are negative, not finite or above 1, or no rounding explains the sum of a row.
    """
    if not len(probabilities):
        return probabilities
    if -ZERO_TOLERANCE <= probabilities.min() < 0:
        probabilities = np.maximum(probabilities, np.float32(0))
    with np.errstate(invalid="ignore"):
        sums = probabilities.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1) <= SUM_TOLERANCE)  # written so that NaN counts as wrong
    if any_mass:
        wrong = ~(probabilities.max(axis=1) <= 1 + SUM_TOLERANCE)
    if not wrong.any() and probabilities.min() >= 0:
        return probabilities
    if not np.isfinite(probabilities).all():
        row = int(np.argmin(np.isfinite(probabilities).all(axis=1)))
        raise InvalidEncodingsError(f"probabilities of row {row} hold NaN or infinity, expected finite values")
    if probabilities.min() < 0:
        row = int(np.argmax(probabilities.min(axis=1) < 0))
        raise InvalidEncodingsError(
            f"probabilities of row {row} go down to {probabilities[row].min():g}, expected values >= 0: apply a softmax"
        )
    if any_mass:
        row = int(np.argmax(wrong))
        raise InvalidEncodingsError(
            f"probabilities of row {row} go up to {probabilities[row].max():g}, expected values of at most 1: apply a "
            "softmax, or a sigmoid for several labels"
        )
    scaled, rows = probabilities.copy(), np.flatnonzero(wrong)
    for part in np.split(rows, range(_ROWS_AT_ONCE, len(rows), _ROWS_AT_ONCE)):
        explained = _were_rounded(probabilities[part], sums[part])
        if not explained.all():
            raise _no_probabilities(probabilities, int(part[np.argmin(explained)]), sums)
        scaled[part] = probabilities[part] / sums[part, None]
    return scaled


def _no_probabilities(probabilities: NDArray[np.float32], row: int, sums: NDArray[np.float64]) -> InvalidEncodingsError:
    largest = probabilities[row].max()
    return InvalidEncodingsError(
        f"probabilities of row {row} sum to {sums[row]:g}, expected 1 within {SUM_TOLERANCE}, or within "
        f"{ROUNDED_SUM_TOLERANCE} if they were rounded: "
        + (
            f"values go up to {largest:g}, so apply a softmax if they are logits"
            if largest > 1
            else "divide each row by its sum, or pass any_mass=True for parts of a softmax or several labels"
        )
    )


def _were_rounded(rows: NDArray[np.float32], totals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return for each of (n, C) rows whether rounding explains that its sum is not 1: (n,).

    Rounding to steps changes each value by at most half a step; it can only make those smaller that are 0 now. A float
    of 16 bits, to which rounded values were converted, is off by its own precision.
    """
    found = np.abs(totals - 1) <= ROUNDED_SUM_TOLERANCE
    if found.all():
        return found
    precision = _precisions(rows)
    present = np.count_nonzero(rows, axis=1)
    for step in ROUNDED_STEPS:
        units = rows.astype(np.float64) * step
        half = 0.5 / step
        lowest, highest = 1 - half * rows.shape[1], 1 + half * present
        possible = (np.maximum(0.5, lowest * (1 - precision)) <= totals) & (totals <= highest * (1 + precision))
        found |= possible & (np.abs(units - np.rint(units)) <= precision[:, None] * units).all(axis=1)
    return found


def _precisions(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return for each row the relative precision of the float type that its values were in at last."""
    with np.errstate(over="ignore"):
        float16 = (rows.astype(np.float16) == rows).all(axis=1)
    bfloat16 = ((rows.view(np.uint32) & 0xFFFF) == 0).all(axis=1)  # the upper half of float32
    return np.where(float16, 2.0**-11, np.where(bfloat16, 2.0**-8, 1e-6))


def row_masses(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mass of each record, rounded up: (n, C) float32 to (n,) float32."""
    sums = probabilities.sum(axis=1, dtype=np.float64).astype(np.float32)
    above: NDArray[np.float32] = np.nextafter(sums, np.float32(np.inf))
    return above


def possible_rows(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of (n, C) rows have values between 0 and 1 only, as stored ones have: (n,)."""
    least, most = probabilities.min(axis=1), probabilities.max(axis=1)  # NaN in a row with NaN
    possible: NDArray[np.bool_] = (least >= -ZERO_TOLERANCE) & (most <= 1 + SUM_TOLERANCE)
    return possible
