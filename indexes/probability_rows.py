"""Check that rows of probabilities sum to 1, and scale those that do not because they were rounded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidEncodingsError

SUM_TOLERANCE = 1e-3
"""Largest difference between the sum of a row of probabilities and 1. A softmax of 1000 classes in float16 passes."""

ROUNDED_SUM_TOLERANCE = 1e-2
"""Largest such difference that is put down to rounding, and scaled away: a softmax that was computed in bfloat16."""

ROUNDED_STEPS = (100, 1_000, 10_000, 255, 256)
"""Probabilities may have been rounded to multiples of 1 / step, after which rows can be further from 1: to 2, 3 or 4
decimals, or to bytes."""

ZERO_TOLERANCE = 1e-6
"""Probabilities below zero by at most this were rounded, and become 0."""


def checked_probabilities(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, C) probabilities whose rows sum to 1, scaled where they were rounded.

    Raises:
        InvalidEncodingsError: values are negative or not finite, or no rounding explains the sum of a row.
    """
    if not len(probabilities):
        return probabilities
    if -ZERO_TOLERANCE <= probabilities.min() < 0:
        probabilities = np.maximum(probabilities, np.float32(0))
    with np.errstate(invalid="ignore"):
        sums = probabilities.sum(axis=1, dtype=np.float64)
    wrong = ~(np.abs(sums - 1) <= SUM_TOLERANCE)  # written so that NaN counts as wrong
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
    scaled = probabilities.copy()
    for row in np.flatnonzero(wrong).tolist():
        if not _was_rounded(probabilities[row], sums[row]):
            logits = probabilities[row].max() > 1
            raise InvalidEncodingsError(
                f"probabilities of row {row} sum to {sums[row]:g}, expected 1 within {SUM_TOLERANCE}, or within "
                f"{ROUNDED_SUM_TOLERANCE} if they were rounded: "
                + (
                    f"values go up to {probabilities[row].max():g}, so apply a softmax if they are logits"
                    if logits
                    else "divide each row by its sum"
                )
            )
        scaled[row] = probabilities[row] / sums[row]
    return scaled


def _was_rounded(row: NDArray[np.float32], total: float) -> bool:
    """Return whether rounding explains that the sum of a row is not 1.

    Rounding to steps changes each value by at most half a step; it can only make those smaller that are 0 now. A float
    of 16 bits, to which rounded values were converted, is off by its own precision.
    """
    if abs(total - 1) <= ROUNDED_SUM_TOLERANCE:
        return True
    precision = _precision(row)
    for step in ROUNDED_STEPS:
        units = row.astype(np.float64) * step
        half = 0.5 / step
        lowest, highest = 1 - half * len(row), 1 + half * np.count_nonzero(row)
        explained = max(0.5, lowest * (1 - precision)) <= total <= highest * (1 + precision)
        if explained and (np.abs(units - np.rint(units)) <= precision * units).all():
            return True
    return False


def _precision(row: NDArray[np.float32]) -> float:
    """Return the relative precision of the float type that the values of a row were in at last."""
    if (row.astype(np.float16) == row).all():
        return 2.0**-11
    if not (row.view(np.uint32) & 0xFFFF).any():  # bfloat16 is the upper half of float32
        return 2.0**-8
    return 1e-6
