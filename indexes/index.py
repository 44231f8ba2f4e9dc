"""`SemanticIndex`, what every index can do, and `SearchResult`, what a search gives back.

Every check of arguments is made here, so every index raises the same errors for the same mistakes, before anything
has changed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.config import IndexConfig, Ranking, SearchParams, search_params
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import (
    ClosedIndexError,
    DuplicateIdError,
    InvalidEncodingsError,
    InvalidParameterError,
    UnknownIdError,
    shown,
)
from semcut.indexes.scoring.equations import Similarity

_NOTHING = {"ids": -1, "distances": np.inf, "hamming": -1}
"""What stands in a place without a record; of other arrays 0."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchResult:
    """The k best records of nq queries, best first, and what the search did to find them.

    Places without a record (fewer than k are relevant) have id -1, distance inf, relevance 0, score 0, hamming -1.

    Attributes:
        ids: (nq, k) int64.
        distances: (nq, k) float32, Euclidean distance of features.
        relevance: (nq, k) float32, Eq. 1.
        scores: (nq, k) float32, Eq. 4; NaN where features are not L2-normalised and it is not defined.
        hamming: (nq, k) int32, differing bits of codes.
        partitions: (nq,) int64; partitions scanned.
        cells: (nq,) int64; cells scanned.
        codes: (nq,) int64; records in these cells; -1 in Milvus, which does not count them.
        cut_off: (nq,) int64; records that were looked at and dropped by the cutoff, Eq. 2.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    partitions: NDArray[np.int64]
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    cut_off: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def unfilled(queries: int, k: int) -> SearchResult:
        """A result that says nothing yet: whoever asks for it fills every place of it."""
        return SearchResult(
            ids=np.empty((queries, k), np.int64),
            distances=np.empty((queries, k), np.float32),
            relevance=np.empty((queries, k), np.float32),
            scores=np.empty((queries, k), np.float32),
            hamming=np.empty((queries, k), np.int32),
            partitions=np.empty(queries, np.int64),
            cells=np.empty(queries, np.int64),
            codes=np.empty(queries, np.int64),
            cut_off=np.empty(queries, np.int64),
        )

    @staticmethod
    def empty(queries: int, k: int) -> SearchResult:
        """A result without a record."""
        result = SearchResult.unfilled(queries, k)
        for field in fields(SearchResult):
            getattr(result, field.name).fill(_NOTHING.get(field.name, 0))
        return result

    def in_order(self, rows: NDArray[np.int64]) -> SearchResult:
        """The results of the queries at these positions."""
        return SearchResult(**{field.name: getattr(self, field.name)[rows] for field in fields(SearchResult)})

    def put(self, rows: NDArray[np.int64], part: SearchResult) -> None:
        """Replace the results of the queries at these positions."""
        for field in fields(SearchResult):
            getattr(self, field.name)[rows] = getattr(part, field.name)

    @staticmethod
    def concatenate(parts: list[SearchResult]) -> SearchResult:
        """The results of several batches of queries with the same k, as one."""
        names = [field.name for field in fields(SearchResult)]
        return SearchResult(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, kw_only=True)
class IndexStats:
    """The size of an index.

    Attributes:
        records: records held.
        removed: records that were removed and take space until the index is compacted.
        partitions: records per dominant class, one number per class.
        cells: cells of all partitions that hold a record.
        normalised: whether every feature is L2-normalised, so that the fused ranking can be used.
        column_bytes: bytes of every column, removed records included.
    """

    records: int
    removed: int
    partitions: list[int]
    cells: int
    normalised: bool
    column_bytes: dict[str, int]


class SemanticIndex(ABC):
    """An index of encodings: `create` or `open` one, `add` records, `search` it.

    Any number of threads may use an index at once: one changes it at a time, the others wait; every search, `get` and
    `iterate` sees the index as it was at one moment. An index is a context manager that closes itself.
    """

    def __init__(self, config: IndexConfig) -> None:
        self.config = config
        self._similarity = Similarity(config)
        self._closed = False

    @property
    def similarity(self) -> Similarity:
        """The S of Eq. 1, which turns probabilities of queries into weights: `similarity.weights(probabilities)`."""
        return self._similarity

    @classmethod
    @abstractmethod
    def create(cls, path: str | os.PathLike[str] | None, config: IndexConfig) -> Self:
        """Make an empty index, stored at `path` (a new or empty directory) or in memory where it is None.

        Raises:
            IndexExistsError: there is something at the path.
        """

    def add(self, encodings: Encodings) -> None:
        """Add records, all or none of them. A batch without records is allowed and does nothing.

        Args:
            encodings: with ids, of this index's classes, bits and feature length.

        Raises:
            InvalidEncodingsError: no ids, or widths that are not the index's.
            DuplicateIdError: an id occurs twice in the batch or is in the index.
            LockedError: the index has another writer.
            StorageError: the batch could not be stored. Nothing has changed then, as with every error.
        """
        if len(self._records(encodings)):
            self._add(encodings, replace=False)

    def upsert(self, encodings: Encodings) -> None:
        """Add records, in place of those that have the same ids: all or none of them, in one change.

        Args:
            encodings: with ids, of this index's classes, bits and feature length.

        Raises:
            InvalidEncodingsError: no ids, or widths that are not the index's.
            DuplicateIdError: an id occurs twice in the batch.
            LockedError, StorageError: as for `add`.
        """
        if len(self._records(encodings)):
            self._add(encodings, replace=True)

    def remove(self, ids: Any) -> None:
        """Remove the records with these ids, all or none of them.

        Args:
            ids: (n,) integers; one that occurs twice counts once.

        Raises:
            UnknownIdError: naming ids that are not in the index.
            LockedError, StorageError: as for `add`.
        """
        wanted = np.unique(self._wanted(ids))
        if len(wanted):
            self._remove(wanted)

    def search(
        self,
        queries: Encodings,
        *,
        k: int = 10,
        cutoff: float = 0.2,
        shortlist: int | None = 100,
        ranking: Ranking = "distance",
    ) -> SearchResult:
        """The k best records for every query.

        Args:
            queries: of this index's classes, bits and feature length; their ids and uris are ignored.
            k: how many records to give, at least 1.
            cutoff: t of Eq. 2, in [0, 1): only records with relevance strictly above it are considered.
            shortlist: rank the records with the smallest Hamming distance, this many of the relevant ones; which of
                those at the last distance is settled by `indexes.ties`, so the answer depends on query and records
                alone. None ranks every relevant record, exactly.
            ranking: "distance" orders by Euclidean distance of features, ascending; "fused" by the score of Eq. 4,
                descending. Ties are ordered by id.

        Raises:
            InvalidParameterError: an argument is out of range.
            InvalidEncodingsError: widths are not the index's, or fused ranking of features not L2-normalised.
        """
        params = search_params(k, cutoff, shortlist, ranking)
        self._check_open()
        self.config.check(queries)
        params.check(len(queries))
        return self._search(queries, params)

    def get(self, ids: Any) -> Encodings:
        """The records with these ids, whole and in this order.

        Args:
            ids: (n,) integers.

        Raises:
            UnknownIdError: naming ids that are not in the index.
        """
        return self._get(self._wanted(ids))

    def uris(self, ids: Any) -> list[str | None]:
        """The uris of the records with these ids, in this order, None for a record without one; as `get`, but cheap.

        Args:
            ids: (n,) integers.

        Raises:
            UnknownIdError: naming ids that are not in the index.
        """
        return self._uris(self._wanted(ids))

    def contains(self, ids: Any) -> NDArray[np.bool_]:
        """Whether there are records with these ids, in this order.

        Args:
            ids: (n,) integers.

        Returns:
            (n,) bool.
        """
        return self._contains(self._wanted(ids, known=False))

    def iterate(self, batch_size: int = 10_000, *, after: int = -1) -> Iterator[Encodings]:
        """All records in order of their ids, in batches, as they are now: later changes do not show.

        Args:
            batch_size: records in a batch; the last has what is left.
            after: only records with larger ids: where to go on.

        Raises:
            InvalidParameterError: a batch size below 1, or an `after` that is no integer.
        """
        self._check_open()
        for name, value, least in (("batch_size", batch_size, 1), ("after", after, -1)):
            if not isinstance(value, int | np.integer) or value < least:
                raise InvalidParameterError(f"{name} = {shown(value)}, expected an integer of at least {least}")
        return self._iterate(int(batch_size), min(int(after), int(np.iinfo(np.int64).max)))

    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in order of arrival."""

    @abstractmethod
    def next_id(self) -> int:
        """An id that is free, as are all above it: one more than the largest in the index."""

    def close(self) -> None:
        """Let go of files and memory. Closing twice is allowed; using a closed index is a `ClosedIndexError`."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _records(self, encodings: Encodings) -> Encodings:
        """The batch, checked as far as it can be without looking at the index."""
        self._check_open()
        self.config.check(encodings)
        if encodings.ids is None:
            raise InvalidEncodingsError("the batch has no ids: records need one unique id each")
        in_order = np.sort(encodings.ids)
        twice = in_order[1:][in_order[1:] == in_order[:-1]]
        if len(twice):
            raise DuplicateIdError(f"{_some(np.unique(twice))} more than once in the batch: ids must be unique")
        return encodings

    def _wanted(self, ids: Any, *, known: bool = True) -> NDArray[np.int64]:
        """(n,) ids as given by a caller; for one that cannot be an id an error if they must be known, -1 otherwise."""
        self._check_open()
        try:
            wanted = np.atleast_1d(np.asarray(ids))
        except ValueError:
            raise InvalidParameterError("ids cannot be read as an array, expected (n,) integers") from None
        if wanted.ndim != 1 or (wanted.dtype.kind not in "iu" and wanted.size):
            raise InvalidParameterError(f"ids are {wanted.dtype} of shape {wanted.shape}, expected (n,) integers")
        huge = wanted[wanted > np.iinfo(np.int64).max] if wanted.dtype.kind == "u" else wanted[:0]
        if len(huge) and known:
            raise UnknownIdError(f"{_some(huge)} not in the index")
        taken = wanted.astype(np.int64) if wanted.size else np.empty(0, np.int64)
        if len(huge):
            taken[wanted > np.iinfo(np.int64).max] = -1
        return taken

    def _scored(self, queries: Encodings, params: SearchParams, normalised: bool) -> bool:
        """Whether Eq. 4 applies; an error where the search depends on it."""
        both = normalised and queries.normalised()
        if params.ranking == "fused" and not both:
            owner = "the queries" if normalised else "the index"
            raise InvalidEncodingsError(
                f"the features of {owner} are not L2-normalised, so Eq. 4 does not apply: divide every feature by its "
                'length, or use ranking="distance"'
            )
        return both

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedIndexError("the index was closed: open it again")

    @abstractmethod
    def __len__(self) -> int:
        """Records in the index."""

    @abstractmethod
    def stats(self) -> IndexStats:
        """The size of the index."""

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
    def _search(self, queries: Encodings, params: SearchParams) -> SearchResult: ...


def refuse_known(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Raise `DuplicateIdError` if one of the ids has a row."""
    known = ids[rows >= 0]
    if len(known):
        raise DuplicateIdError(f"{_some(known)} in the index already: ids must be unique")


def refuse_unknown(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
    """Raise `UnknownIdError` if one of the ids has no row, -1."""
    unknown = ids[rows < 0]
    if len(unknown):
        raise UnknownIdError(f"{_some(unknown)} not in the index")


def _some(ids: NDArray[np.integer[Any]]) -> str:
    shown = ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")
    return f"id {shown} is" if len(ids) == 1 else f"{len(ids)} ids ({shown}) are"
