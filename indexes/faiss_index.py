"""`FaissIndex`: prune, shortlist, cut off, re-rank.

    prune       `partitions`: cells whose bound does not exceed the cutoff are skipped, exactly
    shortlist   `hamming`: the engine gives the nearest records of the remaining cells by Hamming distance
    cut off     records with R <= t are dropped, one by one where the cell's lower bound does not settle it
    re-rank     `rerank`: exact distance or fused score of what is left

The cutoff is applied after the scan, so where too few of the nearest records are relevant the scan goes deeper, for
those queries only. When going deeper would mean to look at a good part of the kept cells anyway, or when no shortlist
is asked for, all their records are looked at instead. Either way the shortlist is that of the nearest *relevant*
records, never fewer than there are.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from indexes.base import IndexStats, SearchResult, SemanticIndex
from indexes.compare import UNDERFLOW, error, inner_products
from indexes.encodings import Encodings
from indexes.errors import DamagedIndexError
from indexes.hamming.cpu import IvfEngine
from indexes.ids import IdMap
from indexes.params import IndexConfig, SearchParams
from indexes.partitions import Kept
from indexes.relevance import hamming, is_relevant, relevance
from indexes.rerank import rank
from indexes.store import Store

_CHUNK_ELEMENTS = 1 << 22
_LOAD_ROWS = 1 << 18
_SPLIT = 64  # queries from which on a batch is split over threads, each of which runs every step for its part
_FIRST = 1.5  # places of the first scan per place of the shortlist
_DEEPER = 4  # how much deeper a scan goes than one that has found too few relevant records
_WORTH = 4  # records per place of a deeper scan, below which looking at all of them is cheaper


class FaissIndex(SemanticIndex):
    """An index in memory or in a directory, searched on the CPU. Make one with `create` or `open`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.config)
        self._store = store
        try:
            self._columns = store.columns()
            self._cells = store.cells
            self._check_cells()
        except BaseException:
            store.close()
            raise
        self._engine = IvfEngine(store.config.bits)
        for start in range(0, len(store), _LOAD_ROWS):
            rows = np.arange(start, min(start + _LOAD_ROWS, len(store)))
            self._engine.add(self._columns.codes[rows], rows, self._columns.cells[rows])
        self._ids: IdMap | None = None
        self._by_cell: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, config: IndexConfig) -> Self:
        """Make an empty index, stored at `path` (a new or empty directory) or in memory where it is None.

        Raises:
            IndexExistsError: there is something at the path.
            StorageError: the directory cannot be made.
        """
        return cls(Store.create(None if path is None else Path(path), config))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a stored index as it was at the last completed `add`.

        Codes and cells are read now, ids when they are first looked up, probabilities and features row by row.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
        """
        return cls(Store.open(Path(path)))

    def _check_cells(self) -> None:
        """FAISS does not check list numbers: a wrong one would corrupt memory."""
        given = self._columns.cells
        inside = not len(given) or (given.min() >= 0 and given.max() < len(self._cells))
        if not inside or not np.array_equal(np.bincount(given, minlength=len(self._cells)), self._cells.sizes):
            raise DamagedIndexError(
                f"{self._store.path}: the column of cells contradicts the catalogue, restore the index from a backup"
            )

    def __len__(self) -> int:
        return len(self._columns.ids)

    def stats(self) -> IndexStats:
        """The size of the index."""
        self._check_open()
        return IndexStats(
            records=len(self),
            partitions=self._cells.partition_sizes().tolist(),
            cells=len(self._cells),
            normalised=self._normalised(),
            column_bytes=self._store.column_bytes(),
        )

    def close(self) -> None:
        """Let go of files and memory. Closing twice is allowed; using a closed index is a `ClosedIndexError`."""
        if not self._closed:
            self._store.close()
        super().close()

    def _id_map(self) -> IdMap:
        if self._ids is None:
            ids = IdMap()
            ids.add(self._columns.ids, 0)
            self._ids = ids
        return self._ids

    def _normalised(self) -> bool:
        return self._store.normalised

    def _add(self, encodings: Encodings) -> None:
        assert encodings.ids is not None
        first_row = len(self)
        cells, numbers = self._cells.extended(encodings.probabilities)
        self._store.append(encodings, numbers, cells)
        self._engine.add(encodings.codes, np.arange(first_row, len(self._store)), numbers)
        self._id_map().add(encodings.ids, first_row)
        self._by_cell = None
        self._cells, self._columns = cells, self._store.columns()

    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in order of arrival; a read-only view."""
        self._check_open()
        return self._columns.ids

    def _uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        return self._store.uris(rows)

    def _get(self, rows: NDArray[np.int64]) -> Encodings:
        columns = self._columns
        uris = self._uris(rows)
        return Encodings(
            probabilities=columns.probabilities[rows],
            codes=columns.codes[rows],
            features=columns.features[rows],
            ids=columns.ids[rows],
            uris=uris if any(uri is not None for uri in uris) else None,
        )

    def _search(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        if params.shortlist is not None and params.shortlist >= len(self):
            params = params.model_copy(update={"shortlist": None})
        widest = max(len(self._cells), self.config.classes, params.shortlist or 1, params.k)
        threads = faiss.omp_get_max_threads() if len(queries) >= _SPLIT else 1
        chunk = max(1, min(-(-len(queries) // threads), _CHUNK_ELEMENTS // widest))
        # Queries of one class scan the same cells: one after the other they find them in the processor's cache.
        order = np.argsort(weights.argmax(axis=1), kind="stable")

        def search(start: int) -> SearchResult:
            here = order[start : start + chunk]
            return self._search_chunk(queries[here], weights[here], params, scored)

        starts = range(0, len(queries), chunk)
        if threads == 1:
            parts = [search(start) for start in starts]
        else:
            with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
                parts = list(pool.map(search, starts))
        return SearchResult.concatenate(parts).in_order(np.argsort(order))

    def _search_chunk(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        columns = self._columns
        kept = self._cells.prune(weights, params.cutoff)
        cut_off = np.zeros(len(queries), np.int64)
        if params.shortlist is None:
            unfinished = np.arange(len(queries))
            result = SearchResult.empty(len(queries), params.k)
        else:
            rows, cut_off, unfinished = self._shortlist(queries, weights, kept, params.cutoff, params.shortlist)
            result = rank(queries, weights, columns, rows, params, scored)
        for query in unfinished.tolist():
            one = slice(query, query + 1)
            rows, cut_off[query] = self._relevant(queries.codes[query], weights[query], kept, query, params)
            found = rank(queries[one], weights[one], columns, rows[None], params, scored)
            for name in ("ids", "distances", "relevance", "scores", "hamming"):
                getattr(result, name)[one] = getattr(found, name)
        result.partitions[:] = kept.partitions
        result.cells[:] = kept.counts
        result.codes[:] = kept.codes
        result.cut_off[:] = cut_off
        return result

    def _shortlist(
        self, queries: Encodings, weights: NDArray[np.float64], kept: Kept, cutoff: float, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The nearest relevant rows by Hamming distance, found by scans that go deeper where they must.

        Returns:
            rows (nq, w) int64 with -1 between and behind them; dropped (nq,) int64; and the queries (n,) for which
            looking at all kept records is the better way, whose rows are all -1.
        """
        width = int(_FIRST * size)
        shortlist = np.full((len(queries), width), -1, np.int64)
        dropped = np.zeros(len(queries), np.int64)
        exhaustive = [np.empty(0, np.int64)]
        tasks = [(np.arange(len(queries)), width)]
        while tasks:
            asked, depth = tasks.pop()
            if len(asked) > 1 and len(asked) * depth > _CHUNK_ELEMENTS:
                half = len(asked) // 2
                tasks += [(asked[:half], depth), (asked[half:], depth)]
                continue
            certain = kept.certain[asked]
            rows = self._engine.search(queries.codes[asked], kept.cells[asked], depth)
            settled = certain[np.arange(len(rows))[:, None], self._columns.cells[rows]]
            relevant = self._relevant_candidates(rows, settled, weights[asked], cutoff)
            enough = np.count_nonzero(relevant, axis=1) >= size
            done = enough | (kept.codes[asked] <= depth)
            finished = asked[done]
            shortlist[finished] = _first(rows[done], relevant[done], size, width)
            dropped[finished] = np.count_nonzero((rows >= 0) & ~relevant, axis=1)[done]
            asked, depth = asked[~done], depth * _DEEPER
            few = kept.codes[asked] <= _WORTH * depth
            exhaustive.append(asked[few])
            if not few.all():
                tasks.append((asked[~few], depth))
        return shortlist, dropped, np.concatenate(exhaustive)

    def _relevant_candidates(
        self, rows: NDArray[np.int64], settled: NDArray[np.bool_], weights: NDArray[np.float64], cutoff: float
    ) -> NDArray[np.bool_]:
        """Which candidates exist and pass the cutoff of Eq. 2.

        Args:
            rows: (nq, m) int64, -1 where there is none.
            settled: (nq, m) bool; candidates that are known to pass.
            weights: (nq, C) float64.
        """
        relevant = rows >= 0
        r = inner_products(weights.astype(np.float32), self._columns.probabilities, np.where(settled, -1, rows))
        doubtful = np.abs(r - cutoff) <= cutoff * 2 * error(self.config.classes) + UNDERFLOW
        query, place = np.nonzero(doubtful & relevant & ~settled)
        relevant &= settled | (r > cutoff)
        exact = relevance(weights[query], self._columns.probabilities[rows[query, place]])
        relevant[query, place] = is_relevant(exact, cutoff)
        return relevant

    def _relevant(
        self,
        code: NDArray[np.uint8],
        weights: NDArray[np.float64],
        kept: Kept,
        query: int,
        params: SearchParams,
    ) -> tuple[NDArray[np.int64], int]:
        """All relevant rows of one query, or the nearest of them, by looking at every record of the kept cells.

        Returns:
            rows (m,) int64, and how many records were dropped.
        """
        cells = kept.cells[query][kept.cells[query] >= 0]
        order, starts = self._rows_by_cell()
        sizes = self._cells.sizes[cells]
        shift = starts[cells] - (np.cumsum(sizes) - sizes)
        rows = order[np.arange(int(kept.codes[query])) + np.repeat(shift, sizes)]
        settled = np.repeat(kept.certain[query, cells], sizes)
        relevant = self._relevant_candidates(rows[None], settled[None], weights[None], params.cutoff)[0]
        dropped = len(rows) - int(np.count_nonzero(relevant))
        rows = rows[relevant]
        if params.shortlist is not None and len(rows) > params.shortlist:
            near = np.argpartition(hamming(code, self._columns.codes[rows]), params.shortlist - 1)
            rows = rows[near[: params.shortlist]]
        return rows, dropped

    def _rows_by_cell(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows in order of their cell, and where each cell's rows start; (records,) and (cells + 1,) int64."""
        if self._by_cell is None:
            order = np.argsort(self._columns.cells, kind="stable")
            starts = np.concatenate([[0], np.cumsum(self._cells.sizes)])
            self._by_cell = (order, starts)
        return self._by_cell


def _first(rows: NDArray[np.int64], keep: NDArray[np.bool_], size: int, width: int) -> NDArray[np.int64]:
    """The first `size` kept entries of every row, in order, with -1 in all other places: (nq, m) to (nq, width)."""
    place = np.cumsum(keep, axis=1, dtype=np.int32) - 1
    keep = keep & (place < size)
    if rows.shape[1] == width:
        return np.where(keep, rows, -1)
    chosen = np.full((len(rows), width), -1, np.int64)
    query, at = np.nonzero(keep)
    chosen[query, place[query, at]] = rows[query, at]
    return chosen
