"""`FaissIndex`: an index of encodings on one machine, in memory or stored, for many threads and processes.

It connects two parts: `storage.store`, which stores the records so that they survive a crash, and `Searchable`, the
snapshot that searches see. A change becomes visible to searches when the store has committed it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.argument_checks import callback_given, instance_given, path_given
from semcut.indexes.attributes.selections import Selection
from semcut.indexes.changes import Changes
from semcut.indexes.config import IndexConfig
from semcut.indexes.description import Capabilities, IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.engine_switch import EngineSwitch, engine_given
from semcut.indexes.index import SemanticIndex
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.range_result import RangeHits, RangeParams
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.choose import AnyScanner, device_names
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams
from semcut.indexes.searchable import Searchable
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.transactions import Durability, durability_given
from semcut.indexes.storage.verify import Damage, verify
from semcut.indexes.unfinished import warn_if_unfinished

_T = TypeVar("_T")


class FaissIndex(SemanticIndex):
    """An index in memory or in a directory, searched on one machine. Use `create` or `open` to make an instance.

    Any number of processes may have a stored index open. The first one that changes it is the writer until it closes
    it; the others see it as it was when they opened it or last called `refresh`. After a crash: see
    `storage.transactions`.
    """

    capabilities = Capabilities(counts_codes=True, cheap_stats=True)

    def __init__(self, store: Store, engine: str, device: str) -> None:
        super().__init__(store.config)
        self._store = store
        try:
            self._searchable = Searchable(store.snapshot, self._similarity, engine, device)
        except BaseException:
            store.close()
            raise
        self._changes = Changes(store, self._searchable)
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
        """Create an empty index, in a directory or in memory.

        Args:
            path: a new or empty directory; None for an index in memory.
            config: the shape of the index.
            durability: "batch": a change is on the disk when its call returns. "close": changes are written to the disk
                when the index is flushed or closed, and a crash before that loses them; for loads in small batches.
            engine: the scanner of the codes; every engine gives the same answers. "compiled" needs numba (extra
                `fast`), "faiss" needs no other package; for GPUs there are "torch" (needs torch) and "flat" (needs
                faiss-gpu). "auto" chooses: "torch" on a GPU; on the CPU the value of the environment variable
                SEMCUT_ENGINE, else "compiled" if numba is installed, else "faiss". If "compiled" is named here or in
                SEMCUT_ENGINE, the call compiles the kernels, which takes about half a minute, once on each machine.
                The default does not wait for that: "faiss" answers while a background process compiles, and a later
                search moves the index to "compiled".
            device: where codes are stored and scanned: "cpu", one GPU such as "cuda:0", or "cuda" for all GPUs.

        Raises:
            InvalidParameterError: the durability, the engine or the device has an unknown name, or the engine does not
                run on the device.
            IndexExistsError: the directory is not empty, or the path is a file.
            StorageError: the directory cannot be created.
            MissingDependencyError: the engine needs numba or torch, which is not installed.
            DeviceError: the device does not exist.
        """
        place = None if path is None else path_given("path", path)
        instance_given("config", config, IndexConfig)
        name = engine_given(engine, device)
        device_names(name, device)  # raises before the directory is created
        return cls(Store.create(place, config, durability_given(durability)), name, device)._with(durability, engine)

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

        Ids, codes and cells are read now, 20 bytes per record for codes of 64 bits; other columns when they are needed.

        Args:
            path: the directory of the index.
            durability, engine, device: as for `create`.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: there is no index in the directory that can be
                opened; the message says what is wrong.
            InvalidParameterError, MissingDependencyError: as for `create`; DeviceError also: it is out of memory.

        Warns:
            SemcutWarning: records are known to be missing, see `unfinished`.
        """
        place = path_given("path", path)
        name = engine_given(engine, device)
        opened = cls(Store.open(place, durability_given(durability)), name, device)._with(durability, engine)
        warn_if_unfinished(place, len(opened), stacklevel=2)
        return opened

    def _with(self, durability: Durability, engine: EngineName) -> Self:
        self._options: dict[str, Any] = {"durability": durability, "engine": engine, "device": self._searchable.device}
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return how `pickle` and `copy` open a stored index again, at its last commit; refuse an index in memory."""
        if self._store.path is None:
            return super().__reduce_ex__(protocol)
        self.flush()
        return partial(type(self).open, **self._options), (str(self._store.path),)

    def __len__(self) -> int:
        self._changes.settle()
        return len(self._searchable.snapshot)

    @property
    def version(self) -> int:
        """The number of changes up to the snapshot that searches see."""
        self._changes.settle()
        return self._searchable.snapshot.committed.version

    @property
    def in_place(self) -> bool:
        """Whether the directory still holds this index: False after it was deleted, moved or replaced."""
        return self._store.in_same_directory()

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that searches see now. It never changes, and can be read as long as the index is open."""
        self._check_open()
        return self._searchable.snapshot

    @property
    def scanner(self) -> AnyScanner:
        """The scanner that holds the codes of `snapshot`, for measuring a scan alone."""
        self._check_open()
        return self._searchable.scanner

    def stats(self) -> IndexStats:
        """Return the size of the index."""
        self._check_open()
        return self._searchable.snapshot.stats()

    def refresh(self) -> bool:
        """Move to the last state that a writer in another process has committed, and return whether it is a new one.

        Without it a reader sees no changes. After a compaction, it takes as long as `open`.

        Raises:
            DamagedIndexError: the new state is damaged; the previous state stays in use.
        """
        with self._changes.lock:
            self._check_open()
            before = self._searchable.snapshot
            self._changes.publish(self._store.refresh())
            return self._searchable.snapshot is not before

    def begin(self) -> None:
        """Become the writer now, not at the first change, from the last commit on; errors as for `add`."""
        self._changes.begin()

    def flush(self) -> None:
        """Commit the changes that durability "close" has postponed.

        Raises:
            StorageError: the changes cannot be written. They are lost, and the index is closed.
        """
        with self._changes.lock:
            self._check_open()
            self._changes.flush()

    def compact(self, progress: Progress | None = None) -> None:
        """Free the space of removed records and tighten the bounds of cells. Searches continue meanwhile.

        Needs space on the disk for a copy of the remaining records. Other processes see it after a refresh.

        Args:
            progress: called with the number of records copied so far and in all.

        Raises:
            DamagedIndexError: a remaining record is damaged.
            LockedError, StorageError: as for `add`.
        """
        callback_given("progress", progress)
        self._changes.compact(progress)

    def backup(self, path: str | os.PathLike[str], progress: Progress | None = None) -> None:
        """Write a copy of the index, as it is now, while searches and changes continue; also of one in memory.

        All columns are compared with their checksums while they are copied.

        Args:
            path: a new or empty directory.
            progress: called with the number of records copied so far and in all.

        Raises:
            IndexExistsError: the directory is not empty, or the path is a file.
            DamagedIndexError: the index is damaged; no backup is made.
            StorageError: the backup cannot be written.
        """
        target = path_given("path", path)
        callback_given("progress", progress)
        with self._changes.lock:
            self._check_open()
            if self._store.writing:
                self.flush()
            snapshot = self._searchable.snapshot
            beside = self._store.beside(snapshot)
        self._store.backup(target, snapshot, progress, beside)

    def verify(self, progress: Progress | None = None) -> list[Damage]:
        """Read all stored data and list the damage, see `storage.verify`; the list is empty if there is none."""
        callback_given("progress", progress)
        with self._changes.lock:
            self._check_open()
            if self._store.writing:
                self.flush()
            snapshot = self._searchable.snapshot
        return verify(self._store, snapshot, progress)

    def close(self) -> None:
        """Flush, then release files, memory and the writer's lock. Closing twice is allowed.

        Raises:
            StorageError: postponed changes cannot be written, and are lost.
        """
        with self._changes.lock:
            if self._searchable.closed:
                self._store.close()  # Ctrl-C may have ended the closing after an error
                return
            try:
                if self._store.writing and not self._changes.forked:
                    self._store.flush()
            finally:
                self._changes.abandon()

    def _check_open(self) -> None:
        if self._searchable.closed:
            self._store.close()
        self._searchable.check_open()
        self._changes.settle()

    def _reading(self, call: Callable[[], _T]) -> _T:
        """Call a function while no change is published, and return its result."""
        self._check_open()
        return self._searchable.read(call)

    def _current(self) -> Snapshot | None:
        return None if self._searchable.closed else self._searchable.snapshot

    def _adopt(self, scanner: AnyScanner, snapshot: Snapshot) -> bool:
        return self._changes.adopt(scanner, snapshot)

    def _add(self, encodings: Encodings, *, replace: bool) -> None:
        self._changes.add(encodings, replace=replace)

    def _remove(self, ids: NDArray[np.int64]) -> None:
        self._changes.remove(ids)

    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""
        self._check_open()
        snapshot = self._searchable.snapshot
        return np.sort(snapshot.columns.reading(lambda: snapshot.columns.ids[snapshot.live]))

    def next_id(self) -> int:
        """Return the smallest id above all ids in the index, which is free, as are all larger ones."""
        return self._reading(lambda: self._searchable.id_map().largest() + 1)

    def _rows(self, ids: NDArray[np.int64]) -> tuple[Snapshot, NDArray[np.int64]]:
        return self._reading(lambda: self._searchable.rows(ids))

    def _contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._reading(lambda: self._searchable.id_map().rows(ids) >= 0)

    def _keys(self, ids: NDArray[np.int64]) -> list[str | None]:
        return self._reading(lambda: self._searchable.keys(ids))

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        snapshot, rows = self._rows(ids)
        return snapshot.columns.uris(rows)

    def _attributes(self, ids: NDArray[np.int64]) -> dict[str, list[Any]]:
        snapshot, rows = self._rows(ids)
        return snapshot.columns.attributes(rows)

    def _get(self, ids: NDArray[np.int64]) -> Encodings:
        snapshot, rows = self._rows(ids)
        return snapshot.columns.records(rows)

    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        snapshot = self._searchable.snapshot
        rows = snapshot.rows_by_id(after)
        return snapshot.batches(rows[start : start + batch_size] for start in range(0, len(rows), batch_size))

    def _cells(self) -> Cells:
        return self._searchable.snapshot.cells

    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        return self._reading(lambda: self._searchable.members(partition, limit, ambiguous))

    def _matching(self, selection: Selection) -> NDArray[np.int64]:
        return self._reading(lambda: self._searchable.selected_ids(selection))

    def _search(
        self, queries: Encodings, params: SearchParams, selection: Selection | None, trace: SearchTrace | None
    ) -> SearchResult:
        self._check_open()
        if self._switch is not None and not self._switch.look():
            self._switch = None
        return self._searchable.search(queries, params, selection, trace)

    def _search_range(self, queries: Encodings, params: RangeParams, selection: Selection | None) -> list[RangeHits]:
        return self._searchable.search_range(queries, params, selection)
