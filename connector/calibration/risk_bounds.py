"""The largest cutoff that loses at most a share of the right records, with confidence for new images.

Each labelled image of a calibration has a loss at every cutoff: the share of its right records that the cutoff drops. A
higher cutoff never loses less. `largest_cutoff` goes from small cutoffs to large ones, and keeps the last before an
upper confidence bound of the mean loss first exceeds the level. Then, with the stated confidence over the choice of the
images, the mean loss for new images like these is at most the level.

Sources: Bates, Angelopoulos, Lei, Malik and Jordan, "Distribution-free, risk-controlling prediction sets" (Journal of
the ACM, 2021), for this choice; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(Journal of the Royal Statistical Society B, 2024), for the bound, in the form that Bates et al. give. Conformal risk
control (Angelopoulos, Bates, Fisch, Lei and Schuster, 2022) makes the same choice with a smaller margin, which bounds
the mean over many calibrations instead, not each of them with confidence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUTOFFS = np.array([0.0, *(round(digit * 10.0**power, 7) for power in range(-6, -1) for digit in range(10, 100))])
"""(451,) float64: the cutoffs that are tried, ascending: 0, and the numbers of two digits from 0.00001 to 0.99."""

_STEPS = 40
"""Halvings of the interval in which a bound is searched."""


def upper_bound(losses: NDArray[np.float64], confidence: float) -> float:
    """Return an upper confidence bound of the mean of a distribution.

    Args:
        losses: (n,) independent values of the distribution, in [0, 1], n at least 1. They must be in an order that does
            not depend on the values.
        confidence: the probability with which the mean is at most the bound, in (0, 1).
    """
    counts = np.arange(1, len(losses) + 1)
    means = (0.5 + np.cumsum(losses)) / (1 + counts)
    variances = (0.25 + np.cumsum((losses - means) ** 2)) / (1 + counts)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(1, np.sqrt(2 * np.log(1 / (1 - confidence)) / (len(losses) * before)))
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            capital = np.cumsum(np.log1p(-bets * (losses - middle)))
        if capital.max() > np.log(1 / (1 - confidence)):
            high = middle
        else:
            low = middle
    return high


def largest_cutoff(losses: NDArray[np.float64], level: float, confidence: float) -> float | None:
    """Return the largest cutoff with a mean loss of at most `level` for new images.

    Args:
        losses: (n, 451) the loss of each image at each of `CUTOFFS`, in [0, 1]; the images in random order.
        level: the largest mean loss.
        confidence: the probability, over the choice of the images, with which the cutoff keeps the level.

    Returns:
        The cutoff; None if the images do not show that any cutoff keeps the level.
    """
    best = None
    for cutoff, column in zip(CUTOFFS.tolist(), losses.T, strict=True):
        if column.mean() > level or upper_bound(column, confidence) > level:
            break
        best = cutoff
    return best


def images_needed(level: float, confidence: float) -> int:
    """Return the number of images that show that a cutoff which loses nothing keeps the level."""
    count = 1
    while upper_bound(np.zeros(count), confidence) > level:
        count = count + max(1, count // 8)
    return count
