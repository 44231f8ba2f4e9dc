"""`RangeResult`: all records within a radius of each query of a batch, as arrays or as lists; and its parameters.

Queries have different numbers of records, so the arrays hold the records of one query after those of the other, and
`offsets` says where those of each query begin. As of a `SearchResult`, uris are read each time they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from semcut.indexes.config import IndexConfig, Settings
from semcut.indexes.errors import InvalidParameterError, shown
from semcut.indexes.keys import KeyReader
from semcut.indexes.result import SearchHit, UriReader
from semcut.indexes.search_defaults import DEFAULT_CUTOFF
from semcut.indexes.search_params import MAX_RESULTS

Measure = Literal["distance", "hamming"]


class RangeParams(Settings):
    """The parameters of `SemanticIndex.search_range`, which says what they mean.

    Raises:
        InvalidParameterError: a value is out of range; the message names the field, the value and the range.
    """

    radius: float = Field(ge=0, le=1e30)
    by: Measure = "distance"
    cutoff: float | None = Field(default=DEFAULT_CUTOFF, ge=0, lt=1)

    def check(self, config: IndexConfig) -> None:
        """Raise `InvalidParameterError` if the radius is no Hamming distance of codes of this index, but should be."""
        if self.by == "hamming" and not (self.radius <= config.bits and self.radius == int(self.radius)):
            raise InvalidParameterError(
                f"radius = {shown(self.radius)}, expected a whole number of bits from 0 to {config.bits}, the length "
                'of a code; for distances of features pass by="distance"'
            )

    def holds(self, distances: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which distances are at most the radius, both in float32."""
        return distances <= np.float32(self.radius)


class RangeHits(NamedTuple):
    """The records within the radius of one query, in order: (n,) arrays as in `RangeResult`."""

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]

    @staticmethod
    def none() -> RangeHits:
        """Return the answer of a query without records."""
        floats = np.empty(0, np.float32)
        return RangeHits(np.empty(0, np.int64), floats, floats, floats, np.empty(0, np.int32))

    @staticmethod
    def joined(parts: Sequence[RangeHits]) -> RangeHits:
        """Join answers, one after the other."""
        return RangeHits._make(map(np.concatenate, zip(RangeHits.none(), *parts, strict=True)))

    def ordered(self, by: Measure) -> RangeHits:
        """Return the records sorted by the measure of the radius, ascending, then by id."""
        measured: NDArray[Any] = self.hamming if by == "hamming" else self.distances
        order = np.lexsort((self.ids, measured))
        return RangeHits._make(array[order] for array in self)


@dataclass(frozen=True, eq=False, kw_only=True)
class RangeResult:
    """All records within the radius of each of nq queries.

    `len(result)` is nq. `result[q]` is a list of the `SearchHit`s of query q in order of the measure of the radius,
    then of ids, and iterating over a result gives these lists. The arrays of query q are at
    `result.offsets[q] : result.offsets[q + 1]`.

    Attributes:
        offsets: (nq + 1,) int64, where the records of each query begin.
        ids: (n,) int64, n the number of records of all queries.
        distances: (n,) float32, Euclidean distance of features.
        relevance: (n,) float32, Eq. 1.
        scores: (n,) float32, Eq. 4; NaN where features are not L2-normalised, since Eq. 4 does not apply.
        hamming: (n,) int32, differing bits of codes.
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    hamming: NDArray[np.int32]
    _read_uris: UriReader | None = field(default=None, repr=False)
    _read_keys: KeyReader | None = field(default=None, repr=False)

    @staticmethod
    def of(hits: Sequence[RangeHits], uris: UriReader, keys: KeyReader | None) -> RangeResult:
        """Join the answers of several queries.

        Args:
            hits: the answer of each query.
            uris: reads the uris of (n,) ids.
            keys: reads their keys; None for an index without keys.
        """
        counts = [len(one.ids) for one in hits]
        refuse_many(sum(counts))
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(one, name) for one in (RangeHits.none(), *hits)])
            for name in RangeHits._fields
        }
        offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return RangeResult(offsets=offsets, **arrays, _read_uris=uris, _read_keys=keys)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, query: int) -> list[SearchHit]:
        """Return the records found for one query.

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
        query = int(query) % len(self)
        here = slice(self.offsets[query], self.offsets[query + 1])
        ids = self.ids[here]
        uris = [None] * len(ids) if self._read_uris is None or not len(ids) else self._read_uris(ids)
        keys = [None] * len(ids) if self._read_keys is None or not len(ids) else self._read_keys(ids)
        columns = (getattr(self, name)[here].tolist() for name in RangeHits._fields)
        return [SearchHit(*values) for values in zip(*columns, [False] * len(ids), uris, keys, strict=True)]

    def __iter__(self) -> Iterator[list[SearchHit]]:
        return (self[query] for query in range(len(self)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse `pickle` and `copy` of a result that reads its uris from an open index."""
        raise InvalidParameterError(
            "a result reads uris from its index, so it cannot be pickled or copied: use its arrays"
        )


def refuse_many(records: int) -> None:
    """Raise `InvalidParameterError` if a result has more than `MAX_RESULTS` records."""
    if records > MAX_RESULTS:
        raise InvalidParameterError(
            f"at least {records} records are within the radius of these queries, at most {MAX_RESULTS} are allowed in "
            "a result: lower the radius, raise the cutoff, or search in smaller batches"
        )
