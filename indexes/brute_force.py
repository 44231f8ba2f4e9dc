"""`BruteForceIndex`: the equations of the paper written literally. It compares a query with every record.

This is the reference that every other index is tested against, and a reasonable choice for a few thousand records. It
has no optimisations, so that a reader can compare it with the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.bound_filters import matches
from semcut.indexes.attributes.selections import Selection
from semcut.indexes.batch_checks import is_scored
from semcut.indexes.config import IndexConfig
from semcut.indexes.description import Capabilities, IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.id_checks import refuse_known, refuse_unknown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.pruning.cell_table import edges_of
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.range_result import RangeHits, RangeParams, refuse_many
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import distance, fused_score, hamming, is_relevant, relevance
from semcut.indexes.search.tie_order import in_order, levels
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams
from semcut.indexes.storage.id_map import IdMap
from semcut.indexes.stored_values import norm_tolerance

_ARRAYS = ("ids", "codes", "probabilities", "features")


class BruteForceIndex(SemanticIndex):
    """An index in memory that compares every query with every record, by Eq. 1, 2 and 4."""

    capabilities = Capabilities(counts_codes=True, cheap_stats=True)

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        self._version = 0
        columns: dict[str, Any] = {
            "probabilities": np.empty((0, config.classes), np.float32),
            "codes": np.empty((0, config.bits // 8), np.uint8),
            "features": np.empty((0, config.dim), np.float32),
            "ids": np.empty(0, np.int64),
        }
        attributes: dict[str, list[Any]] | None = {name: [] for name in config.attributes} or None
        keys: list[str] | None = [] if config.string_ids else None
        self._records = Encodings(**columns, uris=[], attributes=attributes, keys=keys)
        self._ids = IdMap()

    def __len__(self) -> int:
        return len(self._records)

    @property
    def version(self) -> int:
        """The number of changes so far."""
        return self._version

    def stats(self) -> IndexStats:
        """Return the size of the index, which has no cells."""
        self._check_open()
        dominant = self._records.probabilities.argmax(axis=1)
        return IndexStats(
            records=len(self),
            removed=0,
            partitions=np.bincount(dominant, minlength=self.config.classes).tolist(),
            cells=0,
            normalised=self._records.normalised(norm_tolerance(self.config)),
            column_bytes={name: getattr(self._records, name).nbytes for name in _ARRAYS},
        )

    def _add(self, encodings: Encodings, *, replace: bool) -> None:
        assert encodings.ids is not None
        rows = self._ids.rows(encodings.ids)
        if not replace:
            refuse_known(encodings.ids, rows)
        kept = np.delete(np.arange(len(self)), rows[rows >= 0])
        uris = encodings.uris if encodings.uris is not None else [None] * len(encodings)
        batch = Encodings(
            ids=encodings.ids,
            probabilities=encodings.probabilities,
            codes=encodings.codes,
            features=encodings.features,
            uris=uris,
            attributes=encodings.attributes,
            keys=encodings.keys,
            any_mass=True,
        )
        self._replace(Encodings.concatenate([self._records[kept], batch]))

    def _remove(self, ids: NDArray[np.int64]) -> None:
        rows = self._ids.rows(ids)
        refuse_unknown(ids, rows)
        self._replace(self._records[np.delete(np.arange(len(self)), rows)])

    def _replace(self, records: Encodings) -> None:
        assert records.ids is not None
        self._records, self._ids = records, IdMap()
        self._version += 1
        self._ids.add(records.ids, np.arange(len(records)))

    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""
        self._check_open()
        assert self._records.ids is not None
        return np.sort(self._records.ids)

    def next_id(self) -> int:
        """Return the smallest id above all ids in the index, which is free, as are all larger ones."""
        self._check_open()
        return self._ids.largest() + 1

    def _contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._ids.rows(ids) >= 0

    def _keys(self, ids: NDArray[np.int64]) -> list[str | None]:
        assert self._records.keys is not None
        return [None if row < 0 else self._records.keys[row] for row in self._ids.rows(ids).tolist()]

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        assert self._records.uris is not None
        rows = self._ids.rows(ids)
        refuse_unknown(ids, rows)
        return [self._records.uris[row] for row in rows.tolist()]

    def _get(self, ids: NDArray[np.int64]) -> Encodings:
        rows = self._ids.rows(ids)
        refuse_unknown(ids, rows)
        records = self._records[rows]
        if records.uris is not None and all(uri is None for uri in records.uris):
            object.__setattr__(records, "uris", None)
        return records

    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        records = self._records
        assert records.ids is not None
        order = np.argsort(records.ids)
        order = order[records.ids[order] > after]
        for start in range(0, len(order), batch_size):
            yield records[order[start : start + batch_size]]

    def _matching(self, selection: Selection) -> NDArray[np.int64]:
        assert self._records.ids is not None
        return np.sort(self._records.ids[self._selected(selection)])

    def _selected(self, selection: Selection) -> NDArray[np.int64]:
        """Return the rows of the records of a selection: (n,) int64."""
        records, where, among = self._records, selection.where, selection.among
        assert records.ids is not None
        attributes, rows = records.attributes or {}, []
        for row, number in enumerate(records.ids.tolist()):
            record = {name: values[row] for name, values in attributes.items()}
            if (where is None or matches(where, record)) and (among is None or number in among.ids):
                rows.append(row)
        return np.array(rows, np.int64)

    def _search(
        self, queries: Encodings, params: SearchParams, selection: Selection | None, trace: SearchTrace | None
    ) -> SearchResult:
        if params.exclude_self and len(queries):
            return self._search_the_others(queries, params, selection)
        scored = is_scored(self.config, queries, params, self._records.normalised(norm_tolerance(self.config)))
        weights = self._similarity.weights(queries.probabilities)
        records = self._records if selection is None else self._records[self._selected(selection)]
        assert records.ids is not None
        dominant, edges = records.probabilities.argmax(axis=1), edges_of(records.probabilities)
        result = SearchResult.empty(len(queries), params.k)
        for query in range(len(queries)):
            r = relevance(weights[query], records.probabilities)
            h = hamming(queries.codes[query], records.codes)
            d = distance(queries.features[query], records.features)
            score = fused_score(r, d) if scored else np.full(len(records), np.nan, np.float32)
            level = levels(weights[query : query + 1], weights[query, dominant][None], edges[None])[0]
            costs = {"distance": (records.ids, d), "fused": (records.ids, -score), "relevance": (records.ids, d, -r)}
            order = _Order(
                by_code=in_order(h, level, records.ids),
                by_distance=np.lexsort((records.ids, d)),
                by_rank=np.lexsort(costs[params.ranking]),
            )
            relevant, best = order.best(r, params)
            places = slice(0, len(best))
            result.ids[query, places] = records.ids[best]
            result.distances[query, places] = d[best]
            result.relevance[query, places] = r[best]
            result.scores[query, places] = score[best]
            result.hamming[query, places] = h[best]
            result.filled[query, places] = ~relevant[best]
            result.codes[query] = len(records)
            result.cut_off[query] = np.count_nonzero(~relevant) if params.cutoff is not None else 0
        return result

    def _search_range(self, queries: Encodings, params: RangeParams, selection: Selection | None) -> list[RangeHits]:
        scored = is_scored(self.config, queries, SearchParams(), self._records.normalised(norm_tolerance(self.config)))
        weights = self._similarity.weights(queries.probabilities)
        records = self._records if selection is None else self._records[self._selected(selection)]
        assert records.ids is not None
        found = []
        for query in range(len(queries)):
            r = relevance(weights[query], records.probabilities)
            h = hamming(queries.codes[query], records.codes)
            d = distance(queries.features[query], records.features)
            score = fused_score(r, d) if scored else np.full(len(records), np.nan, np.float32)
            within = params.holds(d) if params.by == "distance" else h <= params.radius
            if params.cutoff is not None:
                within &= is_relevant(r, params.cutoff)
            hits = RangeHits(records.ids[within], d[within], r[within], score[within], h[within])
            found.append(hits.ordered(params.by))
            refuse_many(sum(len(one.ids) for one in found))
        return found

    def _search_the_others(self, queries: Encodings, params: SearchParams, selection: Selection | None) -> SearchResult:
        """Search, for each query, an index without the record that has the id of the query."""
        assert queries.ids is not None
        assert self._records.ids is not None
        is_scored(self.config, queries, params, self._records.normalised(norm_tolerance(self.config)))
        found = []
        for query, number in enumerate(queries.ids.tolist()):
            others = BruteForceIndex(self.config)
            others._replace(self._records[self._records.ids != number])
            one = params.model_copy(update={"exclude_self": False})
            found.append(others._search(queries[[query]], one, selection, None))
        return SearchResult.concatenate(found)

    def _cells(self) -> Cells:
        """Group the records into cells, as other indexes store them. A search of this index uses no cells."""
        cells, numbers = Cells.empty(self.config).extended(self._records.probabilities)
        return replace(cells, sizes=np.bincount(numbers, minlength=len(cells)))

    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        assert self._records.ids is not None
        probabilities = self._records.probabilities
        rows = np.flatnonzero(probabilities.argmax(axis=1) == partition)
        if ambiguous:
            rows = rows[np.argsort(probabilities[rows, partition], kind="stable")]
        return self._records.ids[rows[:limit]]


class _Order(NamedTuple):
    """All records of an index in three orders for one query: (n,) int64 each, the best record first."""

    by_code: NDArray[np.int64]
    by_distance: NDArray[np.int64]
    by_rank: NDArray[np.int64]

    def best(self, r: NDArray[np.float32], params: SearchParams) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which records are relevant, (n,) bool, and the k best, (m,) int64: see `search.beyond_cutoff`.

        Args:
            r: (n,) float32, R of each record.
            params: the parameters of the search.
        """
        every = np.ones(len(r), bool)
        if params.cutoff is not None:
            relevant = is_relevant(r, params.cutoff)
            parts = [self._ranked(self.by_rank, relevant, params.shortlist)[: params.k]]
        else:
            relevant, parts = every if params.ranking == "distance" else r > 0, []
        if params.cutoff is None or (params.fill and len(parts[0]) < params.k):
            if params.ranking != "distance":
                parts.append(self._ranked(self.by_rank, r > 0, None))
            if params.ranking == "distance" or params.fill:
                parts.append(self._ranked(self.by_distance, every, params.shortlist))
        found, first = np.unique(np.concatenate(parts), return_index=True)
        return relevant, found[np.argsort(first)][: params.k]

    def _ranked(self, order: NDArray[np.int64], among: NDArray[np.bool_], size: int | None) -> NDArray[np.int64]:
        """Return the first `size` of some records by code, in another order."""
        shortlist = np.zeros(len(order), bool)
        shortlist[self.by_code[among[self.by_code]][:size]] = True
        return order[shortlist[order]]
