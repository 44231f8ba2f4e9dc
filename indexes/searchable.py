"""`Searchable`: the snapshot that the searches of a `FaissIndex` see, and the move from one snapshot to the next.

A snapshot of the store, the scanner with the codes of its records, the search that uses both, and the map from ids to
rows belong together: searches must never see them at different versions. So they are replaced together, under a lock
that searches share. The caller of `publish` passes the next snapshot, and must prevent other changes meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.batch_checks import is_scored
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import ClosedIndexError
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.range_result import RangeHits, RangeParams
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.choose import AnyScanner, apply_changes, build_gpu_features, build_scanner, changed_rows
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.beyond_cutoff import search_beyond
from semcut.indexes.search.choose_search import build_search
from semcut.indexes.search.prepared_selections import Limited, PreparedSelections
from semcut.indexes.search.range_search import search_range
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams
from semcut.indexes.storage.cut_files import require_frames
from semcut.indexes.storage.id_map import IdMap
from semcut.indexes.storage.shared_lock import SharedLock
from semcut.indexes.storage.snapshot import Snapshot

_T = TypeVar("_T")


class Searchable:
    """One snapshot at a time, ready to be searched, starting with the one that the index was opened with.

    Args:
        snapshot: the first snapshot.
        similarity: the S of the index.
        engine: name of the scanner, as in `scanners.choose.build_scanner`.
        device: where codes are scanned.

    Attributes:
        snapshot: the snapshot that searches see.
        scanner: scans the codes of its records.
        lock: shared by all readers of the scanner, exclusive while one snapshot replaces another.
        closed: whether the index was closed.
        whole: False while, or if, `publish` has changed a part only.
    """

    def __init__(self, snapshot: Snapshot, similarity: Similarity, engine: str, device: str) -> None:
        self._similarity, self._engine, self.device = similarity, engine, device
        self.snapshot = snapshot
        self.scanner = build_scanner(snapshot, engine, device)
        self._features = build_gpu_features(snapshot, device)
        self._search = build_search(snapshot, self.scanner, similarity, self._features)
        self._ids: IdMap | None = None
        self.lock, self.closed = SharedLock(), False
        self.whole = True
        self._mapping = threading.Lock()
        self._selections = PreparedSelections()

    def check_open(self) -> None:
        """Raise `ClosedIndexError` if the index was closed."""
        if self.closed:
            raise ClosedIndexError

    def read(self, call: Callable[[], _T]) -> _T:
        """Call a function while one snapshot stays in place, and return its result.

        Raises:
            ClosedIndexError: the index was closed.
            DamagedIndexError: a file of the index was cut meanwhile, see `Columns.reading`.
        """
        while True:
            with self.lock.of_this_thread():
                if self.lock.is_open():
                    self.check_open()
                    columns = self.snapshot.columns
                    require_frames()  # from here on as `Columns.reading`, with one call less to follow
                    try:
                        result = call()
                    except Exception as error:
                        columns.require_unchanged(error)
                        raise
                    columns.require_uncut()
                    return result
            self.lock.wait()

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        selection: Selection | None,
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Search the snapshot.

        Args:
            queries, params, trace: as for `SemanticIndex.search`.
            selection: the records that are searched; None for all.
        """

        def search() -> SearchResult:
            snapshot, engine, chosen = self.snapshot, self._search, params
            snapshot.columns.require_searchable()
            scored = is_scored(snapshot.cells.config, queries, params, snapshot.normalised)
            if selection is not None:
                snapshot, _, engine = self._limited(selection)
            if not len(queries) or not len(snapshot):
                return SearchResult.empty(len(queries), params.k)
            if params.shortlist is not None and params.shortlist >= len(snapshot):
                chosen = params.model_copy(update={"shortlist": None})
            return search_beyond(engine, queries, chosen, scored, lambda: len(snapshot), trace)

        return self.read(search)

    def _limited(self, selection: Selection) -> Limited:
        """Return the snapshot with the records of a selection alone, its scanner and its search."""
        with self._mapping:
            found = self._selections.get(self.snapshot, selection)
        if found is not None:
            return found
        snapshot = self.snapshot.limited_to(self.selected_rows(selection))
        scanner = build_scanner(snapshot, self._engine, self.device)
        limited = Limited(snapshot, scanner, build_search(snapshot, scanner, self._similarity))
        with self._mapping:
            self._selections.put(self.snapshot, selection, limited)
        return limited

    def selected_ids(self, selection: Selection) -> NDArray[np.int64]:
        """Return the ids of a selection, ascending, in a function that `read` calls: (n,) int64."""
        return np.sort(self.snapshot.columns.ids[self.selected_rows(selection)])

    def selected_rows(self, selection: Selection) -> NDArray[np.int64]:
        """Return the rows of the records of a selection, ascending, in a function that `read` calls: (n,) int64."""
        snapshot = self.snapshot
        matching = None if selection.where is None else snapshot.attributes.matching(selection.where)
        if selection.among is not None:
            found = self.id_map().rows(selection.among.ids)
            rows = np.sort(found[found >= 0])
            return rows if matching is None else rows[matching[rows]]
        assert matching is not None
        matching[snapshot.columns.removed] = False
        return np.flatnonzero(matching)

    def search_range(self, queries: Encodings, params: RangeParams, selection: Selection | None) -> list[RangeHits]:
        """Find all records of the snapshot within a radius of each query; arguments as for `search`."""

        def search() -> list[RangeHits]:
            snapshot, scanner = self.snapshot, self.scanner
            snapshot.columns.require_searchable()
            with_scores = is_scored(snapshot.cells.config, queries, SearchParams(), snapshot.normalised)
            if selection is not None:
                snapshot, scanner, _ = self._limited(selection)
            if not len(snapshot):
                return [RangeHits.none()] * len(queries)
            columns, cells = snapshot.columns, snapshot.cells
            return search_range(columns, cells, scanner, self._similarity, queries, params, with_scores)

        return self.read(search)

    def publish(self, after: Snapshot) -> None:
        """Make searches see another snapshot. If this raises, only `restore` makes the index usable again."""
        before = self.snapshot
        if after.columns.sources is not before.columns.sources:  # after a compaction, or another index in its place
            self._replace(after)
            return
        added, removed = changed_rows(before, after)
        search = build_search(after, self.scanner, self._similarity, self._features)

        def change() -> None:
            self.whole = False
            apply_changes(self.scanner, after, added, removed)
            ids = self._ids
            if ids is not None:
                former = after.columns.ids[removed]
                if np.array_equal(ids.rows(former), removed):
                    ids.remove(former)
                    ids.add(after.columns.ids[added], added)
                else:  # ids occur twice, or another program has changed them: no removed row may stay in the map
                    self._ids = None
            self.snapshot, self._search = after, search
            self.whole = True

        self.lock.write(change)

    def restore(self, snapshot: Snapshot) -> None:
        """Make searches see a snapshot after `publish` was interrupted, with a new scanner where that is necessary."""
        if not self.whole or snapshot is not self.snapshot:
            self._replace(snapshot)

    def _replace(self, after: Snapshot) -> None:
        """Make searches see a snapshot, with a new scanner and a new map from ids to rows."""
        scanner = build_scanner(after, self._engine, self.device)
        features = build_gpu_features(after, self.device)
        search = build_search(after, scanner, self._similarity, features)

        def replace() -> None:
            self.whole = False
            self._ids = None
            self.scanner, self._features, self.snapshot, self._search = scanner, features, after, search
            self.whole = True

        self.lock.write(replace)

    def after_fork(self) -> None:
        """Make, in a forked child, the lock anew that a thread of the parent may have held."""
        self._mapping = threading.Lock()

    def adopt(self, scanner: AnyScanner) -> None:
        """Search the same snapshot from now on with a compiled scanner that has the same codes.

        No lock is needed: running searches finish with the previous scanner, which later changes do not modify.
        """
        search = build_search(self.snapshot, scanner, self._similarity, self._features)
        self._engine, self.scanner, self._search = "compiled", scanner, search
        with self._mapping:
            self._selections = PreparedSelections()

    def id_map(self) -> IdMap:
        """Return the map from ids to rows, built when first needed, in a function that `read` calls or in a change."""
        with self._mapping:
            if self._ids is None:
                ids, snapshot = IdMap(), self.snapshot
                ids.add(snapshot.columns.ids[snapshot.live], snapshot.live)
                self._ids = ids
            return self._ids

    def rows(self, ids: NDArray[np.int64]) -> tuple[Snapshot, NDArray[np.int64]]:
        """Find the rows of records, in a function that `read` calls.

        Returns:
            The snapshot, and (n,) int64 rows in it.

        Raises:
            UnknownIdError: an id is not in the snapshot.
        """
        rows = self.id_map().rows(ids)
        refuse_unknown(ids, rows)
        return self.snapshot, rows

    def keys(self, ids: NDArray[np.int64]) -> list[str | None]:
        """Return the keys of records, in a function that `read` calls; None for an id that is not in the snapshot."""
        rows = self.id_map().rows(ids)
        found = iter(self.snapshot.columns.keys(rows[rows >= 0]) or ())
        return [next(found) if row >= 0 else None for row in rows.tolist()]

    def members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        """Return ids of some records of a partition, see `SemanticIndex.members`."""
        cells = self.snapshot.cells
        wanted = cells.of_partition(partition, ambiguous=ambiguous)
        if ambiguous:  # the fewest cells that have enough records
            wanted = wanted[: 1 + int(np.searchsorted(np.cumsum(cells.sizes[wanted]), limit))]
        rows, _ = self.scanner.rows(wanted)
        if not ambiguous:
            rows = rows[np.linspace(0, max(0, len(rows) - 1), min(limit, len(rows))).astype(np.int64)]
        return self.snapshot.columns.ids[rows[:limit]]
