"""`WithoutSelf`: an engine whose answers leave out the record that has the id of the query.

An engine (`beyond_cutoff.Search`) ranks the first n relevant records by the fixed rule of `tie_order`. Without the
query's own record, the first n of the others are wanted:

    own record among the first n + 1    these n + 1 without it are the first n of the others
    own record not among them           the first n of all are the first n of the others

So a search for k + 1 records of a shortlist of n + 1 is the answer if it finds the own record, or if it finds at most
k records, which are then all. Only the other queries are searched again, to see their whole shortlist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.result import SearchResult
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams
from semcut.indexes.search_tuning import TUNING

if TYPE_CHECKING:
    from semcut.indexes.search.beyond_cutoff import Search


class WithoutSelf:
    """Searches as another engine does, as if the record with the id of each query were not in the index.

    Args:
        engine: the other engine. The counts of its results include the own records.
        records: returns the number of records, so that a larger shortlist takes no memory.
    """

    def __init__(self, engine: Search, records: Callable[[], int]) -> None:
        self._engine, self._records = engine, records

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        scored: bool,
        cutoffs: NDArray[np.float64],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Return the k best of the other records with R above the cutoff of each query; the queries have ids."""
        assert queries.ids is not None
        k, size = params.k, params.shortlist
        wide = params.model_copy(update={"k": k + 1, "shortlist": None if size is None else size + 1})
        found = self._engine.search(queries, wide, scored, cutoffs, trace)
        own = found.ids == queries.ids[:, None]
        result = _dropped(found, own)
        if size is None:
            return result
        open_ = np.flatnonzero(~own.any(axis=1) & (found.ids[:, -1] >= 0))
        size = max(k, min(size, self._records())) if len(open_) else size
        whole = params.model_copy(update={"k": size + 1, "shortlist": size + 1})
        step = max(1, TUNING.chunk_elements // (size + 1))
        for start in range(0, len(open_), step):
            some = open_[start : start + step]
            found = self._engine.search(queries[some], whole, scored, cutoffs[some], trace)
            own = found.ids == queries.ids[some, None]
            inside = np.flatnonzero(own.any(axis=1))
            result.put(some[inside], _dropped(found.in_order(inside), own[inside]).first(k))
            outside = np.delete(some, inside)
            if len(outside):
                result.put(outside, self._engine.search(queries[outside], params, scored, cutoffs[outside], trace))
        return result


def _dropped(found: SearchResult, own: NDArray[np.bool_]) -> SearchResult:
    """Return results with one slot less, without the (nq, m) records that are marked, at most one of each query."""
    return found.at_places(np.argsort(own, axis=1, kind="stable")[:, :-1])
