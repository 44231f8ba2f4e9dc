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
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from indexes.base import IndexStats, SearchResult, SemanticIndex, refuse_known, refuse_unknown
from indexes.compare import UNDERFLOW, error, inner_products
from indexes.encodings import Encodings
from indexes.errors import InvalidParameterError, SemcutError, StorageError, shown
from indexes.hamming.cpu import IvfEngine
from indexes.ids import IdMap
from indexes.params import IndexConfig, SearchParams
from indexes.partitions import Kept
from indexes.relevance import hamming, is_relevant, relevance
from indexes.rerank import rank
from indexes.shared_lock import SharedLock
from indexes.store import Durability, Progress, State, Store
from indexes.verify import Damage, verify

_CHUNK_ELEMENTS = 1 << 22
_LOAD_ROWS = 1 << 18
_SPLIT = 64  # queries from which on a batch is split over threads, each of which runs every step for its part
_FIRST = 1.5  # places of the first scan per place of the shortlist
_DEEPER = 4  # how much deeper a scan goes than one that has found too few relevant records
_WORTH = 4  # records per place of a deeper scan, below which looking at all of them is cheaper


class FaissIndex(SemanticIndex):
    """An index in memory or in a directory, searched on the CPU. Make one with `create` or `open`.

    Of the processes that have a stored index open, one may change it: the first that does has it until it closes it.
    The others see it as it was when they opened it or last called `refresh`. `store` says what a crash leaves.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.config)
        self._store = store
        try:
            self._state = store.state
            self._engine = _engine(self._state)
        except BaseException:
            store.close()
            raise
        self._ids: IdMap | None = None
        self._by_cell: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._lock = SharedLock()  # searches share what they read in memory, a change has it alone
        self._changing = threading.RLock()  # one change at a time, from before its first byte is written
        self._mapping = threading.Lock()
        self._in_change = False

    @classmethod
    def create(
        cls, path: str | os.PathLike[str] | None, config: IndexConfig, *, durability: Durability = "batch"
    ) -> Self:
        """Make an empty index, stored at `path` (a new or empty directory) or in memory where it is None.

        Args:
            path: where to.
            config: what it is.
            durability: "batch": a change is on the disk when its call returns. "close": it is when the index is flushed
                or closed, together with all others since the last flush, and a crash before loses all of them; for
                bulk loads in many small batches.

        Raises:
            IndexExistsError: there is something at the path.
            StorageError: the directory cannot be made.
        """
        return cls(Store.create(None if path is None else Path(path), config, _durability(durability)))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, durability: Durability = "batch") -> Self:
        """Open a stored index as it was at the last completed change.

        Ids, codes and cells are read now, 20 bytes a record and 64 bits; the rest, row by row when it is needed.

        Args:
            path: its directory.
            durability: as for `create`.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
        """
        return cls(Store.open(Path(path), _durability(durability)))

    def __len__(self) -> int:
        return len(self._state)

    @property
    def version(self) -> int:
        """How many changes the index has seen, in the state that is read here."""
        return self._state.committed.version

    def stats(self) -> IndexStats:
        """The size of the index."""
        self._check_open()
        state = self._state
        return IndexStats(
            records=len(state),
            removed=len(state.columns.removed),
            partitions=state.cells.partition_sizes().tolist(),
            cells=int(np.count_nonzero(state.cells.sizes)),
            normalised=state.normalised,
            column_bytes={name: view.nbytes for name, view in state.columns.raw().items()},
        )

    def refresh(self) -> bool:
        """Move on to the last state that a writer in another process committed, and say whether there was a new one.

        Costs a fraction of a millisecond where nothing has changed, the reading of the catalogue and of what was added
        where something has, and an `open` where the index was compacted. Without it nothing changes under a reader.

        Raises:
            DamagedIndexError: what is there now is damaged; the state before stays in use.
        """
        with self._changing:
            self._check_open()
            before = self._state
            self._publish(self._store.refresh())
            return self._state is not before

    def flush(self) -> None:
        """Put on the disk what durability "close" has held back.

        Raises:
            StorageError: the disk refused. What was held back is lost, and the index is closed.
        """
        with self._changing:
            self._check_open()
            try:
                self._store.flush()
            except BaseException:
                self._abandon()
                raise

    def compact(self, progress: Progress | None = None) -> None:
        """Give back the space of removed records and tighten cells around the others; searches go on meanwhile.

        Takes as much space on the disk again as the records that are left, until it is done. Processes that have the
        index open go on with what they have, and get the compacted one when they refresh.

        Args:
            progress: told how many records, of how many, have been dealt with.

        Raises:
            DamagedIndexError: a record to be kept is damaged.
            LockedError, StorageError: as for `add`. Nothing has changed then.
        """
        with self._change():
            self.flush()
            self._publish(self._store.compact(progress))

    def backup(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write a copy of the index, as it is now, to a new or empty directory. Nothing has to wait for it.

        Everything is compared with its checksums on the way. An index in memory can be stored like this.

        Args:
            path: where to.
            progress: told how many records, of how many, have been dealt with.

        Raises:
            IndexExistsError: there is something at the path.
            DamagedIndexError: the index is damaged; no backup is made.
            StorageError: the backup cannot be written.
        """
        with self._changing:
            self._check_open()
            if self._store.writing:
                self.flush()
            state = self._state
        self._store.backup(Path(path), state, progress)

    def verify(self, progress: Progress | None = None) -> list[Damage]:
        """Read everything that is stored and compare it: see `indexes.verify`. Empty if all is well."""
        with self._changing:
            self._check_open()
            if self._store.writing:
                self.flush()
            state = self._state
        return verify(self._store, state, progress)

    def close(self) -> None:
        """Flush, let go of files, memory and the writer's lock. Closing twice is allowed; using a closed index is a
        `ClosedIndexError`.

        Raises:
            StorageError: what was held back could not be put on the disk, and is lost.
        """
        with self._changing:
            if self._closed:
                return
            try:
                if self._store.writing:  # not in a process that was forked from the writer's
                    self._store.flush()
            finally:
                self._abandon()

    def _abandon(self) -> None:
        with self._lock.exclusive():
            super().close()
            self._store.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """One change: alone, with the writer's lock, of the last state. A failure leaves the index as it was, or closed
        if that cannot be known."""
        with self._changing:
            self._check_open()
            if self._in_change:
                raise InvalidParameterError("an index cannot be changed while it tells its progress: do so afterwards")
            self._in_change = True
            try:
                self._store.begin()
                self._publish(self._store.state)
                yield
            except BaseException as error:
                if isinstance(error, SemcutError) and not isinstance(error, StorageError):
                    raise
                if self._store.writing and not self._store.unchanged(self._state):
                    self._abandon()
                if isinstance(error, MemoryError):
                    raise StorageError(
                        "there is not enough memory for this change: it was made whole or not at all"
                        + ("; open the index again to see" if self._closed else "")
                    ) from None
                raise
            finally:
                self._in_change = False

    def _publish(self, after: State) -> None:
        """Let searches see a state."""
        before = self._state
        if after is before:
            return
        fresh = after.committed.generation != before.committed.generation
        engine = _engine(after) if fresh else self._engine
        rows = np.arange(0 if fresh else len(before.columns), len(after.columns))
        gone = after.columns.removed[0 if fresh else len(before.columns.removed) :]
        added = rows[~np.isin(rows, gone)]
        gone = gone[gone < rows[0]] if len(rows) else gone
        try:
            with self._lock.exclusive():
                if fresh:
                    self._ids = None
                else:
                    engine.remove(gone, after.columns.cells[gone])
                    for start in range(0, len(added), _LOAD_ROWS):
                        part = added[start : start + _LOAD_ROWS]
                        engine.add(after.columns.codes[part], part, after.columns.cells[part])
                    if self._ids is not None:
                        self._ids.remove(after.columns.ids[gone])
                        self._ids.add(after.columns.ids[added], added)
                self._engine, self._state, self._by_cell = engine, after, None
        except BaseException:  # the engine may hold a part of it
            self._abandon()
            raise

    def _add(self, encodings: Encodings, *, replace: bool) -> None:
        assert encodings.ids is not None
        with self._change():
            rows = self._id_map().rows(encodings.ids)
            if not replace:
                refuse_known(encodings.ids, rows)
            self._publish(self._store.write(encodings, rows[rows >= 0]))

    def _remove(self, ids: NDArray[np.int64]) -> None:
        with self._change():
            rows = self._id_map().rows(ids)
            refuse_unknown(ids, rows)
            self._publish(self._store.write(None, rows))

    def _id_map(self) -> IdMap:
        with self._mapping:
            if self._ids is None:
                ids, state = IdMap(), self._state
                ids.add(state.columns.ids[state.live], state.live)
                self._ids = ids
            return self._ids

    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in order of arrival."""
        self._check_open()
        state = self._state
        return state.columns.ids[state.live]

    def next_id(self) -> int:
        """An id that is free, as are all above it: one more than the largest in the index."""
        with self._lock.shared():
            self._check_open()
            return self._id_map().largest() + 1

    def _found(self, ids: NDArray[np.int64]) -> tuple[State, NDArray[np.int64]]:
        """The state, and the rows of these ids in it."""
        with self._lock.shared():
            self._check_open()
            rows = self._id_map().rows(ids)
            refuse_unknown(ids, rows)
            return self._state, rows

    def _contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        with self._lock.shared():
            self._check_open()
            return self._id_map().rows(ids) >= 0

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        state, rows = self._found(ids)
        return state.columns.uris(rows)

    def _get(self, ids: NDArray[np.int64]) -> Encodings:
        return _gathered(*self._found(ids))

    def _iterate(self, batch_size: int) -> Iterator[Encodings]:
        state = self._state
        order = state.live[np.argsort(state.columns.ids[state.live])]
        return (_gathered(state, order[start : start + batch_size]) for start in range(0, len(order), batch_size))

    def _search(self, queries: Encodings, params: SearchParams) -> SearchResult:
        with self._lock.shared():
            self._check_open()
            scored = self._scored(queries, params, self._state.normalised)
            if not len(queries) or not len(self):
                return SearchResult.empty(len(queries), params.k)
            return self._search_batch(queries, self._similarity.weights(queries.probabilities), params, scored)

    def _search_batch(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        if params.shortlist is not None and params.shortlist >= len(self):
            params = params.model_copy(update={"shortlist": None})
        widest = max(len(self._state.cells), self.config.classes, params.shortlist or 1, params.k)
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
        self._state.columns.relax(rest=1 if len(queries) >= _SPLIT else 0)
        return SearchResult.concatenate(parts).in_order(np.argsort(order))

    def _search_chunk(
        self, queries: Encodings, weights: NDArray[np.float64], params: SearchParams, scored: bool
    ) -> SearchResult:
        columns = self._state.columns
        kept = self._state.cells.prune(weights, params.cutoff)
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
            settled = certain[np.arange(len(rows))[:, None], self._state.columns.cells[rows]]
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
        probabilities, at = self._state.columns.probabilities(np.where(settled, -1, rows))
        r = inner_products(weights.astype(np.float32), probabilities, at)
        doubtful = np.abs(r - cutoff) <= cutoff * 2 * error(self.config.classes) + UNDERFLOW
        query, place = np.nonzero(doubtful & relevant & ~settled)
        relevant &= settled | (r > cutoff)
        exact = relevance(weights[query], probabilities[at[query, place]])
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
        sizes = self._state.cells.sizes[cells]
        shift = starts[cells] - (np.cumsum(sizes) - sizes)
        rows = order[np.arange(int(kept.codes[query])) + np.repeat(shift, sizes)]
        settled = np.repeat(kept.certain[query, cells], sizes)
        relevant = self._relevant_candidates(rows[None], settled[None], weights[None], params.cutoff)[0]
        dropped = len(rows) - int(np.count_nonzero(relevant))
        rows = rows[relevant]
        if params.shortlist is not None and len(rows) > params.shortlist:
            near = np.argpartition(hamming(code, self._state.columns.codes[rows]), params.shortlist - 1)
            rows = rows[near[: params.shortlist]]
        return rows, dropped

    def _rows_by_cell(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of all records by cell, and where each cell's rows start; (records,) and (cells + 1,) int64."""
        with self._mapping:
            if self._by_cell is not None:
                return self._by_cell
            live = self._state.live
            order = live[np.argsort(self._state.columns.cells[live], kind="stable")]
            starts = np.concatenate([[0], np.cumsum(self._state.cells.sizes)])
            self._by_cell = (order, starts)
        return self._by_cell


def _engine(state: State) -> IvfEngine:
    """An engine that holds the codes of all records."""
    engine = IvfEngine(state.cells.config.bits)
    for start in range(0, len(state), _LOAD_ROWS):
        rows = state.live[start : start + _LOAD_ROWS]
        engine.add(state.columns.codes[rows], rows, state.columns.cells[rows])
    return engine


def _gathered(state: State, rows: NDArray[np.int64]) -> Encodings:
    """The records in these rows, whole."""
    columns = state.columns
    uris = columns.uris(rows)
    probabilities, place = columns.probabilities(rows)
    features, at = columns.features(rows)
    columns.relax()
    return Encodings(
        probabilities=probabilities[place],
        codes=columns.codes[rows],
        features=features[at],
        ids=columns.ids[rows],
        uris=uris if any(uri is not None for uri in uris) else None,
    )


def _durability(given: Durability) -> Durability:
    if given not in ("batch", "close"):
        raise InvalidParameterError(f'durability = {shown(given)}, expected "batch" or "close"')
    return given


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
