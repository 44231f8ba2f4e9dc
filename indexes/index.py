"""`SemanticIndex`: the whole contract of an index, the same for every backend.

Arguments are checked here alone, so every index raises the same error for the same mistake before anything changes.
Backends implement the methods that begin with an underscore, which do not check their arguments.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.argument_checks import instance_given, integer_given
from semcut.indexes.cell_reports import CellReports
from semcut.indexes.config import IndexConfig, Ranking, SearchParams, search_params
from semcut.indexes.description import IndexStats
from semcut.indexes.encodings import Encodings, Records
from semcut.indexes.errors import ClosedIndexError, InvalidEncodingsError, InvalidParameterError
from semcut.indexes.id_checks import ids_given, refuse_duplicates
from semcut.indexes.range_result import Measure, RangeHits, RangeParams, RangeResult
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.diversity import diversified
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST
from semcut.indexes.stored_values import norm_tolerance, stored_values


class SemanticIndex(CellReports):
    """An index of encodings: `create` or `open` one, `add` records, `search` it.

    Any number of threads may use an index at the same time. Changes are made one after the other; every search, `get`
    and `iterate` sees the index as it was at one moment. An index is a context manager that closes itself.
    """

    def __init__(self, config: IndexConfig) -> None:
        self.config = instance_given("config", config, IndexConfig)
        self._similarity = Similarity(config)
        self._closed = False

    @property
    def similarity(self) -> Similarity:
        """The S of Eq. 1, which turns probabilities of queries into weights: `similarity.weights(probabilities)`."""
        return self._similarity

    @property
    @abstractmethod
    def version(self) -> int | str:
        """Identifies the state that searches see. It differs after every change; compare versions for equality only."""

    def add(self, encodings: Encodings) -> None:
        """Add records, all or none of them. A batch without records is allowed and does nothing.

        Args:
            encodings: the records, with ids, and with the classes, bits and feature length of this index.

        Raises:
            InvalidEncodingsError: the records have no ids, or other widths than the index.
            DuplicateIdError: an id occurs twice in the batch or is in the index.
            LockedError: the index has another writer.
            StorageError: the batch could not be stored. The index is unchanged, as after every error.
        """
        if len(batch := self._checked(encodings)):
            self._add(batch, replace=False)

    def upsert(self, encodings: Encodings) -> None:
        """Add records, and replace records that have the same ids: all or none of them, in one change.

        Args:
            encodings: as for `add`.

        Raises:
            InvalidEncodingsError: as for `add`.
            DuplicateIdError: an id occurs twice in the batch.
            LockedError, StorageError: as for `add`.
        """
        if len(batch := self._checked(encodings)):
            self._add(batch, replace=True)

    def load(self, encodings: Encodings) -> None:
        """Add records whose ids are known not to be in the index, for bulk loads.

        By default this is `upsert`. A backend for which looking up ids is expensive does not look them up here.

        Args:
            encodings: as for `upsert`.

        Raises:
            InvalidEncodingsError, DuplicateIdError, LockedError, StorageError: as for `upsert`.
        """
        self.upsert(encodings)

    def sweep(self, ids: NDArray[np.int64]) -> None:
        """Delete remains of the records with (n,) int64 ids that crashed writers have left, where that can happen.

        No other writer may be active. By default there are no such remains.
        """
        self._ids_given(ids)

    def remove(self, ids: Any) -> None:
        """Remove the records with these ids, all or none of them.

        Args:
            ids: (n,) integers; an id that occurs twice counts once.

        Raises:
            UnknownIdError: some ids are not in the index; the message names them.
            LockedError, StorageError: as for `add`.
        """
        wanted = np.unique(self._ids_given(ids))
        if len(wanted):
            self._remove(wanted)

    def search(
        self,
        queries: Encodings,
        *,
        k: int = DEFAULT_K,
        cutoff: float | None = DEFAULT_CUTOFF,
        shortlist: int | None = DEFAULT_SHORTLIST,
        ranking: Ranking = "distance",
        fill: bool = True,
        exclude_self: bool = False,
        diversity: float = 0.0,
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Find the k best records for every query.

        Args:
            queries: nq queries with the classes, bits and feature length of this index; their uris are ignored.
            k: number of records to return for each query, at least 1.
            cutoff: t of Eq. 2, in [0, 1): records with relevance strictly above t are relevant. None for no cutoff: see
                `search.beyond_cutoff`.
            shortlist: number of relevant records, nearest by Hamming distance, to rank. A fixed rule (see
                `search.tie_order`) chooses among records at the last distance, so the answer depends on the query and
                the records alone. None ranks every relevant record.
            ranking: "distance" orders by Euclidean distance of features, ascending; "fused" by the score of Eq. 4,
                descending; "relevance" by R of Eq. 1, descending, and records with the same R by distance. Ties are
                ordered by id.
            fill: whether the best of the other records fill the places that fewer than k relevant records leave, so
                that every query has min(k, records) results. `SearchResult.filled` marks them.
            exclude_self: whether the record with the id of a query is never in its answer, which is then that of an
                index without this record. The queries need ids.
            diversity: from 0 to below 1: how much the results of a query shall differ from one another. Above 0, the k
                results are chosen among the best of the shortlist, and come in the order of their choice: the best one
                first, then records that are good and far from those before; see `search.diversity`.
            trace: collects what each step did and how long it took; see `SearchTrace`.

        Raises:
            InvalidParameterError: an argument is out of range, or `exclude_self` and the queries have no ids.
            InvalidEncodingsError: widths differ from the index, or features for fused ranking are not L2-normalised.
        """
        params = search_params(k, cutoff, shortlist, ranking, fill, exclude_self, diversity)
        self._check_open()
        self.config.check(queries)
        params.check(len(queries), queries.ids is not None)
        search = diversified(self._search, self._get) if params.diversity else self._search
        if trace is None:
            return search(queries, params, None).reading_uris_with(self.uris)
        with instance_given("trace", trace, SearchTrace).search(len(queries)):
            return search(queries, params, trace).reading_uris_with(self.uris)

    def search_range(
        self,
        queries: Encodings,
        *,
        radius: float,
        by: Measure = "distance",
        cutoff: float | None = DEFAULT_CUTOFF,
    ) -> RangeResult:
        """Find all records within a radius of every query, nearest first; records at the same distance by id.

        Every record of the cells that pruning keeps is compared: the answer is exact, and takes longer than a search.

        Args:
            queries, cutoff: as for `search`; None finds records that are not relevant, too, and prunes nothing.
            radius: the largest distance, which is included.
            by: "distance" for the Euclidean distance of features, "hamming" for the differing bits of codes.

        Raises:
            InvalidParameterError: an argument is out of range, or the result would be larger than `MAX_RESULTS`.
            InvalidEncodingsError: widths differ from the index.
        """
        params = RangeParams(radius=radius, by=by, cutoff=cutoff)
        self._check_open()
        self.config.check(queries)
        params.check(self.config)
        return RangeResult.of(self._search_range(queries, params) if len(queries) else [], self.uris)

    async def asearch(self, queries: Encodings, **settings: Any) -> SearchResult:
        """Search in a thread of its own, so that an event loop goes on meanwhile; see `search`."""
        import asyncio

        return await asyncio.to_thread(self.search, queries, **settings)

    def get(self, ids: Any) -> Records:
        """Return the records with these ids, with all their arrays, in the order of the ids.

        Args:
            ids: (n,) integers.

        Raises:
            UnknownIdError: as for `remove`.
        """
        return Records.of(self._get(self._ids_given(ids)))

    def uris(self, ids: Any) -> list[str | None]:
        """Return the uris of the records with these ids, in the order of the ids; None for a record without a uri.

        Only uris are read, so this costs much less than `get`.

        Args:
            ids: (n,) integers.

        Raises:
            UnknownIdError: as for `remove`.
        """
        return self._uris(self._ids_given(ids))

    def contains(self, ids: Any) -> NDArray[np.bool_]:
        """Return for each of (n,) integer ids whether the index has a record with this id: (n,) bool."""
        return self._contains(self._ids_given(ids, must_exist=False))

    def iterate(self, batch_size: int | None = None, *, after: int = -1) -> Iterator[Records]:
        """Yield all records in batches, ordered by id, as they are now: later changes do not show.

        Args:
            batch_size: records in a batch; the last batch may have fewer. None for 10,000, or fewer that take 128 MiB.
            after: yield only records with larger ids; pass the last id seen to continue an earlier iteration.

        Raises:
            InvalidParameterError: `batch_size` or `after` is no such integer.
        """
        self._check_open()
        size = integer_given("batch_size", self.config.batch_records() if batch_size is None else batch_size, 1)
        after = integer_given("after", after, -1)
        return map(Records.of, self._iterate(size, min(after, int(np.iinfo(np.int64).max))))

    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""

    @abstractmethod
    def next_id(self) -> int:
        """Return the smallest id above all ids in the index, which is free, as are all larger ones."""

    def refresh(self) -> bool:
        """Move to the newest state that any writer has committed, and return whether that state is a new one.

        By default an index always sees the newest state.
        """
        self._check_open()
        return False

    def flush(self) -> None:
        """Finish work that changes have postponed; by default there is none.

        Raises:
            StorageError: the work could not be finished.
        """
        self._check_open()

    def close(self) -> None:
        """Release files and memory. Closing twice is allowed; using a closed index raises `ClosedIndexError`."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse `pickle` and `copy`, which cannot copy open files, locks and mapped memory."""
        raise InvalidParameterError("an index in memory or on a server cannot be pickled or copied")

    def _checked(self, encodings: Encodings) -> Encodings:
        """Check a batch as far as possible without reading records, and return it with the values that are stored."""
        self._check_open()
        self.config.check(encodings)
        if encodings.ids is None:
            raise InvalidEncodingsError("the batch has no ids: records need one unique id each")
        refuse_duplicates(encodings.ids)
        return stored_values(self.config, encodings)

    def _ids_given(self, ids: Any, *, must_exist: bool = True) -> NDArray[np.int64]:
        """Check that the index is open, and read ids as a caller passes them; see `ids_given`."""
        self._check_open()
        return ids_given(ids, must_exist=must_exist)

    def _scored(self, queries: Encodings, params: SearchParams, normalised: bool) -> bool:
        """Return whether Eq. 4 applies; raise `InvalidEncodingsError` if it does not and the search ranks by it."""
        both = normalised and queries.normalised(norm_tolerance(self.config))
        if params.ranking == "fused" and not both:
            owner = "the queries" if normalised else "the index"
            advice = 'so Eq. 4 does not apply: divide every feature by its length, or use ranking="distance"'
            raise InvalidEncodingsError(f"the features of {owner} are not L2-normalised, {advice}")
        return both

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedIndexError

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records in the index."""

    @abstractmethod
    def stats(self) -> IndexStats:
        """Return the size of the index."""

    @abstractmethod
    def _add(self, encodings: Encodings, *, replace: bool) -> None: ...

    @abstractmethod
    def _remove(self, ids: NDArray[np.int64]) -> None: ...

    @abstractmethod
    def _contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]: ...

    @abstractmethod
    def _get(self, ids: NDArray[np.int64]) -> Encodings: ...

    @abstractmethod
    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]: ...

    @abstractmethod
    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]: ...

    @abstractmethod
    def _search_range(self, queries: Encodings, params: RangeParams) -> list[RangeHits]: ...

    @abstractmethod
    def _search(self, queries: Encodings, params: SearchParams, trace: SearchTrace | None) -> SearchResult: ...
