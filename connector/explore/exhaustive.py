"""A query compared with every record of an index, batch by batch: what a search is put beside."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semcut.indexes import BruteForceIndex, Encodings, SearchResult
from semcut.indexes.config import Ranking
from semcut.indexes.errors import DataError
from semcut.indexes.index import SemanticIndex

MOST_VALUES = 1 << 31
"""Probabilities and features that are read at most."""

_BATCH = 20_000


def comparable(index: SemanticIndex, records: int) -> bool:
    """Whether that takes seconds, not minutes."""
    return records * (index.config.classes + index.config.dim) <= MOST_VALUES


def best_of_all(
    index: SemanticIndex,
    query: Encodings,
    *,
    k: int,
    cutoff: float,
    ranking: Ranking,
    scored: bool,
    stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """The k best of all records that are relevant to one query: the reference, a batch of records at a time.

    Args:
        index: to read.
        query: one.
        k, cutoff, ranking: as for a search.
        scored: whether Eq. 4 applies, which depends on all records.
        stop: asked before every batch whether nobody waits any more.

    Raises:
        DataError: nobody does.
    """
    found = [SearchResult.empty(1, k)]
    for batch in index.iterate(_BATCH):
        if stop():
            raise DataError("nobody waits for this answer")
        with BruteForceIndex(index.config) as reference:
            reference.add(batch)
            found.append(reference.search(query, k=k, cutoff=cutoff, shortlist=None, ranking=ranking))
    columns = {
        name: np.concatenate([getattr(part, name)[0] for part in found])
        for name in ("ids", "distances", "relevance", "scores", "hamming")
    }
    cost = columns["distances"] if ranking == "distance" else -columns["scores"]
    order = np.lexsort((columns["ids"], cost, columns["ids"] < 0))[:k]
    best = SearchResult.empty(1, k)
    for name, values in columns.items():
        getattr(best, name)[0] = values[order]
    if not scored:
        best.scores[best.ids >= 0] = np.nan
    return best
