"""`Searchable`: what the searches of a `FaissIndex` see, and how it moves from one snapshot to the next.

A snapshot of the store, the scanner with the codes of its records, the search that uses both, and the map of ids belong
together: searches must never see one of them newer than another. So they change together here, under a lock that
searches share. Whoever changes the index comes with the next snapshot and has made sure that no other change runs.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import SearchParams
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import ClosedIndexError
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.choose import AnyScanner, apply_changes, build_gpu_features, build_scanner, changed_rows
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.choose_search import build_search
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.storage.id_map import IdMap
from semcut.indexes.storage.shared_lock import SharedLock
from semcut.indexes.storage.snapshot import Snapshot


class Searchable:
    """One snapshot, ready to be searched. Make one from the snapshot that an index was opened with.

    Args:
        snapshot: the records.
        similarity: the S of the index.
        engine: name of the scanner, as `choose` knows it.
        device: where codes are scanned.

    Attributes:
        snapshot: the records that searches see.
        scanner: scans their codes.
        lock: shared by everything that reads a scanner, exclusive while one snapshot replaces another.
        closed: whether the index was closed.
    """

    def __init__(self, snapshot: Snapshot, similarity: Similarity, engine: str, device: str) -> None:
        self._similarity, self._engine, self._device = similarity, engine, device
        self.snapshot = snapshot
        self.scanner = build_scanner(snapshot, engine, device)
        self._features = build_gpu_features(snapshot, device)
        self._search = build_search(snapshot, self.scanner, similarity, self._features)
        self._ids: IdMap | None = None
        self.lock, self.closed = SharedLock(), False
        self._mapping = threading.Lock()

    def check_open(self) -> None:
        """Raise `ClosedIndexError` if the index was closed."""
        if self.closed:
            raise ClosedIndexError

    def search(
        self, queries: Encodings, params: SearchParams, scored: bool, trace: SearchTrace | None = None
    ) -> SearchResult:
        """Search the snapshot; the caller holds the lock. There must be a query and a record."""
        return self._search.search(queries, params, scored, trace)

    def publish(self, after: Snapshot) -> None:
        """Let searches see another snapshot. If this raises, the scanner may hold a part of it and must not be used."""
        before = self.snapshot
        fresh = after.committed.generation != before.committed.generation
        scanner = build_scanner(after, self._engine, self._device) if fresh else self.scanner
        features = build_gpu_features(after, self._device) if fresh else self._features
        added, removed = changed_rows(before, after)
        search = build_search(after, scanner, self._similarity, features)
        with self.lock.exclusive():
            if fresh:
                self._ids = None
            else:
                apply_changes(scanner, after, added, removed)
                if self._ids is not None:
                    self._ids.remove(after.columns.ids[removed])
                    self._ids.add(after.columns.ids[added], added)
            self.scanner, self._features, self.snapshot, self._search = scanner, features, after, search

    def adopt(self, scanner: AnyScanner) -> None:
        """Search the same snapshot with the compiled scanner from now on, which holds the same codes.

        Needs no lock: searches that are under way finish with the scanner before, which no change will reach any more.
        """
        search = build_search(self.snapshot, scanner, self._similarity, self._features)
        self._engine, self.scanner, self._search = "compiled", scanner, search

    def id_map(self) -> IdMap:
        """Return the map from ids to rows, made when it is first needed; the caller holds the lock or is a change."""
        with self._mapping:
            if self._ids is None:
                ids, snapshot = IdMap(), self.snapshot
                ids.add(snapshot.columns.ids[snapshot.live], snapshot.live)
                self._ids = ids
            return self._ids

    def rows(self, ids: NDArray[np.int64]) -> tuple[Snapshot, NDArray[np.int64]]:
        """Find the rows of records; the caller holds the lock.

        Returns:
            The snapshot, and (n,) int64 rows in it.

        Raises:
            UnknownIdError: an id is not in the snapshot.
        """
        rows = self.id_map().rows(ids)
        refuse_unknown(ids, rows)
        return self.snapshot, rows

    def members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        """Return ids of some records of a partition, see `SemanticIndex.members`; the caller holds the lock."""
        cells = self.snapshot.cells
        wanted = cells.of_partition(partition, ambiguous=ambiguous)
        if ambiguous:  # as few cells as have enough
            wanted = wanted[: 1 + int(np.searchsorted(np.cumsum(cells.sizes[wanted]), limit))]
        rows, _ = self.scanner.rows(wanted)
        if not ambiguous:
            rows = rows[np.linspace(0, max(0, len(rows) - 1), min(limit, len(rows))).astype(np.int64)]
        return self.snapshot.columns.ids[rows[:limit]]
