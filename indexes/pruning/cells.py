"""Cells of an index, and exact pruning: which cells can have a record relevant to a query.

`cell_table` defines which cell a record belongs to. A cell is skipped only if a bound proves that it has no relevant
record, so pruning never changes a result.

**The upper bound.** A cell L keeps its envelope M_L(m) = max p(m) over its records. For a query with weights s,

    R(q, b) = s . p_b <= s . M_L =: U_L(q)        for every record b of L, since s >= 0

so a cell with U_L(q) <= t has no relevant record and is skipped. If there are many cells, a similar bound that uses
only the large s_m finds the remaining cells fast (`class_lists`).

**Masses.** The mass of a record is the sum of its probabilities. It is 1 for the output of a softmax, less if only the
largest probabilities of a record are stored or if an image may show none of the classes, and more if an image has
several labels. A cell keeps mass_L, the largest mass of its records. Nothing else is assumed of a row but that its
values are between 0 and 1.

There is a second bound. With c the dominant class of the cell, the other probabilities of a record sum to its mass
minus p(c). So with s' the largest weight of the other classes,

    R(q, b) <= s_c p(c) + s' (mass_L - p(c))

The bound of the cell is the larger of the values at p(c) = lo_L (see below) and p(c) = M_L(c). It is the tighter one
for a query that is itself torn between many classes, since the envelopes of cells can sum to far more than 1. `prune`
computes it for such queries only.

**The lower bound.** lo_L = min p(c) over the records of L. If s_c lo_L > t, every record of L is relevant and needs no
check of its own.

**Rounding.** Bounds are compared with the cutoff minus `relative_error`, which also covers the rounding of R and t to
float32, and masses are rounded up. So float errors can only make a search scan more cells, never fewer.

Source: the bounds are semcut's own, on Eq. 1 and 2. `search/prune_numba` repeats `Cells.prune` as a numba kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.probability_rows import row_masses
from semcut.indexes.pruning.cell_table import cell_numbers, edges_of_cells, kinds_per_class
from semcut.indexes.pruning.class_lists import SMALLEST, ClassLists, LargeWeights
from semcut.indexes.scoring.packed_rows import PackedRows, raise_envelopes
from semcut.indexes.scoring.rounding import UNDERFLOW, Products, relative_error

_TORN = 0.35
"""The second bound is computed for queries whose largest weight is below this."""
_MANY = 1 << 21
"""Number of values of all envelopes above which class lists are faster than products with all envelopes."""


@dataclass(frozen=True, eq=False)
class KeptCells:
    """The cells that pruning keeps for each of nq queries.

    Attributes:
        cells: (nq, w) int64 positions in `Cells` of the cells to scan, padded with -1 at the end of a row.
        certain: (nq, cells) bool; whether every record of the cell is relevant to the query.
        counts: (nq,) int64; the number of cells to scan.
        codes: (nq,) int64; the number of records in these cells.
        partitions: (nq,) int64; the number of partitions that these cells belong to.
    """

    cells: NDArray[np.int64]
    certain: NDArray[np.bool_]
    counts: NDArray[np.int64]
    codes: NDArray[np.int64]
    partitions: NDArray[np.int64]


_OF_BOUNDS = ("_dominant", "largest_mass", "edges", "_scan_order", "_scan_place", "_sums", "peaks")


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of an index that have, or once had, records. Immutable: methods return changed cells as a new object.

    A cell keeps its position until the index is compacted; new cells are appended. After a removal of records,
    envelopes may be too high and lower bounds too low; they are still valid bounds.

    Attributes:
        config: the configuration of the index.
        numbers: (cells,) int64, the number of each cell in `cell_table`.
        sizes: (cells,) int64, the number of records of each cell.
        lows: (cells,) float32, lo_L, the smallest p(c) of the records.
        envelopes: (cells, C) float32, M_L, the largest p(m) of the records.
        masses: (cells,) float32, mass_L, the largest sum of p of the records, rounded up.
    """

    config: IndexConfig
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lows: NDArray[np.float32]
    envelopes: NDArray[np.float32]
    masses: NDArray[np.float32]

    @staticmethod
    def empty(config: IndexConfig) -> Cells:
        """Return the cells of an index without records."""
        return Cells(
            config=config,
            numbers=np.empty(0, np.int64),
            sizes=np.empty(0, np.int64),
            lows=np.empty(0, np.float32),
            envelopes=np.empty((0, config.classes), np.float32),
            masses=np.empty(0, np.float32),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def dominant(self) -> NDArray[np.int64]:
        """Return the class of each cell's partition: (cells,) int64, computed once."""
        return self._dominant

    @cached_property
    def _dominant(self) -> NDArray[np.int64]:
        return self.numbers // kinds_per_class(self.config)

    def extended(self, rows: NDArray[np.float32] | PackedRows) -> tuple[Cells, NDArray[np.int32]]:
        """Return the cells after a batch was added, and the cell of each of its records.

        Args:
            rows: the probabilities of n records as stored: (n, C) float32, or packed.

        Returns:
            New `Cells`, and (n,) int32 positions in them.
        """
        numbers, confidence = cell_numbers(self.config, rows)
        touched, local, added = np.unique(numbers, return_inverse=True, return_counts=True)
        grown, positions = self._with(touched)
        grown.sizes[positions] += added
        cells = positions[local].astype(np.int32)
        np.minimum.at(grown.lows, cells, confidence)
        np.maximum.at(grown.masses, cells, rows.masses() if isinstance(rows, PackedRows) else row_masses(rows))
        raise_envelopes(grown.envelopes, cells, rows)
        return grown, cells

    def widened(
        self,
        numbers: NDArray[np.int64],
        lows: NDArray[np.float32],
        envelopes: NDArray[np.float32],
        masses: NDArray[np.float32],
    ) -> Cells:
        """Return the cells with bounds widened to include those of other cells; new cells have no records.

        Args:
            numbers: (n,) int64, the numbers of the other cells; a number may occur several times.
            lows: (n,) float32, their lower bounds.
            envelopes: (n, C) float32, their envelopes.
            masses: (n,) float32, their largest masses.
        """
        touched, local = np.unique(numbers, return_inverse=True)
        grown, positions = self._with(touched)
        np.minimum.at(grown.lows, positions[local], lows)
        np.maximum.at(grown.envelopes, positions[local], envelopes)
        np.maximum.at(grown.masses, positions[local], masses)
        return grown

    def _with(self, numbers: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
        """Return a copy that contains these (n,) distinct numbers, and their (n,) positions."""
        fresh = numbers[~np.isin(numbers, self.numbers)]
        grown = Cells(
            config=self.config,
            numbers=np.concatenate([self.numbers, fresh]),
            sizes=np.concatenate([self.sizes, np.zeros(len(fresh), np.int64)]),
            lows=np.concatenate([self.lows, np.full(len(fresh), np.inf, np.float32)]),
            envelopes=np.concatenate([self.envelopes, np.zeros((len(fresh), self.config.classes), np.float32)]),
            masses=np.concatenate([self.masses, np.zeros(len(fresh), np.float32)]),
        )
        by_number = np.argsort(grown.numbers)
        return grown, by_number[np.searchsorted(grown.numbers, numbers, sorter=by_number)]

    def without(self, cells: NDArray[np.int32]) -> Cells:
        """Return the cells after a record was removed from each of these positions. Bounds are not tightened.

        Raises:
            DamagedIndexError: a cell has fewer records.
        """
        sizes = self.sizes - np.bincount(cells, minlength=len(self))
        if (sizes < 0).any():
            raise DamagedIndexError(
                "a cell has fewer records than were removed from it: restore the index from a backup"
            )
        return replace(self, sizes=sizes)

    def limited_to(self, sizes: NDArray[np.int64]) -> Cells:
        """Return the same cells with (cells,) int64 smaller sizes, and what was computed of their bounds."""
        limited, used = replace(self, sizes=sizes), sizes > 0
        limited.__dict__.update({name: self.__dict__[name] for name in _OF_BOUNDS if name in self.__dict__})
        limited.__dict__["lists"] = self.lists if 2 * used.sum() > len(self) else self.lists.limited_to(used)
        return limited

    def prune(self, weights: NDArray[np.float64], cutoff: float) -> KeptCells:
        """Find the cells that can have a record with R > cutoff: all that have one, and few others.

        Args:
            weights: (nq, C) float64, s = S p of each query.
            cutoff: t of Eq. 2.
        """
        queries, slack = len(weights), relative_error(self.config.classes)
        dominant = self.dominant()
        query, cell = self._candidates(weights, cutoff, (cutoff - UNDERFLOW) * (1 - slack))
        torn = np.flatnonzero((weights.max(axis=1) < _TORN)[query])
        keep = self.sizes[cell] > 0
        keep[torn] &= self._second_bound(weights, query[torn], cell[torn]) > cutoff
        query, cell = query[keep], cell[keep]
        class_of = dominant[cell]
        own = weights[query, class_of]
        likely = np.flatnonzero(own > cutoff)
        sure = likely[own[likely] * self.lows[cell[likely]] * (1 - slack) > cutoff + UNDERFLOW]
        certain = np.zeros((queries, len(self)), bool)
        certain[query[sure], cell[sure]] = True

        starts = np.searchsorted(query, np.arange(queries + 1))
        counts = np.diff(starts)
        cells = np.full((queries, int(counts.max(initial=0))), -1, np.int64)
        cells[query, np.arange(len(query)) - starts[query]] = cell
        partitions = np.zeros((queries, self.config.classes), bool)
        partitions[query, class_of] = True
        return KeptCells(
            cells=cells,
            certain=certain,
            counts=counts,
            codes=np.bincount(query, weights=self.sizes[cell], minlength=queries).astype(np.int64),
            partitions=np.count_nonzero(partitions, axis=1),
        )

    def _candidates(
        self, weights: NDArray[np.float64], cutoff: float, limit: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of a query and a cell whose upper bound exceeds the limit, by query and then in scan order."""
        if self.envelopes.size < _MANY:
            return self._products(np.arange(len(weights)), weights, limit)
        large = LargeWeights.of(weights, cutoff)
        query, cell, others = self.lists.pairs(large, limit, self.largest_mass)
        part, _ = large.above_tails().sums(query, cell, self.envelopes)
        keep = part + large.tails[query] * self.masses[cell] > limit
        rest, cells = self._products(others, weights[others], limit)
        query, cell = np.concatenate([query[keep], rest]), np.concatenate([cell[keep], cells])
        order = np.lexsort((self._scan_place[cell], query))
        return query[order], cell[order]

    def _products(
        self, queries: NDArray[np.int64], weights: NDArray[np.float64], limit: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs of `_candidates` for some queries, from their products with all envelopes.

        Args:
            queries: (n,) the positions of the queries.
            weights: (n, C) s of these queries.
            limit: the value that an upper bound must exceed.
        """
        if not len(queries):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        found = np.flatnonzero(self._sums(weights.astype(np.float32)) > np.float32(limit))
        at = found // max(1, len(self))
        return queries[at], self._scan_order[found - at * len(self)]

    def bounds(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the smallest upper bound for every cell, rounded up: (nq, C) float64 to (nq, cells) float64.

        It is the smaller of the second bound and the largest s . p with p <= M_L and a sum of p of at most mass_L.
        """
        first = np.array([self._largest_sums(one) for one in weights]).reshape(len(weights), len(self))
        query, cell = np.divmod(np.arange(first.size), max(1, len(self)))
        second = self._second_bound(weights, query, cell).reshape(first.shape)
        return np.minimum(first * (1 + relative_error(self.config.classes)) + UNDERFLOW, second)

    def _largest_sums(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest possible s . p of each cell: the mass goes to the classes with the largest weights first.

        Below `SMALLEST`, all weights count as equal.
        """
        order = np.argsort(-weights, kind="stable")
        order = order[: np.count_nonzero(weights > SMALLEST)]
        rest = np.delete(weights, order).max(initial=0)
        masses = self.masses.astype(np.float64)
        used = np.minimum(np.cumsum(self.envelopes[:, order], axis=1, dtype=np.float64), masses[:, None])
        found: NDArray[np.float64] = np.diff(used, axis=1, prepend=0) @ weights[order]
        found += rest * (masses - used[:, -1] if len(order) else masses)
        return found

    def _second_bound(
        self, weights: NDArray[np.float64], query: NDArray[np.int64], cell: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the second bound for pairs of a query and a cell, rounded up."""
        own = weights[query, self.dominant()[cell]]
        two = np.partition(weights, weights.shape[1] - 2, axis=1)[:, -2:][query]
        other = np.where(own == two[:, 1], two[:, 0], two[:, 1])  # where both largest weights are equal, so is `other`
        p = np.where(own >= other, self.peaks[cell], self.lows[cell]).astype(np.float64)
        mass = self.masses[cell].astype(np.float64)
        bound: NDArray[np.float64] = own * p + other * np.maximum(0, mass - p)
        return bound * (1 + relative_error(self.config.classes)) + UNDERFLOW

    @cached_property
    def largest_mass(self) -> float:
        """The largest mass of all records; 0 without records."""
        return float(self.masses.max(initial=0))

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """The edge, out of `cell_table.EDGES`, of each cell's interval of p1: (cells,) float64."""
        return edges_of_cells(self.config, self.numbers)

    @cached_property
    def _scan_order(self) -> NDArray[np.int64]:
        """Positions of cells by kind: a scan of sure cells first finds near codes early."""
        return np.argsort(self.numbers % kinds_per_class(self.config), kind="stable")

    @cached_property
    def _scan_place(self) -> NDArray[np.int64]:
        """The place of each cell in the scan order."""
        return np.argsort(self._scan_order)

    @cached_property
    def lists(self) -> ClassLists:
        """The cells of each class, by envelope."""
        return ClassLists.of(self.envelopes, self.sizes)

    @cached_property
    def _sums(self) -> Products:
        """Computes s . M_L for all cells, in scan order."""
        return Products(self.envelopes[self._scan_order])

    @cached_property
    def peaks(self) -> NDArray[np.float32]:
        """The largest p(c) of each cell: (cells,) float32."""
        return self.envelopes[np.arange(len(self)), self.dominant()]

    def of_partition(self, partition: int, *, ambiguous: bool = False) -> NDArray[np.int64]:
        """Return the positions of the cells of a partition that hold records.

        Args:
            partition: its class.
            ambiguous: whether to sort them by their largest p(c), the smallest first.
        """
        found = np.flatnonzero((self.dominant() == partition) & (self.sizes > 0))
        return found[np.argsort(self.peaks[found], kind="stable")] if ambiguous else found

    def partition_sizes(self) -> NDArray[np.int64]:
        """Count the records of each partition: (C,) int64."""
        return np.bincount(self.dominant(), weights=self.sizes, minlength=self.config.classes).astype(np.int64)
