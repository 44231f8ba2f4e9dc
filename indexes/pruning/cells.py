"""Partitions, their cells, and exact pruning: which parts of an index can hold a record relevant to a query.

A partition holds the records of one dominant class c = argmax p. With p1 and p2 a record's largest and second largest
probability, a partition is cut into these cells, of which those without a record cost nothing:

    kind                        records
    0                           sure:       p1 >= 0.95
    1                           confident:  p1 >= 0.8
    2 + W band                  vague:      the others with p2 < 0.15: what is left is spread over many classes
    2 + W band + 1 + r mod 2 G  torn:       the rest, by their runner-up class r

A band is an interval of p1: 0 for p1 >= 0.5, 1 for p1 >= 0.3, 2 below that; W = 1 + min(C, 2 G) is the number of kinds
in a band. A record's cell follows from its probabilities alone, cell = c (2 + 3 W) + kind, and there are at most
C (2 + 3 W) of them, whatever the number of records.

**The upper bound.** A cell L keeps its envelope M_L(m) = max p(m) over its records. For a query with weights s,

    R(q, b) = s . p_b <= s . M_L =: U_L(q)        for every record b of L, since s >= 0

so a cell with U_L(q) <= t holds nothing relevant and is skipped. Where there are many cells, a similar bound that takes
only the large s_m finds the others fast (`reach`). Cells finer than partitions make the envelopes tight: grouping by
runner-up keeps the second largest probabilities of different classes apart, `vague` keeps the records without a notable
second class out of all groups, and bands make the first term, s_c M_L(c), tight.

Since the rest of a record's probabilities sum to 1 - p(c), a second bound holds, with s' the largest weight of the
other classes and p(c) in [lo_L, M_L(c)]:

    R(q, b) <= s_c p(c) + s' (1 - p(c))

at the end of the interval that makes it larger. It is what spares a query that is itself torn between many classes
from scanning cells whose envelopes sum to far more than 1; `prune` computes it for such queries only.

**The lower bound.** lo_L = min p(c) over its records; s_c lo_L > t means that every record of L is relevant and needs
no check of its own.

**Rounding.** Bounds are compared with the cutoff less the error bound of `compare`, which also covers the rounding of
R and t to float32, and probabilities may sum to a little more than 1 (`SUM_TOLERANCE`): float error can make a search
scan too much, never too little.

Source: the bounds are semcut's own, on Eq. 1 and 2 of Varga and Szirányi.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import SUM_TOLERANCE
from semcut.indexes.pruning.class_lists import ClassLists, Large
from semcut.indexes.scoring.rounding import UNDERFLOW, Products, error

SURE, CONFIDENT, VAGUE, BANDS = 0.95, 0.8, 0.15, (0.5, 0.3)
EDGES = (SURE, CONFIDENT, *BANDS, BANDS[-1] / 2)
"""Fixed edges of p1, one for each interval of the table: its lower end, and half the upper end of the last interval."""
_TORN = 0.35  # queries whose largest weight is below this get the second bound
_MANY = 1 << 21  # values of envelopes, from which on lists of them are faster than their products
_CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Kept:
    """What pruning leaves of an index for each of nq queries.

    Attributes:
        cells: (nq, w) int64 positions in `Cells` of the cells to scan, padded with -1 at the end of a row.
        certain: (nq, cells) bool; every record of the cell is relevant to the query.
        counts: (nq,) int64; cells to scan.
        codes: (nq,) int64; records in the cells to scan.
        partitions: (nq,) int64; partitions that these cells belong to.
    """

    cells: NDArray[np.int64]
    certain: NDArray[np.bool_]
    counts: NDArray[np.int64]
    codes: NDArray[np.int64]
    partitions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of an index that hold or held records. Immutable: `extended` returns the cells after a batch.

    A cell is at the same position until the index is compacted; new ones come at the end. After records were removed
    lower bounds and envelopes may be wider than they need be; they are bounds as before.

    Attributes:
        numbers: (cells,) int64: c (2 + 3 W) + kind, as in the table above.
        sizes: (cells,) int64: records.
        lows: (cells,) float32: the smallest p(c).
        envelopes: (cells, C) float32: the largest p(m).
    """

    config: IndexConfig
    numbers: NDArray[np.int64]
    sizes: NDArray[np.int64]
    lows: NDArray[np.float32]
    envelopes: NDArray[np.float32]

    @staticmethod
    def empty(config: IndexConfig) -> Cells:
        """No cells yet."""
        return Cells(
            config=config,
            numbers=np.empty(0, np.int64),
            sizes=np.empty(0, np.int64),
            lows=np.empty(0, np.float32),
            envelopes=np.empty((0, config.classes), np.float32),
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def dominant(self) -> NDArray[np.int64]:
        """(cells,) int64: the class of each cell's partition."""
        return self.numbers // _kinds(self.config)

    def extended(self, probabilities: NDArray[np.float32]) -> tuple[Cells, NDArray[np.int32]]:
        """The cells after a batch, and where in them each of its records is.

        Args:
            probabilities: (n, C) float32, as stored.

        Returns:
            New `Cells`, and (n,) int32 positions.
        """
        numbers, confidence = cell_numbers(self.config, probabilities)
        touched, local, added = np.unique(numbers, return_inverse=True, return_counts=True)
        grown, positions = self._with(touched)
        grown.sizes[positions] += added
        cells = positions[local].astype(np.int32)
        for start in range(0, len(cells), _CHUNK):
            part = slice(start, start + _CHUNK)
            order = np.argsort(cells[part], kind="stable")
            present, first = np.unique(cells[part][order], return_index=True)
            upper = np.maximum.reduceat(probabilities[part][order], first, axis=0)
            lower = np.minimum.reduceat(confidence[part][order], first)
            grown.envelopes[present] = np.maximum(grown.envelopes[present], upper)
            grown.lows[present] = np.minimum(grown.lows[present], lower)
        return grown, cells

    def widened(self, numbers: NDArray[np.int64], lows: NDArray[np.float32], envelopes: NDArray[np.float32]) -> Cells:
        """The cells with bounds that hold for others with these numbers, too; new ones have no records.

        Args:
            numbers: (n,) int64; the same may occur several times.
            lows: (n,) float32.
            envelopes: (n, C) float32.
        """
        touched, local = np.unique(numbers, return_inverse=True)
        grown, positions = self._with(touched)
        np.minimum.at(grown.lows, positions[local], lows)
        np.maximum.at(grown.envelopes, positions[local], envelopes)
        return grown

    def _with(self, numbers: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
        """A copy that has these (n,) different cells, and the (n,) positions where."""
        fresh = numbers[~np.isin(numbers, self.numbers)]
        grown = Cells(
            config=self.config,
            numbers=np.concatenate([self.numbers, fresh]),
            sizes=np.concatenate([self.sizes, np.zeros(len(fresh), np.int64)]),
            lows=np.concatenate([self.lows, np.full(len(fresh), np.inf, np.float32)]),
            envelopes=np.concatenate([self.envelopes, np.zeros((len(fresh), self.config.classes), np.float32)]),
        )
        by_number = np.argsort(grown.numbers)
        return grown, by_number[np.searchsorted(grown.numbers, numbers, sorter=by_number)]

    def without(self, cells: NDArray[np.int32]) -> Cells:
        """The cells after removing records from these positions; their bounds stay, as bounds still."""
        return replace(self, sizes=self.sizes - np.bincount(cells, minlength=len(self)))

    def prune(self, weights: NDArray[np.float64], cutoff: float) -> Kept:
        """The cells that can hold a record with R > cutoff: never fewer than do hold one.

        Args:
            weights: (nq, C) float64, s = S p of each query.
            cutoff: t of Eq. 2.
        """
        queries, slack = len(weights), error(self.config.classes)
        dominant = self.dominant()
        query, cell = self._reached(weights, cutoff, (cutoff - UNDERFLOW) * (1 - slack))
        torn = np.flatnonzero((weights.max(axis=1) < _TORN)[query])
        held = self.sizes[cell] > 0
        held[torn] &= self._second_bound(weights, query[torn], cell[torn]) > cutoff
        query, cell = query[held], cell[held]
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
        return Kept(
            cells=cells,
            certain=certain,
            counts=counts,
            codes=np.bincount(query, weights=self.sizes[cell], minlength=queries).astype(np.int64),
            partitions=np.count_nonzero(partitions, axis=1),
        )

    def _reached(
        self, weights: NDArray[np.float64], cutoff: float, limit: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of a query and a cell that the first bound, or that of `reach`, leaves, by query, as scanned."""
        if self.envelopes.size < _MANY:
            return self._products(np.arange(len(weights)), weights, limit)
        large = Large.of(weights, cutoff)
        query, cell, others = self.lists.pairs(large, limit)
        part, _ = large.sums(query, cell, self.envelopes)
        keep = part + large.tails[query] * (1 + SUM_TOLERANCE) > limit
        rest, cells = self._products(others, weights[others], limit)
        query, cell = np.concatenate([query[keep], rest]), np.concatenate([cell[keep], cells])
        order = np.lexsort((self._scan_place[cell], query))
        return query[order], cell[order]

    def _products(
        self, queries: NDArray[np.int64], weights: NDArray[np.float64], limit: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same from the products of these queries with all envelopes."""
        if not len(queries):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        found = np.flatnonzero(self._sums(weights.astype(np.float32)) > np.float32(limit))
        at = found // max(1, len(self))
        return queries[at], self._scan_order[found - at * len(self)]

    def bounds(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The smaller of both bounds for every cell: (nq, C) float64 to (nq, cells) float64, rounded up."""
        first = np.empty((len(weights), len(self)))
        first[:, self._scan_order] = self._sums(weights.astype(np.float32))
        query, cell = np.divmod(np.arange(first.size), max(1, len(self)))
        second = self._second_bound(weights, query, cell).reshape(first.shape)
        return np.minimum(first * (1 + error(self.config.classes)) + UNDERFLOW, second)

    def _second_bound(
        self, weights: NDArray[np.float64], query: NDArray[np.int64], cell: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The second bound above for pairs of a query and a cell, rounded up."""
        own = weights[query, self.dominant()[cell]]
        two = np.partition(weights, weights.shape[1] - 2, axis=1)[:, -2:][query]
        other = np.where(own == two[:, 1], two[:, 0], two[:, 1])  # at a tie both are the same
        p = np.where(own >= other, self.peaks[cell], self.lows[cell]).astype(np.float64)
        return (own * p + other * (1 + SUM_TOLERANCE - p)) * (1 + error(self.config.classes)) + UNDERFLOW

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """(cells,) float64: the edge, out of `EDGES`, of the interval of p1 that each cell is for."""
        kind = self.numbers % _kinds(self.config)
        edges: NDArray[np.float64] = np.array(EDGES)[np.where(kind < 2, kind, 2 + (kind - 2) // _width(self.config))]
        return edges

    @cached_property
    def _scan_order(self) -> NDArray[np.int64]:
        """Positions by kind: a scan that starts with the sure cells has the nearest codes early, drops others fast."""
        return np.argsort(self.numbers % _kinds(self.config), kind="stable")

    @cached_property
    def _scan_place(self) -> NDArray[np.int64]:
        """Where in that order each cell is."""
        return np.argsort(self._scan_order)

    @cached_property
    def lists(self) -> ClassLists:
        """The cells of each class, by envelope."""
        return ClassLists.of(self.envelopes)

    @cached_property
    def _sums(self) -> Products:
        """s . M_L for all cells, in scan order."""
        return Products(self.envelopes[self._scan_order])

    @cached_property
    def peaks(self) -> NDArray[np.float32]:
        """(cells,) float32: the largest p(c)."""
        return self.envelopes[np.arange(len(self)), self.dominant()]

    def of_partition(self, partition: int, *, ambiguous: bool = False) -> NDArray[np.int64]:
        """Positions of the cells of a partition that hold records, those with the least sure records first if asked."""
        found = np.flatnonzero((self.dominant() == partition) & (self.sizes > 0))
        return found[np.argsort(self.peaks[found], kind="stable")] if ambiguous else found

    def partition_sizes(self) -> NDArray[np.int64]:
        """(C,) int64: records per partition."""
        return np.bincount(self.dominant(), weights=self.sizes, minlength=self.config.classes).astype(np.int64)


def cell_numbers(
    config: IndexConfig, probabilities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The number of each record's cell, by the table above, and p1: (n, C) float32 to (n,) int64 and (n,) float32.

    Equal probabilities go to the lower class.
    """
    numbers = np.empty(len(probabilities), np.int64)
    confidence = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _CHUNK):
        here = slice(start, start + _CHUNK)
        part = probabilities[here].copy()
        row = np.arange(len(part))
        dominant = part.argmax(axis=1)
        p1 = part[row, dominant]
        part[row, dominant] = -1
        runner_up = part.argmax(axis=1)
        p2 = part[row, runner_up]
        band = np.count_nonzero([p1 < edge for edge in BANDS], axis=0)
        group = np.where(p2 < VAGUE, 0, 1 + runner_up % (2 * config.groups))
        kind = np.select([p1 >= SURE, p1 >= CONFIDENT], [0, 1], 2 + _width(config) * band + group)
        numbers[here] = dominant * _kinds(config) + kind
        confidence[here] = p1
    return numbers, confidence


def edges_of(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """The edge, out of `EDGES`, of each record's largest probability: (n, C) float32 to (n,) float64."""
    p1 = probabilities.max(axis=1)
    edges: NDArray[np.float64] = np.array(EDGES)[np.count_nonzero([p1 < edge for edge in EDGES[:-1]], axis=0)]
    return edges


def cell_count(config: IndexConfig) -> int:
    """How many cells there can be."""
    return config.classes * _kinds(config)


def _kinds(config: IndexConfig) -> int:
    return 2 + (len(BANDS) + 1) * _width(config)


def _width(config: IndexConfig) -> int:
    """W: kinds of cells in a band."""
    return 1 + min(config.classes, 2 * config.groups)
