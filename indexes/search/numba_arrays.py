"""Arguments of the search kernel: named tuples of arrays and numbers, as numba takes them.

The order of the fields and their types are compiled into the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from semcut.indexes.result import SearchResult

ANSWERED, DOUBTFUL, LARGE, UNCHECKED = 0, 1, 2, 3
"""The query is answered, or the reason why it is not, see `search_numba`. The number of a row is added to the last."""

NO_LIMIT = 2**63 - 1
"""`SearchSettings.most_codes` for no limit."""

RANK_GIVEN = 0
"""`SearchSettings.parts` if `ResultArrays.near` has the candidates that are to be ranked."""

BY_DISTANCE, BY_SCORE, BY_RELEVANCE = 0, 1, 2
"""What records are ranked by."""


class RecordArrays(NamedTuple):
    """The columns that a search reads by row.

    Attributes:
        ids: (n,) int64.
        probabilities: (n, C) float32, or (0, C) if they are stored in another form.
        packed: (n, 2 m) uint16, `packed_rows.PackedRows.rows`, or (0, 2).
        features: (n, D) float32, or (0, D).
        halves: (n, D) uint16, the bits of float16 features, or (0, D).
        bytes: (n, D) int8, multiples of `step`, or (0, D).
        step: the step of int8 features.
        shift: the number of the block of a row is row >> shift.
        probabilities_compared: (blocks,) bool, whether a block of probabilities was compared with its checksum.
        features_compared: (blocks,) bool, the same for features.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    packed: NDArray[np.uint16]
    features: NDArray[np.float32]
    halves: NDArray[np.uint16]
    bytes: NDArray[np.int8]
    step: np.float32
    shift: int
    probabilities_compared: NDArray[np.bool_]
    features_compared: NDArray[np.bool_]


class QueryArrays(NamedTuple):
    """A batch of nq queries.

    Attributes:
        codes: (nq, words) uint64.
        weights: (nq, C) float64, s = S p.
        features: (nq, D) float32.
        cutoffs: (nq,) float64, t of Eq. 2; -1 if every record is relevant.
    """

    codes: NDArray[np.uint64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]
    cutoffs: NDArray[np.float64]


class SearchSettings(NamedTuple):
    """The parameters of a search.

    Attributes:
        cutoff: t of Eq. 2 for one query: the kernel sets it to `QueryArrays.cutoffs` of each query.
        shortlist: the number of nearest relevant records to rank; -1 to rank all relevant records.
        slack: `relative_error` of C terms.
        ranking: `BY_DISTANCE`, `BY_SCORE` (Eq. 4) or `BY_RELEVANCE` (Eq. 1).
        scored: whether Eq. 4 applies: features are L2-normalised.
        doubt: a factor on the error bounds of sums: 1, except in tests, which raise it so that kernels leave more
            queries to the vectorised search.
        mass: the largest mass of all records.
        only_above: whether records with a score of at most the cutoff are no results, see `beyond_cutoff`.
        most_codes: a query that would scan more codes than this, of cells that can be divided in two, is `LARGE`, and
            not answered.
        part, parts: which part of a query's cells to search, and the number of parts: 0 and 1 to search all of them. If
            there are several, `ResultArrays.near` gets the candidates of the part; see `search.in_parts`.
    """

    cutoff: float
    shortlist: int
    slack: float
    ranking: int
    scored: bool
    doubt: float
    mass: float
    only_above: bool
    most_codes: int
    part: int
    parts: int


class ResultArrays(NamedTuple):
    """The arrays of a `SearchResult`, and two more.

    Attributes:
        reason: (nq,) int64: `ANSWERED`, or why a query is not answered.
        near: (nq, w) int32: candidates as positions in `CodeLists`, then -1; w = 0 unless a query has several parts.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    partitions: NDArray[np.int64]
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    cut_off: NDArray[np.int64]
    reason: NDArray[np.int64]
    near: NDArray[np.int32]


def result_arrays(result: SearchResult, reason: NDArray[np.int64], near: NDArray[np.int32]) -> ResultArrays:
    """Return the arrays of a result for nq queries, with `reason` and `near`."""
    return ResultArrays(
        result.ids, result.distances, result.relevance, result.scores, result.hamming, result.partitions, result.cells,
        result.codes, result.cut_off, reason, near,
    )  # fmt: skip
