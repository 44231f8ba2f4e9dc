"""Search on a server without snapshots: repeat a search if records vanished while it ran.

A search takes several requests. Between two of them, other clients may remove or replace records that the first request
has found, or begin or finish a batch (which matters with `strong` only). The search is then repeated in the newest
state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.encodings import Encodings
from semcut.indexes.milvus.connection import ConcurrentMap, ServerConnection
from semcut.indexes.milvus.reader import ATTEMPTS, contention_error
from semcut.indexes.milvus.schema import UNNORMALISED, WITH_URI, Schema
from semcut.indexes.milvus.server_filter import EVERY_RECORD
from semcut.indexes.milvus.server_scanner import ServerScanner, TooManyRecordsError
from semcut.indexes.milvus.server_selection import ServerSelection, server_selection
from semcut.indexes.milvus.shared_state import SharedState, SharedView
from semcut.indexes.range_result import RangeHits, RangeParams, refuse_many
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.beyond_cutoff import search_beyond
from semcut.indexes.search.range_search import search_range
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search.vectorised import VectorisedSearch
from semcut.indexes.search_params import SearchParams

QUERIES_PER_CHUNK = 256
"""Queries that are searched together and share the records that they fetch."""

_Found = TypeVar("_Found")

_PAUSE = 0.05  # seconds before the third attempt, longer before each further one


class ConsistentSearch:
    """The search of one index. Several threads may search at the same time.

    Args:
        server, schema, shared: the connection, the schema and the shared state of the index.
        similarity: the S of Eq. 1.
        concurrently: sends several requests at the same time.
        strong: whether to see everything that any client has written.
    """

    def __init__(
        self,
        server: ServerConnection,
        schema: Schema,
        shared: SharedState,
        similarity: Similarity,
        concurrently: ConcurrentMap,
        strong: bool,
    ) -> None:
        self._server, self._schema, self._shared = server, schema, shared
        self._similarity, self._concurrently, self._strong = similarity, concurrently, strong

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        selection: Selection | None,
        scored: Callable[[bool], bool],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Find the k best records for every query.

        Args:
            queries: nq queries.
            params: the parameters of the search.
            selection: the records that are searched; None for all.
            scored: called with whether all features of the index are L2-normalised. It returns whether Eq. 4 applies,
                or raises an error if the search needs Eq. 4 and it does not apply.
            trace: collects times and counts, including those of repeated attempts.

        Raises:
            TooManyRecordsError: one query would fetch too many records.
            ServerError: other clients change the records faster than they can be read.
        """
        order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")

        def search(view: SharedView, strong: bool) -> tuple[SearchResult, int]:
            eq4_applies = scored(self.normalised(view))
            if not len(queries) or not len(view.cells):
                return SearchResult.empty(len(queries), params.k), 0
            chosen = server_selection(self._server, self._schema, selection, self._concurrently, strong)
            view = replace(view, cells=chosen.limited(view.cells))
            parts, missed = [], 0
            for start in range(0, len(queries), QUERIES_PER_CHUNK):
                chunk = queries[order[start : start + QUERIES_PER_CHUNK]]
                part, missed_here = self._search_chunk(chunk, params, view, chosen, eq4_applies, strong, trace)
                parts.append(part)
                missed += missed_here
            return SearchResult.concatenate(parts).in_order(np.argsort(order)), missed

        return self._repeated(search)

    def search_range(
        self,
        queries: Encodings,
        params: RangeParams,
        selection: Selection | None,
        scored: Callable[[bool], bool],
    ) -> list[RangeHits]:
        """Find all records within a radius of each query; arguments and errors as for `search`."""

        def search(view: SharedView, strong: bool) -> tuple[list[RangeHits], int]:
            eq4_applies = scored(self.normalised(view))
            if not len(view.cells):
                return [RangeHits.none()] * len(queries), 0
            chosen = server_selection(self._server, self._schema, selection, self._concurrently, strong)
            view = replace(view, cells=chosen.limited(view.cells))
            parts, missed = [], 0
            for query in range(len(queries)):  # alone: together, queries keep more records than one request may fetch
                scanner = ServerScanner(self._server, self._schema, view, chosen, self._concurrently, strong)
                one = queries[[query]]
                parts += search_range(scanner, view.cells, scanner, self._similarity, one, params, eq4_applies)
                missed += scanner.missed
                refuse_many(sum(len(hits.ids) for hits in parts))
            return parts, missed

        return self._repeated(search)

    def _repeated(self, search: Callable[[SharedView, bool], tuple[_Found, int]]) -> _Found:
        """Search, and search again in the newest state while records vanish meanwhile.

        Args:
            search: takes a state and whether to see everything that was written; returns what it has found, and the
                number of records that had vanished before they were fetched.

        Raises:
            ServerError: other clients change the records faster than they can be read.
        """
        for attempt in range(ATTEMPTS):
            strong = self._strong or attempt > 0
            view = self._shared.view(strong=strong)
            found, missed = search(view, strong)
            if not missed and (not self._strong or self._shared.unchanged(view)):
                return found
            time.sleep(_PAUSE * attempt)
        if missed:
            raise contention_error()
        return found

    def normalised(self, view: SharedView) -> bool:
        """Return whether all features of the index are L2-normalised."""
        if not view.unnormalised:
            return True
        condition = view.visible(f"flags in [{UNNORMALISED},{UNNORMALISED | WITH_URI}]")
        return self._server.count(self._schema.name, condition, strong=self._strong) == 0

    def _search_chunk(
        self,
        queries: Encodings,
        params: SearchParams,
        view: SharedView,
        chosen: ServerSelection,
        eq4_applies: bool,
        strong: bool,
        trace: SearchTrace | None,
    ) -> tuple[SearchResult, int]:
        """Search some queries together, or in halves if together they would fetch too many records.

        Returns:
            The results, and the number of records that had vanished before they were fetched.
        """
        scanner = ServerScanner(self._server, self._schema, view, chosen, self._concurrently, strong)

        def records() -> int:
            conditions = map(view.visible, chosen.conditions(EVERY_RECORD))
            return max(1, sum(self._server.count(self._schema.name, one, strong=strong) for one in conditions))

        try:
            engine = VectorisedSearch(scanner, view.cells, scanner, self._similarity, split=False)
            return search_beyond(engine, queries, params, eq4_applies, records, trace), scanner.missed
        except TooManyRecordsError:
            if len(queries) == 1:
                raise
        half = len(queries) // 2
        parts = [
            self._search_chunk(queries[here], params, view, chosen, eq4_applies, strong, trace)
            for here in (slice(None, half), slice(half, None))
        ]
        return SearchResult.concatenate([part for part, _ in parts]), sum(missed for _, missed in parts)
