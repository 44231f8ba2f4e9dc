"""Numba kernels of Eq. 1, Eq. 4 and the Euclidean distance, with bounds on what the order of a sum can change.

`equations` has the same formulas for numpy; its float32 values are the exact ones. The sums here run in float64 in the
order that is fastest, so their rounded float32 value can differ from that of `equations`, though it hardly ever does.
Each caller bounds the difference (`rounding.SUM_ERROR`), and leaves a query to the vectorised search if more than one
rounded value is within the bound.

Source: Varga and Szirányi, Eq. 1 and 4, as in `equations`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.kernels.jit import compiled, compiled_sum


@compiled_sum
def weighted_sum(weights: NDArray[np.float64], probabilities: NDArray[np.float32]) -> float:
    """Compute s . p (Eq. 1) in float64, with its terms added in any order."""
    total = 0.0
    for m in range(weights.shape[0]):
        total += weights[m] * np.float64(probabilities[m])
    return total


@compiled
def relevance_bound(
    weights: NDArray[np.float64],
    classes: NDArray[np.int32],
    tail: float,
    probabilities: NDArray[np.float32],
    mass: float,
) -> float:
    """Return an upper bound of R. Only the record's probabilities of the classes with large weights are read.

    Args:
        weights: (C,) s of the query.
        classes: the classes of its large weights.
        tail: the largest of the other weights.
        probabilities: (C,) p of the record.
        mass: the largest mass of all records.
    """
    part, others = 0.0, mass
    for m in classes:
        p = np.float64(probabilities[m])
        part += weights[m] * p
        others -= p
    return part + tail * max(0.0, others)


@compiled
def fused_score(r: np.float32, distance: np.float32) -> np.float32:
    """Compute Eq. 4, as `equations.fused_score` does: the same operations, hence the same bits."""
    return np.float32(np.float64(r) * (1 - min(np.float64(distance) / 2, 1.0)))


@compiled_sum
def squared_distance(query: NDArray[np.float32], feature: NDArray[np.float32]) -> float:
    """Compute ||q - x||^2 in float64, with its terms added in any order."""
    total = 0.0
    for column in range(query.shape[0]):
        difference = np.float64(query[column]) - np.float64(feature[column])
        total += difference * difference
    return total


@compiled_sum
def rough_squared_distance(query: NDArray[np.float32], feature: NDArray[np.float32]) -> np.float32:
    """Compute ||q - x||^2 in float32, which is faster. `rounding.relative_error` bounds its error."""
    total = np.float32(0)
    for column in range(query.shape[0]):
        difference = query[column] - feature[column]
        total += difference * difference
    return total
