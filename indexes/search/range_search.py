"""Find all records within a radius of each query: exact, with any scanner that can list the rows of cells.

    prune       `pruning.cells`: cells whose bound does not exceed the cutoff are skipped, as in a search
    measure     the records of the other cells are compared with the query: by code, or by a float32 distance whose
                error bound (`scoring.rounding`) shows which records can be within the radius
    cut off     of these few, R is computed exactly, and those with R <= t are dropped
    decide      the exact distance decides which of them are within the radius

Every record of a kept cell is measured, so the time grows with the number of records in these cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.range_result import RangeHits, RangeParams, refuse_many
from semcut.indexes.scanners.protocol import Scanner
from semcut.indexes.scoring.equations import Similarity, distance, fused_score, hamming, is_relevant
from semcut.indexes.scoring.packed_rows import exact_relevance
from semcut.indexes.scoring.rounding import UNDERFLOW, relative_error, squared_distances
from semcut.indexes.search.beyond_cutoff import EVERY
from semcut.indexes.search.rank import RecordReader
from semcut.indexes.search_tuning import TUNING

_VALUES = 1 << 23
"""Values of features, or bytes of codes, of the rows that are compared at once."""
_BLOCK = 1 << 17
"""Values of features whose exact distances are computed together."""


@np.errstate(over="ignore", invalid="ignore")  # values of a forged index may be infinite or NaN, and so are results
def search_range(
    records: RecordReader,
    cells: Cells,
    scanner: Scanner,
    similarity: Similarity,
    queries: Encodings,
    params: RangeParams,
    scored: bool,
) -> list[RangeHits]:
    """Return the records within the radius of each query.

    Args:
        records: the records, by row.
        cells: the cells of the index.
        scanner: lists the rows of cells.
        similarity: the S of the index.
        queries: nq queries.
        params: the radius, its measure and the cutoff.
        scored: whether Eq. 4 applies (features are L2-normalised).

    Raises:
        InvalidParameterError: more records are found than a result can have.
    """
    cutoff = EVERY if params.cutoff is None else params.cutoff
    weights = similarity.weights(queries.probabilities)
    step = max(1, TUNING.chunk_elements // max(1, len(cells), cells.config.classes))
    width = cells.config.bits // 8 if params.by == "hamming" else cells.config.dim
    size = max(1, _VALUES // width)
    found: list[RangeHits] = []
    total = 0
    for start in range(0, len(queries), step):
        kept = cells.prune(weights[start : start + step], cutoff).cells
        for query, own in enumerate(kept, start):
            rows, _ = scanner.rows(own[own >= 0])
            parts: list[RangeHits] = []
            for first in range(0, len(rows), size):
                near = _near(records, rows[first : first + size], queries[[query]], params)
                parts.append(_hits(records, near, queries[[query]], weights[[query]], params, cutoff, scored))
                total += len(parts[-1].ids)
                refuse_many(total)
            found.append(RangeHits.joined(parts).ordered(params.by))
        records.release_pages()
    return found


def _near(records: RecordReader, rows: NDArray[np.int64], query: Encodings, params: RangeParams) -> NDArray[np.int64]:
    """Return those of (n,) rows that are, or may be, within the radius of one query."""
    if params.by == "hamming":
        near: NDArray[np.bool_] = hamming(query.codes, records.codes[rows]) <= params.radius
        return rows[near]
    features, at = records.features(rows)
    squared = squared_distances(query.features, features, at[None])[0]
    slack = 4 * relative_error(query.features.shape[1])
    limit = np.float64(np.float32(params.radius)) ** 2 * (1 + slack) + 4 * UNDERFLOW
    possible: NDArray[np.bool_] = squared <= limit
    return rows[possible]


def _hits(
    records: RecordReader,
    rows: NDArray[np.int64],
    query: Encodings,
    weights: NDArray[np.float64],
    params: RangeParams,
    cutoff: float,
    scored: bool,
) -> RangeHits:
    """Compute the exact values of some rows for one query, and drop those that are too far or not relevant."""
    probabilities, at = records.stored_probabilities(rows)
    r = exact_relevance(weights, np.zeros(len(rows), np.int64), probabilities, at)
    relevant = is_relevant(r, cutoff)
    rows, r = rows[relevant], r[relevant]
    d = np.empty(len(rows), np.float32)
    step = max(1, _BLOCK // query.features.shape[1])
    for start in range(0, len(rows), step):
        here = slice(start, start + step)
        features, at = records.features(rows[here])
        d[here] = distance(query.features, features[at])
    if params.by == "distance":
        within = params.holds(d)
        rows, r, d = rows[within], r[within], d[within]
    return RangeHits(
        ids=records.ids[rows],
        distances=d,
        relevance=r,
        scores=fused_score(r, d) if scored else np.full(len(rows), np.nan, np.float32),
        hamming=hamming(query.codes, records.codes[rows]),
    )
