"""What a search is given and gives: arrays by name, as kernels take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ANSWERED, DOUBTFUL, UNCHECKED = 0, 1, 2
"""Why a query is not answered: see `fused`."""


class RecordArrays(NamedTuple):
    """The columns that a search reads by row.

    Attributes:
        ids: (n,) int64.
        probabilities: (n, C) float32.
        features: (n, D) float32.
        shift: a row is in block row >> shift.
        probabilities_compared: (blocks,) bool: whether a block has been compared with its checksum.
        features_compared: (blocks,) bool.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    shift: int
    probabilities_compared: NDArray[np.bool_]
    features_compared: NDArray[np.bool_]


class QueryArrays(NamedTuple):
    """nq queries.

    Attributes:
        codes: (nq, words) uint64.
        weights: (nq, C) float64, s = S p.
        features: (nq, D) float32.
    """

    codes: NDArray[np.uint64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]


class SearchSettings(NamedTuple):
    """What is asked for.

    Attributes:
        cutoff: t of Eq. 2.
        shortlist: how many of the nearest relevant records are ranked; -1 for all relevant ones.
        slack: error bound of `compare` for C terms.
        fused: whether to rank by Eq. 4.
        scored: whether Eq. 4 applies.
        doubt: by how much more than necessary sums are distrusted: 1.
    """

    cutoff: float
    shortlist: int
    slack: float
    fused: bool
    scored: bool
    doubt: float


class ResultArrays(NamedTuple):
    """The arrays of a `SearchResult`, and a reason (nq,) int8 for each query."""

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    partitions: NDArray[np.int64]
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    cut_off: NDArray[np.int64]
    reason: NDArray[np.int8]
