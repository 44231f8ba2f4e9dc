"""The equations of the paper written literally: every record is looked at, nothing is clever.

This is the reference that every other index is tested against, and a fair choice for a few thousand records.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from indexes.base import IndexStats, SearchResult, SemanticIndex
from indexes.columns import shapes
from indexes.encodings import Encodings
from indexes.errors import InvalidParameterError
from indexes.ids import IdMap
from indexes.params import IndexConfig, SearchParams
from indexes.relevance import distance, fused_score, hamming, is_relevant, relevance


class BruteForceIndex(SemanticIndex):
    """An index in memory that compares every query with every record, by Eq. 1, 2 and 4."""

    def __init__(self, config: IndexConfig) -> None:
        super().__init__(config)
        columns = {
            name: np.empty((0, *shape), dtype) for name, (dtype, shape) in shapes(config).items() if name != "cells"
        }
        self._records = Encodings(**columns, uris=[])
        self._ids = IdMap()

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, config: IndexConfig) -> Self:
        """Make an empty index in memory.

        Raises:
            InvalidParameterError: a path was given.
        """
        if path is not None:
            raise InvalidParameterError(f"path = {os.fspath(path)}: a BruteForceIndex lives in memory, pass None")
        return cls(config)

    def __len__(self) -> int:
        return len(self._records)

    def stats(self) -> IndexStats:
        """The size of the index; it has no cells."""
        self._check_open()
        dominant = self._records.probabilities.argmax(axis=1)
        return IndexStats(
            records=len(self),
            partitions=np.bincount(dominant, minlength=self.config.classes).tolist(),
            cells=0,
            normalised=self._normalised(),
            column_bytes={
                name: getattr(self._records, name).nbytes for name in ("ids", "codes", "probabilities", "features")
            },
        )

    def _id_map(self) -> IdMap:
        return self._ids

    def _normalised(self) -> bool:
        return self._records.normalised()

    def _add(self, encodings: Encodings) -> None:
        assert encodings.ids is not None
        uris = encodings.uris if encodings.uris is not None else [None] * len(encodings)
        batch = Encodings(
            ids=encodings.ids,
            probabilities=encodings.probabilities,
            codes=encodings.codes,
            features=encodings.features,
            uris=uris,
        )
        first_row = len(self)
        self._records = Encodings.concatenate([self._records, batch])
        self._ids.add(encodings.ids, first_row)

    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in order of arrival."""
        self._check_open()
        assert self._records.ids is not None
        return self._records.ids

    def _uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        assert self._records.uris is not None
        return [self._records.uris[row] for row in rows.tolist()]

    def _get(self, rows: NDArray[np.int64]) -> Encodings:
        records = self._records[rows]
        if records.uris is not None and all(uri is None for uri in records.uris):
            object.__setattr__(records, "uris", None)
        return records

    def _search(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        records = self._records
        assert records.ids is not None
        result = SearchResult.empty(len(queries), params.k)
        for query in range(len(queries)):
            r = relevance(weights[query], records.probabilities)
            relevant = np.flatnonzero(is_relevant(r, params.cutoff))
            h = hamming(queries.codes[query], records.codes)
            chosen = relevant
            if params.shortlist is not None:
                chosen = relevant[np.argsort(h[relevant], kind="stable")[: params.shortlist]]
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
