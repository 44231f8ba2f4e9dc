"""`SearchResult`: the records that a search found for a batch of queries, as arrays, as lists or as a table.

Reading the arrays is the fastest way. They have empty slots where fewer than k records are relevant; `result[0]` and
iteration leave empty slots out. A search does not read uris: they are read from the index each time they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidParameterError, MissingDependencyError, shown
from semcut.indexes.keys import KeyReader

UriReader = Callable[[NDArray[np.int64]], "list[str | None]"]
"""Reads the uris of (n,) ids that are in the index, in this order."""

_EMPTY = {"ids": -1, "distances": np.inf, "hamming": -1}
"""Values of empty result slots; other arrays have 0."""

_PER_RECORD = ("ids", "distances", "relevance", "scores", "hamming", "filled")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One record that a search found for one query.

    Attributes:
        id: the id of the record.
        distance: Euclidean distance of features.
        relevance: R of Eq. 1.
        score: zeta of Eq. 4; NaN where features are not L2-normalised, since Eq. 4 does not apply.
        hamming: number of bits in which the codes differ.
        filled: whether the record is not relevant, and only fills a place that no relevant record takes.
        uri: the address of the image, None if the record has no uri.
        key: the id as a string, None if the index has integer ids alone.
    """

    id: int
    distance: float
    relevance: float
    score: float
    hamming: int
    filled: bool
    uri: str | None
    key: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchResult:
    """The k best records of nq queries, best first, and what the search did to find them.

    Empty slots have id -1, distance inf, relevance 0, score 0, hamming -1. There are some if the index has fewer than k
    records, or if places are not filled and fewer than k records are relevant.

    `len(result)` is nq. `result[q]` is a list of the `SearchHit`s of query q, best first, without empty slots, and
    iterating over a result gives these lists.

    Attributes:
        ids: (nq, k) int64.
        distances: (nq, k) float32, Euclidean distance of features.
        relevance: (nq, k) float32, Eq. 1.
        scores: (nq, k) float32, Eq. 4; NaN where features are not L2-normalised, since Eq. 4 does not apply.
        hamming: (nq, k) int32, differing bits of codes.
        filled: (nq, k) bool, which records are not relevant and fill the places that relevant records leave. They come
            after all relevant records.
        partitions: (nq,) int64; partitions scanned for relevant records. Here, in `cells` and in `codes`, scans that
            fill places do not count; of a search without a cutoff, its widest scan counts.
        cells: (nq,) int64; cells scanned.
        codes: (nq,) int64; records in these cells. -1 where the index does not count them, see
            `Capabilities.counts_codes`.
        cut_off: (nq,) int64; records that were compared with the cutoff and dropped by it, Eq. 2.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    filled: NDArray[np.bool_]
    partitions: NDArray[np.int64]
    cells: NDArray[np.int64]
    codes: NDArray[np.int64]
    cut_off: NDArray[np.int64]
    _read_uris: UriReader | None = field(default=None, repr=False)
    _read_keys: KeyReader | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, query: int) -> list[SearchHit]:
        """Return the records found for one query, best first.

        Raises:
            IndexError: there is no such query.
            InvalidParameterError: `query` is not an integer.
            UnknownIdError: a record that was found has been removed from the index after the search.
            ClosedIndexError: the index was closed after the search, so its uris cannot be read any more.
        """
        if not isinstance(query, int | np.integer) or isinstance(query, bool):
            raise InvalidParameterError(f"query = {shown(query)}, expected the number of a query")
        if not -len(self) <= query < len(self):
            raise IndexError(f"there is no query {query} in a result of {len(self)} queries")
        found = int(np.count_nonzero(self.ids[query] >= 0))
        columns = (getattr(self, name)[query, :found].tolist() for name in _PER_RECORD)
        texts = self._uris(self.ids[query, :found]), self._keys(self.ids[query, :found])
        return [SearchHit(*values) for values in zip(*columns, *texts, strict=True)]

    def __iter__(self) -> Iterator[list[SearchHit]]:
        return (self[query] for query in range(len(self)))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary for each record found: `query`, `rank` (both from 0) and the attributes of `SearchHit`.

        Raises:
            UnknownIdError, ClosedIndexError: as for `result[q]`.
        """
        table = self._table()
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def to_frame(self, library: Literal["pandas", "polars"] | None = None) -> Any:
        """Return the records found as a data frame with the columns of `to_dicts`.

        Args:
            library: the library of the data frame; None for pandas if it is installed, else polars.

        Raises:
            InvalidParameterError: the library is neither pandas nor polars.
            MissingDependencyError: the library is not installed.
            UnknownIdError, ClosedIndexError: as for `result[q]`.
        """
        known = ("pandas", "polars")
        if library is not None and (not isinstance(library, str) or library not in known):
            raise InvalidParameterError(f"library = {shown(library)}, expected pandas, polars or None")
        present = [name for name in known if library in (None, name) and find_spec(name) is not None]
        if not present:
            wanted = library or "neither pandas nor polars"
            raise MissingDependencyError(
                f"{wanted} is{' not' if library else ''} installed, which a data frame needs: "
                f"pip install {library or 'pandas'}, or use to_dicts()"
            )
        table = self._table()
        if present[0] == "pandas":
            import pandas

            return pandas.DataFrame(table)
        import polars

        return polars.DataFrame(table, schema_overrides={"uri": polars.String})

    def _table(self) -> dict[str, list[Any]]:
        """Return the columns of all records found, query after query."""
        query, rank = np.nonzero(self.ids >= 0)
        names = {"ids": "id", "distances": "distance", "scores": "score"}
        return {
            "query": query.tolist(),
            "rank": rank.tolist(),
            **{names.get(name, name): getattr(self, name)[query, rank].tolist() for name in _PER_RECORD},
            "uri": self._uris(self.ids[query, rank]),
            **({} if self._read_keys is None else {"key": self._keys(self.ids[query, rank])}),
        }

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        return [None] * len(ids) if self._read_uris is None or not len(ids) else self._read_uris(ids)

    def _keys(self, ids: NDArray[np.int64]) -> Sequence[str | None]:
        return [None] * len(ids) if self._read_keys is None or not len(ids) else self._read_keys(ids)

    @property
    def keys(self) -> NDArray[np.object_]:
        """The ids as strings, (nq, k) objects, None in empty slots; read from the index when this is used.

        Raises:
            InvalidParameterError: the index has integer ids alone.
            UnknownIdError, ClosedIndexError: as for `result[q]`.
        """
        if self._read_keys is None:
            raise InvalidParameterError("the index has no keys: its ids are integers, see `ids`")
        found = np.full(self.ids.shape, None, object)
        present = self.ids >= 0
        found[present] = self._keys(self.ids[present])
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse `pickle` and `copy` of a result that reads its uris from an open index."""
        if self._read_uris is not None:
            raise InvalidParameterError(
                "a result reads uris from its index, so it cannot be pickled or copied: use to_dicts(), or its arrays"
            )
        return super().__reduce_ex__(protocol)

    # the methods below are for searches, which assemble results

    def reading_with(self, uris: UriReader, keys: KeyReader | None) -> SearchResult:
        """Set the functions that read uris and keys of records when they are used, and return this result."""
        object.__setattr__(self, "_read_uris", uris)
        object.__setattr__(self, "_read_keys", keys)
        return self

    @staticmethod
    def allocated(queries: int, k: int) -> SearchResult:
        """Return a result whose arrays are not initialised, but for `filled`, which is False: the caller sets them."""
        result = object.__new__(SearchResult)
        result.__dict__.update(  # a third of the time of the initialiser of a frozen dataclass
            ids=np.empty((queries, k), np.int64),
            distances=np.empty((queries, k), np.float32),
            relevance=np.empty((queries, k), np.float32),
            scores=np.empty((queries, k), np.float32),
            hamming=np.empty((queries, k), np.int32),
            filled=np.zeros((queries, k), np.bool_),
            partitions=np.empty(queries, np.int64),
            cells=np.empty(queries, np.int64),
            codes=np.empty(queries, np.int64),
            cut_off=np.empty(queries, np.int64),
            _read_uris=None,
            _read_keys=None,
        )
        return result

    @staticmethod
    def empty(queries: int, k: int) -> SearchResult:
        """Return a result without records: every slot is empty."""
        result = SearchResult.allocated(queries, k)
        for name in _ARRAYS:
            getattr(result, name).fill(_EMPTY.get(name, 0))
        return result

    def in_order(self, rows: NDArray[np.int64]) -> SearchResult:
        """Return the results of the queries at these positions, in this order."""
        return SearchResult(**{name: getattr(self, name)[rows] for name in _ARRAYS})

    def put(self, rows: NDArray[np.int64], part: SearchResult) -> None:
        """Replace the results of the queries at these positions."""
        for name in _ARRAYS:
            getattr(self, name)[rows] = getattr(part, name)

    def at_places(self, places: NDArray[np.int64]) -> SearchResult:
        """Return each query's results at these (nq, m) places, in this order; what the search did stays."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return SearchResult(**arrays | {name: np.take_along_axis(arrays[name], places, axis=1) for name in _PER_RECORD})

    def first(self, k: int) -> SearchResult:
        """Return the first k results of each query."""
        return self.at_places(np.broadcast_to(np.arange(k), (len(self), k)))

    def filled_up(self, more: SearchResult) -> SearchResult:
        """Return this result with its empty slots filled with the records of another one, marked as `filled`.

        Args:
            more: the same queries and k; records that are in this result already are passed over.
        """
        ids = np.concatenate([self.ids, more.ids], axis=1)
        start = np.arange(len(ids))[:, None] * ids.shape[1]  # of each row in a flat array: faster than take_along_axis
        order = np.argsort(ids, axis=1, kind="stable") + start  # of two equal ids, the one in this result comes first
        by_id = ids.take(order)
        left_out = ids < 0
        left_out.ravel()[order[:, 1:]] |= by_id[:, 1:] == by_id[:, :-1]
        places = np.argsort(left_out, axis=1, kind="stable")[:, : self.ids.shape[1]]
        empty = left_out.take(places + start)
        joined = SearchResult.allocated(*self.ids.shape)
        for name in _PER_RECORD:
            values = np.concatenate([getattr(self, name), getattr(more, name)], axis=1).take(places + start)
            values[empty] = _EMPTY.get(name, 0)
            getattr(joined, name)[:] = values
        joined.filled[(places >= self.ids.shape[1]) & ~empty] = True
        for name in ("partitions", "cells", "codes", "cut_off"):
            getattr(joined, name)[:] = getattr(self, name)
        return joined

    @staticmethod
    def concatenate(parts: list[SearchResult]) -> SearchResult:
        """Join the results of several batches of queries with the same k into one."""
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        return SearchResult(**arrays)


_ARRAYS = tuple(item.name for item in fields(SearchResult) if not item.name.startswith("_"))
