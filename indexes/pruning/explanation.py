"""What pruning does for a query, partition by partition: for people who want to see why something was not scanned.

A search does not need this. It decides cell by cell, with the same bounds: see `partitions`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import SearchParams
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidParameterError, shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.pruning.cells import Cells

MAX_MEMBERS = 10_000
"""Records of a partition that are named at once."""

_MOST = 1 << 22  # bounds of cells at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """Partitions as a search of nq queries sees them.

    Attributes:
        cells: (C,) int64; cells of each partition that hold records.
        bounds: (nq, C) float64; no record of the partition is more relevant than this. 0 where there is no record.
        kept_cells: (nq, C) int64; cells that are left to scan: those whose own bound is above the cutoff. A search may
            scan a few more, where working out a bound would take longer.
        kept_codes: (nq, C) int64; records in them; -1 in Milvus, which does not count them.
    """

    cells: NDArray[np.int64]
    bounds: NDArray[np.float64]
    kept_cells: NDArray[np.int64]
    kept_codes: NDArray[np.int64]


class ExplainedIndex(SemanticIndex):
    """An index that prunes by cells, and can say what that does and what is in a partition."""

    _counted = True  # whether cells know how many records they hold

    def explain(self, queries: Encodings, *, cutoff: float = 0.2) -> Explanation:
        """What pruning leaves of each partition for every query.

        Args:
            queries, cutoff: as for `search`.

        Raises:
            InvalidParameterError, InvalidEncodingsError: as for `search`; these are too many queries to explain.
        """
        self._check_open()
        params = SearchParams(cutoff=cutoff)
        self.config.check(queries)
        weights = self._similarity.weights(queries.probabilities)
        return _explanation(self._cells(), weights, params.cutoff, self._counted)

    def members(self, partition: int, limit: int = 100, *, ambiguous: bool = False) -> NDArray[np.int64]:
        """Ids of some records of a partition: (n,) int64, at most `limit`.

        Args:
            partition: the dominant class.
            limit: how many, at most `MAX_MEMBERS`.
            ambiguous: from the cells with the least sure records on, instead of any.

        Raises:
            InvalidParameterError: an argument is out of range.
        """
        self._check_open()
        for name, value, least, most in (
            ("partition", partition, 0, self.config.classes - 1),
            ("limit", limit, 1, MAX_MEMBERS),
        ):
            if not isinstance(value, int | np.integer) or not least <= value <= most:
                raise InvalidParameterError(f"{name} = {shown(value)}, expected an integer from {least} to {most}")
        return self._members(int(partition), int(limit), ambiguous)

    def cells_per_partition(self) -> NDArray[np.int64]:
        """(C,) int64: cells of each partition that hold records."""
        self._check_open()
        return _per_partition(self._cells())

    @abstractmethod
    def _cells(self) -> Cells: ...

    @abstractmethod
    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]: ...


def _per_partition(cells: Cells) -> NDArray[np.int64]:
    return np.bincount(cells.dominant()[cells.sizes > 0], minlength=cells.config.classes)


def _explanation(cells: Cells, weights: NDArray[np.float64], cutoff: float, counted: bool) -> Explanation:
    queries, classes = weights.shape
    if queries * max(classes, len(cells)) > _MOST:
        raise InvalidParameterError(
            f"{queries} queries are too many to explain at once: at most {_MOST // max(classes, len(cells))}"
        )
    dominant, present = cells.dominant(), cells.sizes > 0
    bounds = np.zeros((queries, classes))
    of_cells = np.where(present, cells.bounds(weights), 0)
    np.maximum.at(bounds.T, dominant, of_cells.T)
    query, cell = np.nonzero(of_cells > cutoff)
    kept_cells, kept_codes = np.zeros((2, queries, classes), np.int64)
    np.add.at(kept_cells, (query, dominant[cell]), 1)
    np.add.at(kept_codes, (query, dominant[cell]), cells.sizes[cell])
    return Explanation(
        cells=_per_partition(cells),
        bounds=bounds,
        kept_cells=kept_cells,
        kept_codes=kept_codes if counted else np.full_like(kept_codes, -1),
    )
