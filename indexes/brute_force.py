"""`BruteForceIndex`: the equations of the paper written literally. It compares a query with every record.

This is the reference that every other index is tested against, and a reasonable choice for a few thousand records. It
has no optimisations, so that a reader can compare it with the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig, SearchParams
from semcut.indexes.description import Capabilities, IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.id_checks import refuse_known, refuse_unknown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.pruning.cell_table import edges_of
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import distance, fused_score, hamming, is_relevant, relevance
from semcut.indexes.search.tie_order import in_order, levels
from semcut.indexes.search.trace import SearchTrace
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
        self._records = Encodings(**columns, uris=[])
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

    def _search(self, queries: Encodings, params: SearchParams, trace: SearchTrace | None) -> SearchResult:
        scored = self._scored(queries, params, self._records.normalised(norm_tolerance(self.config)))
        weights = self._similarity.weights(queries.probabilities)
        records = self._records
        assert records.ids is not None
        dominant, edges = records.probabilities.argmax(axis=1), edges_of(records.probabilities)
        result = SearchResult.empty(len(queries), params.k)
        for query in range(len(queries)):
            r = relevance(weights[query], records.probabilities)
            relevant = np.flatnonzero(is_relevant(r, params.cutoff))
            h = hamming(queries.codes[query], records.codes)
            chosen = relevant
            if params.shortlist is not None:
                own = weights[query, dominant]
                level = levels(weights[query : query + 1], own[None], edges[None])[0]
                order = in_order(h[relevant], level[relevant], records.ids[relevant])
                chosen = relevant[order[: params.shortlist]]
            d = distance(queries.features[query], records.features[chosen])
            score = fused_score(r[chosen], d) if scored else np.full(len(chosen), np.nan, np.float32)
            order = np.lexsort((records.ids[chosen], -score if params.ranking == "fused" else d))[: params.k]
            best, places = chosen[order], slice(0, len(order))
            result.ids[query, places] = records.ids[best]
            result.distances[query, places] = d[order]
            result.relevance[query, places] = r[best]
            result.scores[query, places] = score[order]
            result.hamming[query, places] = h[best]
            result.codes[query] = len(records)
            result.cut_off[query] = len(records) - len(relevant)
        return result

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
