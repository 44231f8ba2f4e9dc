"""Lists of cells by class, to find the cells that can be relevant to a query without a product with all envelopes.

`cells` has the cells and their bounds. Most weights s_m of a query are tiny. With B the classes of its j largest
weights, `rest` the next largest weight, and mass_b the sum of the probabilities of a record b of a cell L,

    R(q, b)  <=  sum over B of s_m p_b(m)  +  rest (mass_b - sum over B of p_b(m))
             =   sum over B of (s_m - rest) p_b(m)  +  rest mass_b
             <=  sum over B of (s_m - rest) M_L(m)  +  rest mass_L           since s_m >= rest

and the last line can exceed t only if M_L(m) > (t - rest mass) / sum of (s_m - rest) over B for some m of B, where
`mass` is the largest mass of all cells. The largest value of this quotient, over j, is the *threshold* of the query.
So the cells of every class are listed by envelope, the largest first, and a query reads a few lists, each down to the
threshold: dozens of cells out of thousands.

Lists contain envelopes of at least `FLOOR`. The envelopes of all cells must be compared for a query if its threshold is
lower, if its lists have more entries than there are cells, or if it has more than `MOST` large weights. A matrix S of
overlapping classes can produce such queries.

Source: the thresholds are those of top-k retrieval over inverted lists sorted by impact (Anh, de Kretser, Moffat,
"Vector-space ranking with effective early termination", SIGIR 2001), applied to bounds of cells.
`search/prune_numba` repeats them as numba kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FLOOR = 0.01
"""The smallest envelope in a list."""
SHARE, SMALLEST = 0.125, 1e-3
"""A weight is large if it exceeds this share of the cutoff, and this value."""
MOST = 64
"""The largest number of large weights of a query for which lists are used."""
MARGIN = 1e-9
"""How much a threshold is lowered, so that rounding never shortens a list: relatively, and then by the same absolute
amount for the rounding of the sort keys."""
_ELEMENTS = 1 << 20
"""Values of a matrix that are read in one step."""


@dataclass(frozen=True, eq=False)
class ClassLists:
    """For every class, the cells with an envelope of at least `FLOOR` there, the largest first.

    Attributes:
        starts: (C + 1,) int64, the start of the list of each class, and the end of the last list.
        cells: (m,) int32, the cells of all lists.
        values: (m,) float32, M_L(class) of each of these cells.
    """

    starts: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]

    @staticmethod
    def of(envelopes: NDArray[np.float32], sizes: NDArray[np.int64]) -> ClassLists:
        """Build the lists from the envelopes of all cells, (cells, C) float32, and their sizes, (cells,) int64.

        Cells without records are in no list. Some classes are listed at a time, so that memory is taken for the lists.
        """
        count, classes = envelopes.shape
        used = np.flatnonzero(sizes > 0)
        cells, values, lengths = [np.empty(0, np.int32)], [np.empty(0, np.float32)], np.zeros(classes + 1, np.int64)
        step = max(1, _ELEMENTS // max(1, count))
        for first in range(0, classes, step):
            part = envelopes[:, first : first + step] if len(used) == count else envelopes[used, first : first + step]
            cell, m = np.nonzero(part >= FLOOR)
            found = part[cell, m]
            order = np.lexsort((-found, m))
            cells.append(used[cell[order]].astype(np.int32))
            values.append(found[order])
            lengths[first + 1 : first + 1 + part.shape[1]] = np.bincount(m, minlength=part.shape[1])
        return ClassLists(np.cumsum(lengths), np.concatenate(cells), np.concatenate(values))

    def limited_to(self, used: NDArray[np.bool_]) -> ClassLists:
        """Return the lists with some of the cells alone: (cells,) bool."""
        kept = used[self.cells]
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        return ClassLists(starts, self.cells[kept], self.values[kept])

    def pairs(
        self, large: LargeWeights, limit: float, mass: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the cells whose envelopes are above the threshold of each query.

        Args:
            large: the large weights of nq queries.
            limit: the value that an upper bound must exceed.
            mass: the largest mass of all cells.

        Returns:
            query (n,) int64 and cell (n,) int64, in order of queries, each pair once; and (m,) int64, the queries for
            which all cells must be compared, which have no pairs.
        """
        lists, thresholds = large.thresholds(limit, mass)
        listed = thresholds >= FLOOR
        width = 1 + int(self.cells.max(initial=0))
        query = np.repeat(np.arange(len(large)), np.where(listed, lists, 0))
        m = large.classes[large.starts[query] + _rank_within(query, len(large))]
        ends = np.searchsorted(self._keys, m * 2.0 - thresholds[query])
        counts = np.maximum(ends - self.starts[m], 0)
        listed &= np.bincount(query, weights=counts, minlength=len(large)) <= width
        query, m, counts = (array[listed[query]] for array in (query, m, counts))
        owner = np.repeat(np.arange(len(query)), counts)
        cell = self.cells[self.starts[m][owner] + _rank_within(owner, len(query))]
        pairs = np.sort(query[owner] * width + cell)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        found = pairs // width
        return found, pairs - found * width, np.flatnonzero(~listed)

    @cached_property
    def _keys(self) -> NDArray[np.float64]:
        """2 m - M_L(m) of every entry: ascending, so that a binary search finds a threshold in the list of a class."""
        return np.repeat(np.arange(len(self.starts) - 1) * 2.0, np.diff(self.starts)) - self.values


