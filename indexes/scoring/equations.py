"""Compute relevance (Eq. 1), cutoff (Eq. 2), distance and fused score (Eq. 4) of a query and a record, with numpy.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash
function", Eq. 1, 2 and 4.

**Eq. 1.** The paper writes P(a,b) = sum_m P(a|m) P(b|m) P(m). A classifier gives P(m|a); by Bayes, under a uniform
prior over images, that is sum_m P(m|a) P(m|b) / P(m) up to a constant. Here

    R(a,b) = p_a' S p_b        S symmetric, entries >= 0

With S = I, the default, R is the probability that both images have the same label. It is in [0, 1] for any number of
classes C. Only this reading makes the paper's cutoff t = 0.2 usable: with P(m) = 1/C taken literally, R <= 1/C (0.083
for the paper's 12 classes), and t = 0.2 would drop every record. A `prior` gives the Bayes form S = diag(1 / (C
prior)); a uniform prior gives the default again. A `similarity` is the paper's S_ij, for classes that overlap.

**The same value in every index.** Sums run in float64 over one row at a time, in an order that depends on the row's
length alone, and are then rounded to float32. So every index, with batches of any size, computes bit for bit the same
relevance, distance and score for the same pair, and results can be compared for equality.

**Other versions of these equations.** Numba kernels need a version of their own of each:

    Eq. 1              equations_numba.weighted_sum, and rounded_relevance for its value in float32
    Eq. 2              search/shortlist_numba._is_relevant
    Eq. 4              equations_numba.fused_score
    distance           equations_numba.squared_distance
    Hamming distance   scanners/scan_numba.hamming, and scan_numba._distances for many codes
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import InvalidParameterError, shown


class Similarity:
    """The matrix S of an index, applied to queries.

    Args:
        config: its `prior` or `similarity` determines S. Without both, S is the identity.
    """

    def __init__(self, config: IndexConfig) -> None:
        self._classes = config.classes
        self._diagonal: NDArray[np.float64] | None = None
        self._matrix: NDArray[np.float64] | None = None
        if config.prior is not None:
            prior = np.asarray(config.prior, dtype=np.float64)
            self._diagonal = 1 / (config.classes * (prior / prior.sum()))
        if config.similarity is not None:
            self._matrix = np.asarray(config.similarity, dtype=np.float64)

    def weights(self, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute s = S p of each query: (nq, C) float32 to (nq, C) float64. Then R(q, b) = s . p_b for every record b.

        The matrix is applied query by query, since BLAS sums in an order that depends on the size of the batch.

        Raises:
            InvalidParameterError: the argument is not such an array.
        """
        if not isinstance(probabilities, np.ndarray) or probabilities.ndim != 2 or probabilities.dtype.kind != "f":
            raise InvalidParameterError(
                f"probabilities = {shown(probabilities)}, expected an array of floats with a row for each query"
            )
        if probabilities.shape[1] != self._classes:
            raise InvalidParameterError(
                f"probabilities have {probabilities.shape[1]} columns, expected {self._classes}, one for each class"
            )
        weights = probabilities.astype(np.float64)
        if self._diagonal is not None:
            weights *= self._diagonal
        if self._matrix is not None:
            for row, query in enumerate(weights):
                weights[row] = self._matrix @ query
        return weights


def relevance(
    weights: NDArray[np.float64], probabilities: NDArray[np.float32] | NDArray[np.float64]
) -> NDArray[np.float32]:
    """Compute Eq. 1, R = s . p, over the last axis: (..., C) and (..., C), broadcast, to (...) float32."""
    values: NDArray[np.float32] = np.vecdot(weights, probabilities.astype(np.float64, copy=False)).astype(np.float32)
    return values


def is_relevant(values: NDArray[np.float32], cutoff: float) -> NDArray[np.bool_]:
    """Apply Eq. 2: return where R is strictly above the cutoff t, both in float32. Other records are not relevant."""
    return values > np.float32(cutoff)


def distance(queries: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the Euclidean distance over the last axis: (..., D) and (..., D), broadcast, to (...) float32."""
    difference = queries.astype(np.float64) - features.astype(np.float64)
    values: NDArray[np.float32] = np.sqrt(np.vecdot(difference, difference)).astype(np.float32)
    return values


def fused_score(relevances: NDArray[np.float32], distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute Eq. 4, R (1 - d), in float32. d = ||g_q - g_b|| / 2 is in [0, 1] because features are L2-normalised."""
    scaled = np.minimum(distances.astype(np.float64) / 2, 1)
    values: NDArray[np.float32] = (relevances.astype(np.float64) * (1 - scaled)).astype(np.float32)
    return values


def hamming(queries: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Count the differing bits of packed codes over the last axis: (..., bits / 8), broadcast, to (...) int32."""
    different = queries ^ codes
    if different.shape[-1] % 8 == 0:  # count eight bytes per step
        different = np.ascontiguousarray(different).view(np.uint64)
    bits: NDArray[np.int32] = np.bitwise_count(different).sum(axis=-1, dtype=np.int32)
    return bits
