"""`SemanticIndex`: the whole contract of an index, the same for every backend.

Arguments are checked here alone, so every index raises the same error for the same mistake before anything changes.
Backends implement the methods of `backend`, which do not check their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.argument_checks import instance_given, integer_given
from semcut.indexes.attributes.expressions import Expression
from semcut.indexes.attributes.selections import Among, selection_given
from semcut.indexes.batch_checks import checked_batch
from semcut.indexes.cell_reports import CellReports
from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings, Records
from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.keys import ids_or_keys
from semcut.indexes.range_result import Measure, RangeParams, RangeResult
from semcut.indexes.result import SearchResult
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.diversity import diversified
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST
from semcut.indexes.search_params import Ranking, search_params


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
        """The S of Eq. 1, which turns probabilities into weights: `similarity.weights(probabilities)`."""
        return self._similarity

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
        self._check_open()
        if len(batch := checked_batch(self.config, encodings, self._keys_to_compare, replace=False)):
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
        self._check_open()
        if len(batch := checked_batch(self.config, encodings, self._keys_to_compare, replace=True)):
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
        self._check_open()
        wanted = np.unique(ids_or_keys(self.config.string_ids, ids, self._keys_to_remove))
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
        where: Expression | str | None = None,
        among: Among | Any = None,
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
            where: searches as if the index had only the records that match: `attribute("price") < 20`, or text such as
                'price < 20', see `attributes.where_text`.
            among: searches as if the index had only these records: ids, an `Among`, which is prepared once for many
                searches, or (records,) bool in ascending order of ids.
            exclude_self: whether the record with the id of a query is never in its answer, which is then that of an
                index without this record. The queries need ids.
            diversity: from 0 to below 1: how much the results of a query shall differ from one another. Above 0, the k
                results are chosen among the best of the shortlist, and come in the order of their choice: the best one
                first, then records that are good and far from those before; see `search.diversity`.
            trace: collects what each step did and how long it took; see `SearchTrace`.

        Raises:
            InvalidParameterError: an argument is out of range, `where` is no filter for this index, or queries for
                `exclude_self` have no ids.
            InvalidEncodingsError: widths differ from the index, or features for fused ranking are not L2-normalised.
        """
        params = search_params(k, cutoff, shortlist, ranking, fill, exclude_self, diversity)
        self._check_open()
        self.config.check(queries)
        params.check(len(queries), queries.ids is not None)
        selection = selection_given(where, among, self.config, self.ids)
        keys = self.keys if self.config.string_ids else None
        search = diversified(self._search, self._get, self.__len__) if params.diversity else self._search
        if trace is None:
            return search(queries, params, selection, None).reading_with(self.uris, keys)
        with instance_given("trace", trace, SearchTrace).search(len(queries)):
            return search(queries, params, selection, trace).reading_with(self.uris, keys)

    def search_range(
        self,
        queries: Encodings,
        *,
        radius: float,
        by: Measure = "distance",
        cutoff: float | None = DEFAULT_CUTOFF,
        where: Expression | str | None = None,
        among: Among | Any = None,
    ) -> RangeResult:
        """Find all records within a radius of every query, nearest first; records at the same distance by id.

        Every record of the cells that pruning keeps is compared: the answer is exact, and takes longer than a search.

        Args:
            queries, cutoff: as for `search`; None finds records that are not relevant, too, and prunes nothing.
            radius: the largest distance, which is included.
            by: "distance" for the Euclidean distance of features, "hamming" for the differing bits of codes.
            where, among: as for `search`.

        Raises:
            InvalidParameterError: an argument is out of range, `where` is no filter for this index, or the result would
                be larger than `MAX_RESULTS`.
            InvalidEncodingsError: widths differ from the index.
        """
        params = RangeParams(radius=radius, by=by, cutoff=cutoff)
        self._check_open()
        self.config.check(queries)
        params.check(self.config)
        selection = selection_given(where, among, self.config, self.ids)
        keys = self.keys if self.config.string_ids else None
        found = self._search_range(queries, params, selection) if len(queries) else []
        return RangeResult.of(found, self.uris, keys)

    async def asearch(self, queries: Encodings, **settings: Any) -> SearchResult:
        """Search in a thread of its own, so that an event loop goes on meanwhile; see `search`."""
        import asyncio

        return await asyncio.to_thread(self.search, queries, **settings)

    def matching(self, where: Expression | str | None = None, *, among: Among | Any = None) -> NDArray[np.int64]:
        """Return the ids of the records that match, ascending: (n,) int64. Arguments and errors as for `search`."""
        self._check_open()
        selection = selection_given(where, among, self.config, self.ids)
        return self.ids() if selection is None else self._matching(selection)

    def get(self, ids: Any) -> Records:
        """Return the records with these (n,) integer ids, with all their arrays, in the order of the ids.

        Raises:
            UnknownIdError: as for `remove`.
        """
        return Records.of(self._get(self._ids_given(ids)))

    def uris(self, ids: Any) -> list[str | None]:
        """Return the uris of records in the order of their (n,) ids; None for a record without a uri.

        Only uris are read, so this costs much less than `get`.

        Raises:
            UnknownIdError: as for `remove`.
        """
        return self._uris(self._ids_given(ids))

    def keys(self, ids: Any) -> list[str]:
        """Return the keys of records, which are their ids as strings, in the order of their (n,) ids.

        Raises:
            InvalidParameterError: the index has no keys.
            UnknownIdError: as for `remove`.
        """
        if not self.config.string_ids:
            raise InvalidParameterError("the index has no keys: its ids are integers")
        wanted = self._ids_given(ids)
        found = self._keys(wanted)
        refuse_unknown(wanted, np.array([-1 if key is None else 0 for key in found]))
        return [key for key in found if key is not None]

    def attributes(self, ids: Any) -> dict[str, list[Any]]:
        """Return the attributes of records by name, in the order of their (n,) ids; only they are read, as for `uris`.

        Raises:
            UnknownIdError: as for `remove`.
        """
        return self._attributes(self._ids_given(ids))

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

    def refresh(self) -> bool:
        """Move to the newest state that a writer has committed; return whether it is new. By default it is there."""
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

    def _ids_given(self, ids: Any, *, must_exist: bool = True) -> NDArray[np.int64]:
        """Check that the index is open, and read ids or keys as a caller passes them; see `ids_or_keys`."""
        self._check_open()
        return ids_or_keys(self.config.string_ids, ids, self._keys, must_exist=must_exist)