@dataclass(frozen=True, eq=False)
class LargeWeights:
    """The large weights of nq queries, those of each query in descending order.

    Attributes:
        starts: (nq + 1,) int64, the start of the large weights of each query, and the end of the last.
        classes: (n,) int64, the classes of the large weights.
        weights: (n,) float64, the large weights.
        tails: (nq,) float64, the largest of the other weights of each query.
        few: (nq,) bool, whether a query has `MOST` large weights or fewer. All weights of a query with more count as
            other weights.
    """

    starts: NDArray[np.int64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    tails: NDArray[np.float64]
    few: NDArray[np.bool_]

    @staticmethod
    def of(weights: NDArray[np.float64], cutoff: float) -> LargeWeights:
        """Find the large weights among (nq, C) float64 weights, for a cutoff t."""
        is_large = weights > max(cutoff * SHARE, SMALLEST)
        few = np.count_nonzero(is_large, axis=1) <= MOST
        is_large &= few[:, None]
        query, m = np.nonzero(is_large)
        s = weights[query, m]
        order = np.lexsort((-s, query))
        return LargeWeights(
            starts=np.searchsorted(query, np.arange(len(weights) + 1)),
            classes=m[order],
            weights=s[order],
            tails=np.where(is_large, 0, weights).max(axis=1),
            few=few,
        )

    def __len__(self) -> int:
        return len(self.tails)

    def above_tails(self) -> LargeWeights:
        """Return the same weights less the tail of their query, which they exceed."""
        return replace(self, weights=self.weights - np.repeat(self.tails, np.diff(self.starts)))

    def thresholds(self, limit: float, mass: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the number of lists to read for each query, and the threshold of their envelopes.

        The rounding of the differences is far below that of the limit, which is lowered by `relative_error`: a quotient
        matters only if rest mass < limit, so what is lost in s_m - rest is a rounding error of the limit.

        Args:
            limit: the value that an upper bound must exceed.
            mass: the largest mass of all cells.

        Returns:
            (nq,) int64, the number of lists, those of the largest weights; and (nq,) float64 thresholds: negative if
            all cells must be compared, infinite if all cells can be skipped.
        """
        counts = np.diff(self.starts)
        place = np.arange(int(counts.max(initial=0)))
        present = place < counts[:, None]
        s = np.zeros((len(self), len(place) + 1))
        s[:, :-1][present] = self.weights  # row by row, so that a sum over one query has no terms of another
        rest = s[:, 1:].copy()
        last = np.flatnonzero(counts)
        rest[last, counts[last] - 1] = self.tails[last]
        above = np.cumsum(s[:, :-1], axis=1) - (place + 1) * rest
        left = np.where(present, limit - rest * mass, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(left > 0, left / np.maximum(above, 0) * (1 - MARGIN) - MARGIN, -1)
        none = np.where(self.tails * mass <= limit, np.inf, -1.0)
        if not len(place):
            return counts, none
        return np.where(counts, values.argmax(axis=1) + 1, 0), np.where(counts, values.max(axis=1), none)

    def sums(
        self, query: NDArray[np.int64], row: NDArray[np.int64], matrix: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums of s_m x(m) and of x(m) over the large weights.

        Args:
            query, row: (n,) pairs of a query and a row x of the matrix.
            matrix: (N, C).
        """
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
        at = self.starts[query][owner] + _rank_within(owner, len(query))
        x = matrix.reshape(-1)[row[owner] * matrix.shape[1] + self.classes[at]].astype(np.float64)
        sums = np.bincount(owner, weights=self.weights[at] * x, minlength=len(query))
        masses = np.bincount(owner, weights=x, minlength=len(query))
        return np.asarray(sums, np.float64), np.asarray(masses, np.float64)


def _rank_within(owner: NDArray[np.int64], owners: int) -> NDArray[np.int64]:
    """Return how many equal numbers precede each of (n,) ascending numbers below `owners`."""
    return np.arange(len(owner)) - np.searchsorted(owner, np.arange(owners))[owner]
