"""Which cells a query can reach, without multiplying it with the envelopes of all of them.

`partitions` has cells and their bounds. Most weights s_m of a query are tiny. With B the classes of its j largest
weights and `rest` the next one,

    R(q, b)  <=  sum over B of s_m p_b(m)  +  rest        since the probabilities of a record sum to 1
             <=  sum over B of s_m M_L(m)  +  rest        for every record b of a cell L

and the second line can exceed t only if M_L(m) > (t - rest) / sum of s_m over B for some m of B. The largest such
threshold, over j, is the query's *reach*. So for every class the cells are listed by envelope, largest first, and a
query looks at the beginnings of a few lists: at dozens of cells out of thousands.

Lists end at `FLOOR`. A query that reaches further, or whose lists are longer than there are cells, has to look at all
cells, and so has one with more than `MOST` large weights, as a matrix S of overlapping classes can give it.

Source: the thresholds are those of top-k retrieval over inverted lists sorted by impact (Anh, de Kretser, Moffat,
"Vector-space ranking with effective early termination", SIGIR 2001), applied to bounds of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import SUM_TOLERANCE

FLOOR = 0.01
SHARE, SMALLEST = 0.125, 1e-3
"""A weight above this share of t, and above this, is a large one."""
MOST = 64
"""Large weights of a query, up to which it is worth telling them apart."""
MARGIN = 1e-9
"""By how much less than its exact value a reach is, relatively and, for the keys below, absolutely: so that rounding
never shortens a list."""
_ELEMENTS = 1 << 20  # values of rows taken at a time


@dataclass(frozen=True, eq=False)
class ClassLists:
    """For every class the cells with an envelope of at least `FLOOR` there, largest first.

    Attributes:
        starts: (C + 1,) int64: where the list of each class starts, and ends.
        cells: (m,) int32, of all lists.
        values: (m,) float32: M_L(class) of each.
    """

    starts: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]

    @staticmethod
    def of(envelopes: NDArray[np.float32]) -> ClassLists:
        """Of the envelopes of all cells, (cells, C) float32."""
        cell, m = np.nonzero(envelopes >= FLOOR)
        values = envelopes[cell, m]
        order = np.lexsort((-values, m))
        starts = np.searchsorted(m[order], np.arange(envelopes.shape[1] + 1))
        return ClassLists(starts, cell[order].astype(np.int32), values[order])

    def pairs(self, large: Large, limit: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What cells each query can reach.

        Args:
            large: the large weights of nq queries.
            limit: what a bound has to exceed.

        Returns:
            query (n,) int64 and cell (n,) int64, in order of queries, every pair once; and (m,) int64 queries that
            have to look at all cells, of which there are no pairs.
        """
        chosen, reach = large.reach(limit)
        near = reach >= FLOOR
        width = 1 + int(self.cells.max(initial=0))
        query = np.repeat(np.arange(len(large)), np.where(near, chosen, 0))
        m = large.classes[large.starts[query] + _places(query, len(large))]
        ends = np.searchsorted(self._keys, m * 2.0 - reach[query])
        counts = np.maximum(ends - self.starts[m], 0)
        near &= np.bincount(query, weights=counts, minlength=len(large)) <= width
        query, m, counts = (array[near[query]] for array in (query, m, counts))
        owner = np.repeat(np.arange(len(query)), counts)
        cell = self.cells[self.starts[m][owner] + _places(owner, len(query))]
        pairs = np.sort(query[owner] * width + cell)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        found = pairs // width
        return found, pairs - found * width, np.flatnonzero(~near)

    @cached_property
    def _keys(self) -> NDArray[np.float64]:
        """2 m - M_L(m) of every entry, in ascending order."""
        return np.repeat(np.arange(len(self.starts) - 1) * 2.0, np.diff(self.starts)) - self.values


@dataclass(frozen=True, eq=False)
class Large:
    """The large weights of nq queries, those of each query in descending order.

    Attributes:
        starts: (nq + 1,) int64.
        classes: (n,) int64.
        weights: (n,) float64.
        tails: (nq,) float64: the largest of the other weights.
        few: (nq,) bool: whether a query has no more than `MOST`; of others there are none here, and all are the tail.
    """

    starts: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    tails: NDArray[np.float64]
    few: NDArray[np.bool_]

    @staticmethod
    def of(weights: NDArray[np.float64], cutoff: float) -> Large:
        """Of (nq, C) float64 weights."""
        is_large = weights > max(cutoff * SHARE, SMALLEST)
        few = np.count_nonzero(is_large, axis=1) <= MOST
        is_large &= few[:, None]
        query, m = np.nonzero(is_large)
        s = weights[query, m]
        order = np.lexsort((-s, query))
        return Large(
            starts=np.searchsorted(query, np.arange(len(weights) + 1)),
            classes=m[order],
            weights=s[order],
            tails=np.where(is_large, 0, weights).max(axis=1),
            few=few,
        )

    def __len__(self) -> int:
        return len(self.tails)

    def reach(self, limit: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """How many lists each query looks at, (nq,) int64, and down to which envelope, (nq,) float64: negative for a
        query that has to look at all cells, infinite for one that can skip all."""
        counts = np.diff(self.starts)
        place = np.arange(int(counts.max(initial=0)))
        there = place < counts[:, None]
        s = np.zeros((len(self), len(place) + 1))
        s[:, :-1][there] = self.weights  # in their order: sums of one query know nothing of the others
        rest = s[:, 1:].copy()
        last = np.flatnonzero(counts)
        rest[last, counts[last] - 1] = self.tails[last]
        sums = np.where(there, np.cumsum(s[:, :-1], axis=1), 1)
        far = np.where(there, (limit - rest * (1 + SUM_TOLERANCE)) / sums * (1 - MARGIN) - MARGIN, -1)
        none = np.where(self.tails * (1 + SUM_TOLERANCE) <= limit, np.inf, -1.0)
        if not len(place):
            return counts, none
        return np.where(counts, far.argmax(axis=1) + 1, 0), np.where(counts, far.max(axis=1), none)

    def sums(
        self, query: NDArray[np.int64], row: NDArray[np.int64], matrix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of s_m x(m), and of x(m), over the large weights, for (n,) pairs of a query and a row x of a matrix."""
        sums, masses = np.empty(len(query)), np.empty(len(query))
        step = _ELEMENTS // MOST
        for start in range(0, len(query), step):
            here = slice(start, start + step)
            sums[here], masses[here] = self._sums(query[here], row[here], matrix)
        return sums, masses

    def _sums(
        self, query: NDArray[np.int64], row: NDArray[np.int64], matrix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts = np.diff(self.starts)[query]
        owner = np.repeat(np.arange(len(query)), counts)
        at = self.starts[query][owner] + _places(owner, len(query))
        x = matrix.reshape(-1)[row[owner] * matrix.shape[1] + self.classes[at]].astype(np.float64)
        sums = np.bincount(owner, weights=self.weights[at] * x, minlength=len(query))
        masses = np.bincount(owner, weights=x, minlength=len(query))
        return np.asarray(sums, np.float64), np.asarray(masses, np.float64)


def _places(owner: NDArray[np.int64], owners: int) -> NDArray[np.int64]:
    """Of (n,) ascending numbers, how many of the same number come before each."""
    return np.arange(len(owner)) - np.searchsorted(owner, np.arange(owners))[owner]
