"""Results that differ from one another: maximal marginal relevance over the best records of a search.

With `diversity` = δ, a query's candidates are the max(k, shortlist) best records of the search; of a search without a
shortlist, the max(k, `DEFAULT_SHORTLIST`) best. The best candidate comes first. Then, again and again, comes the one
with the largest

    (1 - δ) v  +  δ min d / 2

where v says how good it is, and min d is the distance of its feature to the nearest feature chosen before. v is -d / 2
with d its distance to the query, or, for a ranking by relevance or fused score, that value. With similarity 1 - d / 2
this is the rule of Carbonell and Goldstein, but for a constant. Ties go to the better candidate. Candidates that fill
places are chosen only when no relevant one is left, and among themselves in the same way.

Source: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", SIGIR 1998.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import UnknownIdError
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import distance
from semcut.indexes.search_params import SearchParams

_VALUES = 1 << 22
"""Values of features that are compared at once: 32 MiB in float64."""
_EMPTY, _CHOSEN = 2, 3
_ATTEMPTS = 5
"""Searches, if records that were found are removed before their features are read."""

SearchCall = Callable[..., SearchResult]
"""`SemanticIndex._search`: takes the queries, their parameters, and what else a search needs."""


def diversified(
    search: SearchCall, get: Callable[[NDArray[np.int64]], Encodings], records: Callable[[], int]
) -> SearchCall:
    """Return a search whose results differ from one another, as `SearchParams.diversity` asks.

    Args:
        search: finds the candidates.
        get: returns the records with (n,) ids; their features are read after the search.
        records: returns the number of records, so that a larger shortlist takes no memory.

    Raises:
        UnknownIdError: by the search, if records are removed during each of several attempts.
    """

    def search_diverse(queries: Encodings, params: SearchParams, *others: Any) -> SearchResult:
        wide = params.model_copy(update={"k": max(params.k, min(params.candidates, records()))})
        for attempt in range(1, _ATTEMPTS + 1):
            found = search(queries, wide, *others)
            try:
                return found.at_places(_chosen(found, get, params, queries.features.shape[1]))
            except UnknownIdError:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    return search_diverse


def _chosen(
    found: SearchResult, get: Callable[[NDArray[np.int64]], Encodings], params: SearchParams, dim: int
) -> NDArray[np.int64]:
    """Choose k of each query's candidates: (nq, k) int64 places in `found`, in the order of their choice."""
    used = int(np.count_nonzero(found.ids >= 0, axis=1).max(initial=0))
    width = max(used, 1)
    values: NDArray[Any] = found.distances / -2
    if params.ranking != "distance":
        values = found.relevance if params.ranking == "relevance" else found.scores
    group = np.where(found.ids < 0, _EMPTY, found.filled)[:, :width]
    value = np.where(found.ids < 0, 0, values)[:, :width].astype(np.float64)
    places = np.tile(np.arange(params.k), (len(found), 1))  # the places that nothing is chosen for are empty
    step = max(1, _VALUES // (width * dim))
    for start in range(0, len(found), step):
        some = slice(start, start + step)
        present = group[some] < _EMPTY
        ids, at = np.unique(found.ids[some, :width][present], return_inverse=True)
        features = np.zeros((*present.shape, dim), np.float32)
        if len(ids):
            features[present] = get(ids).features[at]
        chosen = _marginally_best(value[some], group[some], features, min(params.k, used), params.diversity)
        places[some, : chosen.shape[1]] = chosen
    return places


def _marginally_best(
    value: NDArray[np.float64], group: NDArray[np.int64], features: NDArray[np.float32], k: int, diversity: float
) -> NDArray[np.int64]:
    """Choose k candidates of each query: (nq, k) int64 places.

    Args:
        value: (nq, m) float64, v of each candidate, the best candidate first.
        group: (nq, m) int64, which candidates come first: 0 for relevant ones, 1 for others, `_EMPTY` for no candidate.
        features: (nq, m, D) float32.
        k: at most m.
        diversity: as in `SearchParams`.
    """
    queries, left = np.arange(len(value)), group.copy()
    nearest = np.full(value.shape, np.inf, np.float32)
    places = np.zeros((len(value), k), np.int64)
    for place in range(k):
        if place:
            marginal = (1 - diversity) * value + diversity * (nearest / 2)
            marginal[left > left.min(axis=1, keepdims=True)] = -np.inf
            places[:, place] = marginal.argmax(axis=1)
        left[queries, places[:, place]] = _CHOSEN
        np.minimum(nearest, distance(features[queries, places[:, place], None], features), out=nearest)
    return places
