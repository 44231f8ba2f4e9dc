"""Searches that go beyond the cutoff: places filled with records that are not relevant, and searches without a cutoff.

An engine (`Search`) returns the k best *relevant* records of a query, those with R above its cutoff. This module asks
it again, with other cutoffs, where that is not the whole answer:

    no cutoff, by distance     Every record is relevant: the engine's cutoff is `EVERY`.
    no cutoff, by a score      The k best by R or by Eq. 4 among all records with R > 0. A first search, with a
                               shortlist, gives k scores. The smallest of them, z, is a lower bound of the k-th best
                               score. No score is above R, so the k best are among the records with R >= z: a second
                               search ranks all of them. If the first search finds fewer than k records, it is
                               repeated at a smaller cutoff. Records with R = 0 come last, as in the next line.
    filling                    Places that relevant records leave are filled with what the same search without a cutoff
                               finds. By a score, places that are still empty are filled by distance.

So only queries that need it pay, and every engine, with its own pruning, gives the same answers. A cutoff that follows
from the k-th score prunes as the best-first order over cells does: a cell whose bound is below z is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.result import SearchResult
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search.without_self import WithoutSelf
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST
from semcut.indexes.search_params import SearchParams, search_params

EVERY = -1.0
"""The cutoff at which every record is relevant: R is never negative."""

_LADDER = (DEFAULT_CUTOFF, 0.02, 0.001, 0.0)
"""Cutoffs of the first searches by a score, until one finds k records."""


class Search(Protocol):
    """An engine: a search of one state of an index that returns relevant records alone."""

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        scored: bool,
        cutoffs: NDArray[np.float64],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Return the k best of the records with R above the cutoff of each query, see `VectorisedSearch.search`."""
        ...


def search_beyond(
    engine: Search,
    queries: Encodings,
    params: SearchParams,
    scored: bool,
    records: Callable[[], int],
    trace: SearchTrace | None = None,
) -> SearchResult:
    """Find the k best records for every query, as `SemanticIndex.search` promises.

    Args:
        engine: searches the index.
        queries: nq queries, at least 1.
        params: the parameters of the search.
        scored: whether Eq. 4 applies.
        records: returns the number of records in the index, at least 1. Called only if places are left, or to bound
            what leaving own records out takes.
        trace: collects times and counts of all searches.
    """
    if params.exclude_self:
        engine = WithoutSelf(engine, records)
    if params.cutoff is not None:
        result = engine.search(queries, params, scored, np.full(len(queries), params.cutoff), trace)
        if not params.fill:
            return result
        short = _short(result, records)
        if not len(short):
            return result
        if len(short) == len(queries):
            more = _without_cutoff(engine, queries, params, scored, records, trace, below=params.cutoff)
            return result.filled_up(more)
        more = _without_cutoff(engine, queries[short], params, scored, records, trace, below=params.cutoff)
        result.put(short, result.in_order(short).filled_up(more))
        return result
    return _without_cutoff(engine, queries, params, scored, records, trace)


def _without_cutoff(
    engine: Search,
    queries: Encodings,
    params: SearchParams,
    scored: bool,
    records: Callable[[], int],
    trace: SearchTrace | None,
    below: float = 1.0,
) -> SearchResult:
    """Search all records.

    Args:
        engine, queries, params, scored, records, trace: as for `search_beyond`.
        below: a cutoff at which fewer than k records are relevant to every query.
    """
    by_distance = search_params(params.k, None, params.shortlist, "distance")
    if params.ranking == "distance":
        return engine.search(queries, by_distance, scored, np.full(len(queries), EVERY), trace)
    result = _best_by_score(engine, queries, params, scored, records, trace, below)
    short = _short(result, records) if params.fill else np.empty(0, np.int64)
    if len(short):
        more = engine.search(queries[short], by_distance, scored, np.full(len(short), EVERY), trace)
        result.put(short, result.in_order(short).filled_up(more))
    return result


def _best_by_score(
    engine: Search,
    queries: Encodings,
    params: SearchParams,
    scored: bool,
    records: Callable[[], int],
    trace: SearchTrace | None,
    below: float,
) -> SearchResult:
    """Find the k best records with R > 0 by R or by Eq. 4; arguments as for `_without_cutoff`."""
    k = 0
    first = search_params(params.k, None, max(params.k, DEFAULT_SHORTLIST), params.ranking)
    every = search_params(params.k, None, None, params.ranking)
    result = SearchResult.empty(len(queries), params.k)
    left = np.arange(len(queries))
    for cutoff in (step for step in _LADDER if step < below):
        found = engine.search(queries[left], first, scored, np.full(len(left), cutoff), trace)
        values = found.relevance if params.ranking == "relevance" else found.scores
        if np.isnan(values).any():
            raise DamagedIndexError("records have probabilities or features that are no numbers: see `semcut verify`")
        k = k or (params.k if (found.ids[:, -1] >= 0).all() else min(params.k, records()))
        enough = found.ids[:, k - 1] >= 0
        # R >= z is R > the next smaller float32
        lowest = np.nextafter(values[enough, k - 1], np.float32(-1)).astype(np.float64)
        done = enough if cutoff > 0 else np.ones(len(left), bool)
        result.put(left[done], found.in_order(np.flatnonzero(done)))
        again = left[enough]
        if len(again):
            best = engine.search(queries[again], every, scored, np.maximum(lowest, 0.0), trace)
            for name in ("partitions", "cells", "codes"):
                np.maximum(getattr(best, name), getattr(result, name)[again], out=getattr(best, name))
            result.put(again, best)
        left = left[~done]
        if not len(left):
            break
    result.cut_off[:] = 0
    return result


def _short(result: SearchResult, records: Callable[[], int]) -> NDArray[np.int64]:
    """Return the queries with fewer than min(k, records) results: (n,) int64."""
    short = np.flatnonzero(result.ids[:, -1] < 0)
    return short[result.ids[short, min(result.ids.shape[1], records()) - 1] < 0] if len(short) else short
