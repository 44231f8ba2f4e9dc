"""Compares a query with every record of an index, to check the results of a search.

`search_exhaustively` runs `BruteForceIndex`, the equations without pruning and without a shortlist, on one batch of
records after the other, so the memory that it uses does not grow with the index.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semcut.indexes import BruteForceIndex, Encodings, SearchResult
from semcut.indexes.attributes.expressions import Expression
from semcut.indexes.errors import DataError
from semcut.indexes.index import SemanticIndex
from semcut.indexes.search_params import Ranking

MAX_VALUES = 1 << 29
"""Maximum number of probabilities and feature values that a comparison reads, so that it takes only seconds: a core
compares a value in about 13 ns."""

RECORD_VALUES = 128
"""The number of values that take as long as what a comparison does once for every record, such as reading its uri."""

BATCH_VALUES = 1 << 21
"""Probabilities and feature values that are read at once, of which there are a few copies meanwhile."""


def is_feasible(index: SemanticIndex, records: int) -> bool:
    """Return whether comparing a query with this many records of an index takes seconds, not minutes."""
    return records * (RECORD_VALUES + index.config.classes + index.config.dim) <= MAX_VALUES


def search_exhaustively(
    index: SemanticIndex,
    query: Encodings,
    *,
    k: int,
    cutoff: float | None,
    ranking: Ranking,
    fill: bool,
    exclude_self: bool = False,
    scored: bool,
    where: Expression | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Find the k best of all records for one query, without a shortlist.

    Args:
        index: index to read; it is not closed here.
        query: one query.
        k, cutoff, ranking, fill, exclude_self, where: as for `SemanticIndex.search`.
        scored: whether all records of the index have features of length 1, so that Eq. 4, the fused score, is defined.
            One batch does not show this.
        stop: called before every batch; if it returns True, the comparison ends without a result.

    Raises:
        DataError: `stop` returned True.
    """
    best = SearchResult.empty(1, k)
    for batch in index.iterate(max(1, BATCH_VALUES // (index.config.classes + index.config.dim))):
        if stop():
            raise DataError("the client has disconnected")
        with BruteForceIndex(index.config) as reference:
            reference.add(batch)
            found = reference.search(
                query, k=k, cutoff=cutoff, shortlist=None, ranking=ranking, fill=fill, exclude_self=exclude_self,
                where=where,
            )  # fmt: skip
        best = _merge([best, found], k, ranking)  # `found` would keep the records of its index in memory
    if not scored:
        best.scores[best.ids >= 0] = np.nan
    return best


def _merge(parts: list[SearchResult], k: int, ranking: Ranking) -> SearchResult:
    """Return the k best of several results of one query, in the order of `search.beyond_cutoff`."""
    columns = {
        name: np.concatenate([getattr(part, name)[0] for part in parts])
        for name in ("ids", "distances", "relevance", "scores", "hamming", "filled")
    }
    distances, relevance = columns["distances"], columns["relevance"]
    cost = {"distance": distances, "fused": -columns["scores"], "relevance": -relevance}[ranking]
    last = (relevance == 0) & (ranking != "distance")  # filled by distance
    second = distances if ranking == "relevance" else np.zeros_like(distances)
    keys = (columns["ids"], second, np.where(last, distances, cost), last, columns["filled"], columns["ids"] < 0)
    order = np.lexsort(keys)[:k]
    best = SearchResult.empty(1, k)
    for name, values in columns.items():
        getattr(best, name)[0] = values[order]
    return best
