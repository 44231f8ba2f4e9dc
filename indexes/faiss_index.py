"""`FaissIndex`: an index of encodings on the CPU, in memory or stored, for many threads and processes.

What is stored and survives is the business of `store`, how a search goes that of `pipeline`. Here they meet: a state of
the store, the engine with the codes of its records, and the map of their ids change together, under a lock that
searches share.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.config import IndexConfig, SearchParams
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidParameterError, SemcutError, StorageError, shown
from semcut.indexes.index import IndexStats, SearchResult, refuse_known, refuse_unknown
from semcut.indexes.kernels.engine_switch import EngineSwitch
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.pruning.explanation import ExplainedIndex
from semcut.indexes.scanners.choose import AnyScanner, advance, changed, devices_of, engine_of, features_of, search_of
from semcut.indexes.scanners.protocol import EngineName, chosen
from semcut.indexes.storage.id_map import IdMap
from semcut.indexes.storage.shared_lock import SharedLock
from semcut.indexes.storage.snapshot import Progress, Snapshot
from semcut.indexes.storage.store import Durability, Store
from semcut.indexes.storage.verify import Damage, verify


class FaissIndex(ExplainedIndex):
    """An index in memory or in a directory, searched on the CPU. Make one with `create` or `open`.

    Of the processes that have a stored index open, one may change it: the first that does has it until it closes it.
    The others see it as it was when they opened it or last called `refresh`. `store` says what a crash leaves.
    """

    def __init__(self, store: Store, engine: str, device: str) -> None:
        super().__init__(store.config)
        self._store, self._engine_name, self._device = store, engine, device
        try:
            self._state = store.state
            self._engine = engine_of(self._state, engine, device)
            self._features = features_of(self._state, device)
            self._pipeline = search_of(self._state, self._engine, self._similarity, self._features)
        except BaseException:
            store.close()
            raise
        self._ids: IdMap | None = None
        self._lock = SharedLock()  # searches share what they read in memory, a change has it alone
        self._changing = threading.RLock()  # one change at a time, from before its first byte is written
        self._mapping = threading.Lock()
        self._in_change = False
        self._switch = EngineSwitch(self) if engine == "auto" else None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        config: IndexConfig,
        *,
        durability: Durability = "batch",
        engine: EngineName = "auto",
        device: str = "cpu",
    ) -> Self:
        """Make an empty index, stored at `path` (a new or empty directory) or in memory where it is None.

        Args:
            path: where to.
            config: what it is.
            durability: "batch": a change is on the disk when its call returns. "close": it is when the index is flushed
                or closed, together with all others since the last flush, and a crash before loses all of them; for
                bulk loads in many small batches.
            engine: what scans the codes, with the same answers: "compiled" (needs numba, extra `fast`), "faiss",
                or for cards "torch" (needs torch) and "flat" (needs faiss-gpu). "auto" is "torch" on a card, and on the
                processor what the environment variable SEMCUT_ENGINE says, else "compiled" where numba is installed.
                "compiled" that is asked for by name, or by SEMCUT_ENGINE, is compiled now if it was not before on this
                machine: about half a minute. "auto" does not wait for that: "faiss" answers while one process beside
                compiles, and the first search after that moves the index on.
            device: where codes are kept and scanned: "cpu"; "cuda:0", a card; "cuda", all cards.

        Raises:
            IndexExistsError: there is something at the path.
            StorageError: the directory cannot be made.
            MissingDependencyError: the engine that is asked for needs numba or torch.
            DeviceError: the device is not there.
        """
        name = _engine(engine, device)
        devices_of(name, device)  # before anything is made
        return cls(Store.create(None if path is None else Path(path), config, _durability(durability)), name, device)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "batch",
        engine: EngineName = "auto",
        device: str = "cpu",
    ) -> Self:
        """Open a stored index as it was at the last completed change.

        Ids, codes and cells are read now, 20 bytes a record and 64 bits; the rest, row by row when it is needed.

        Args:
            path: its directory.
            durability, engine, device: as for `create`.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
            DeviceError: the device is not there, or is out of memory.
        """
        name = _engine(engine, device)
        return cls(Store.open(Path(path), _durability(durability)), name, device)

    def __len__(self) -> int:
        return len(self._state)

    @property
    def version(self) -> int:
        """How many changes the index has seen, in the state that is read here."""
        return self._state.committed.version

    @property
    def snapshot(self) -> Snapshot:
        """The state that searches see now: its records by row, their columns, and their cells. It is immutable, and can
        be read as long as the index is open, whatever changes the index sees meanwhile.
        """
        self._check_open()
        return self._state

    @property
    def scanner(self) -> AnyScanner:
        """What scans the codes of `snapshot`, for whoever measures a scan alone."""
        self._check_open()
        return self._engine

    def stats(self) -> IndexStats:
        """The size of the index."""
        self._check_open()
        return self._state.stats()

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

    def _publish(self, after: Snapshot) -> None:
        """Let searches see a state."""
        before = self._state
        if after is before:
            return
        fresh = after.committed.generation != before.committed.generation
        engine = engine_of(after, self._engine_name, self._device) if fresh else self._engine
        added, gone = changed(before, after)
        features = features_of(after, self._device) if fresh else self._features
        search = search_of(after, engine, self._similarity, features)
        try:
            with self._lock.exclusive():
                if fresh:
                    self._ids = None
                else:
                    advance(engine, after, added, gone)
                    if self._ids is not None:
                        self._ids.remove(after.columns.ids[gone])
                        self._ids.add(after.columns.ids[added], added)
                self._engine, self._features, self._state, self._pipeline = engine, features, after, search
        except BaseException:  # the engine may hold a part of it
            self._abandon()
            raise

    def _current(self) -> Snapshot | None:
        """The state that is searched, None of a closed index."""
        return None if self._closed else self._state

    def _adopt(self, engine: AnyScanner, state: Snapshot) -> bool:
        """Search with the compiled engine from now on, unless the index was changed or closed since this state, or is
        being so.

        Waits for nothing, and nothing waits for it: searches that are under way finish with the engine before, which no
        change will reach any more.
        """
        if not self._changing.acquire(blocking=False):
            return False
        try:
            if self._current() is not state:
                return False
            search = search_of(state, engine, self._similarity, self._features)
            self._engine_name, self._engine, self._pipeline = "compiled", engine, search
            return True
        finally:
            self._changing.release()

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

    def _found(self, ids: NDArray[np.int64]) -> tuple[Snapshot, NDArray[np.int64]]:
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
        state, rows = self._found(ids)
        return state.columns.records(rows)

    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        state = self._state
        order = state.live[state.columns.ids[state.live] > after]
        order = order[np.argsort(state.columns.ids[order])]
        return (state.columns.records(order[start : start + batch_size]) for start in range(0, len(order), batch_size))

    def _cells(self) -> Cells:
        return self._state.cells

    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        with self._lock.shared():
            self._check_open()
            cells = self._state.cells
            wanted = cells.of_partition(partition, ambiguous=ambiguous)
            if ambiguous:  # as few cells as have enough
                wanted = wanted[: 1 + int(np.searchsorted(np.cumsum(cells.sizes[wanted]), limit))]
            rows, _ = self._engine.rows(wanted)
            if not ambiguous:
                rows = rows[np.linspace(0, max(0, len(rows) - 1), min(limit, len(rows))).astype(np.int64)]
            return self._state.columns.ids[rows[:limit]]

    def _search(self, queries: Encodings, params: SearchParams) -> SearchResult:
        self._check_open()
        switch = self._switch
        if switch is not None and not switch.look():
            self._switch = None
        with self._lock.shared():
            self._check_open()
            scored = self._scored(queries, params, self._state.normalised)
            if not len(queries) or not len(self):
                return SearchResult.empty(len(queries), params.k)
            if params.shortlist is not None and params.shortlist >= len(self):
                params = params.model_copy(update={"shortlist": None})
            return self._pipeline.search(queries, params, scored)


def _engine(given: str, device: str) -> str:
    name = chosen(given, device)
    if name == "compiled":
        from semcut.indexes.kernels.warmup import prepare

        prepare()
    return name


def _durability(given: Durability) -> Durability:
    if given not in ("batch", "close"):
        raise InvalidParameterError(f'durability = {shown(given)}, expected "batch" or "close"')
    return given
