"""`Backend`: what a kind of index implements. `SemanticIndex` checks arguments, and then calls these methods.

Ids are (n,) int64 and batches have the values that are stored. A method that takes ids raises `UnknownIdError` for an
id that is not in the index, except `_contains` and `_keys`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.description import IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.range_result import RangeHits, RangeParams
from semcut.indexes.result import SearchResult
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams


class Backend(ABC):
    """The methods of one kind of index."""

    @property
    @abstractmethod
    def version(self) -> int | str:
        """Identifies the state that searches see. It differs after every change; compare versions for equality only."""

    @abstractmethod
    def next_id(self) -> int:
        """Return the smallest id above all ids in the index, which is free, as are all larger ones."""

    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""

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
    def _keys(self, ids: NDArray[np.int64]) -> Sequence[str | None]: ...

    def _keys_to_compare(self, ids: NDArray[np.int64]) -> Sequence[str | None]:
        """Return `_keys` before records are added; or None for each, if `_add` compares keys itself."""
        return self._keys(ids)

    def _keys_to_remove(self, ids: NDArray[np.int64]) -> Sequence[str | None]:
        """Return `_keys`, also those that a failed removal has removed, so that it can be repeated."""
        return self._keys(ids)

    @abstractmethod
    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]: ...

    def _attributes(self, ids: NDArray[np.int64]) -> dict[str, list[Any]]:
        return dict(self._get(ids).attributes or {})

    @abstractmethod
    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]: ...

    @abstractmethod
    def _matching(self, selection: Selection) -> NDArray[np.int64]: ...

    @abstractmethod
    def _search(
        self, queries: Encodings, params: SearchParams, selection: Selection | None, trace: SearchTrace | None
    ) -> SearchResult: ...

    @abstractmethod
    def _search_range(
        self, queries: Encodings, params: RangeParams, selection: Selection | None
    ) -> list[RangeHits]: ...

    @abstractmethod
    def _cells(self) -> Cells: ...

    @abstractmethod
    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]: ...
