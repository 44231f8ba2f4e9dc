"""`PackedRows`: the largest probabilities of records, as an index stores them, and relevance (Eq. 1) by them.

`stored_values` says which are stored. Where an index stores all of them, the same functions take a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.scoring.equations import relevance
from semcut.indexes.scoring.rounding import SUM_ERROR, UNDERFLOW, inner_products, relative_error

STEP = 2.0**-16
"""The step of stored probabilities."""

_LARGEST = 65_535
_UNUSED = np.uint32(_LARGEST << 16)
"""The key of an unused place of a row, see `are_packed`."""
_FIRST = 4
"""How many probabilities of a record bound its R, before it is computed."""
_ROWS = 1 << 13
"""Rows that are packed, or sorted by cell, at a time."""
_BLOCK = 1 << 20
"""Values of packed or dense rows that are computed together, which take 20 bytes each."""
_CACHED = 1 << 16
"""Values of dense rows of one query that are computed together: they stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The largest probabilities of n records, as they are stored.

    Attributes:
        rows: (n, 2 m) uint16: m pairs of a class and a multiple of `STEP`, the largest first.
        classes: C.
    """

    rows: NDArray[np.uint16]
    classes: int

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the classes and the probabilities of every row: (n, m) int64 and (n, m) float32.

        A class that does not exist, which only a forged file has, becomes class 0 with the probability 0.
        """
        classes = self.rows[:, ::2].astype(np.int64)
        values = self.rows[:, 1::2] * np.float32(STEP)
        forged = classes >= self.classes
        if forged.any():
            classes[forged], values[forged] = 0, 0
        return classes, values

    def place(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the class and the probability at one place of every row, as `pairs` does: (n,) int64, (n,) float32."""
        classes, values = PackedRows(self.rows[:, 2 * place : 2 * place + 2], self.classes).pairs()
        return classes.reshape(-1), values.reshape(-1)

    def taken(self, at: NDArray[np.int64]) -> PackedRows:
        """Return the rows at (n,) places."""
        return PackedRows(self.rows[at], self.classes)

    @property
    def stored(self) -> int:
        """m, the number of probabilities of a row."""
        return int(self.rows.shape[1]) // 2

    def masses(self) -> NDArray[np.float32]:
        """Return the mass of each record, rounded up: (n,) float32, bit for bit as `row_masses` of `dense`."""
        sums = self.rows[:, 1::2].sum(axis=1, dtype=np.uint32) * np.float32(STEP)
        above: NDArray[np.float32] = np.nextafter(sums.astype(np.float32), np.float32(np.inf))
        return above

    def dense(self) -> NDArray[np.float32]:
        """Return all probabilities: (n, C) float32."""
        matrix = np.zeros((len(self.rows), self.classes), np.float32)
        flat, starts = matrix.reshape(-1), np.arange(len(matrix)) * self.classes
        for place in range(self.rows.shape[1] // 2):
            classes, values = self.place(place)
            used = values > 0
            flat[(starts + classes)[used]] = values[used]
        return matrix

    def products(self, weights: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute R = s . p of each query and its records: (nq, C), (nq, k) to (nq, k) float32; 0 for a place of -1."""
        found = np.zeros(at.shape, np.float32)
        query, column = np.nonzero(at >= 0)
        found[query, column] = self._sums(weights, query, at[query, column])
        return found

    def exact(
        self, weights: NDArray[np.float64], query: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Compute R of (n,) pairs of a query and a record as `equations.relevance` does: (n,) float32.

        A probability of 0 adds exactly nothing, so the sum over all classes has the terms of the stored ones, in an
        order that only it knows. All orders have the same value in float32, with few exceptions.
        """
        totals, rounding = self._sums(weights, query, at), (self.rows.shape[1] // 2 + 8) * SUM_ERROR
        r: NDArray[np.float32] = (totals * (1 - rounding)).astype(np.float32)
        open_ = np.flatnonzero(r != (totals * (1 + rounding)).astype(np.float32))
        open_ = open_[np.argsort(query[open_], kind="stable")]
        for some in np.split(open_, np.flatnonzero(np.diff(query[open_])) + 1) if len(open_) else ():
            r[some] = self._sums_in_order(weights[query[some[0]]], at[some])
        return r

    def _sums(
        self, weights: NDArray[np.float64], query: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Compute s . p of (n,) pairs in float64, with its terms added from the largest probability on."""
        totals, width = np.zeros(len(query)), self.rows.shape[1]
        size = max(1, _BLOCK // width)
        for start in range(0, len(query), size):
            here = slice(start, start + size)
            rows = self.taken(at[here])
            for place in range(width // 2):
                classes, values = rows.place(place)
                totals[here] += weights[query[here], classes] * values
        return totals

    def _sums_in_order(self, weights: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute R of a query, with (C,) weights, and (n,) records, with terms added as `equations.relevance` does."""
        r = np.empty(len(at), np.float32)
        block, size = max(1, _BLOCK // self.rows.shape[1]), max(1, _CACHED // self.classes)
        matrix = np.zeros((min(len(at), size), self.classes))
        flat = matrix.reshape(-1)
        for first in range(0, len(at), block):
            classes, values = self.taken(at[first : first + block]).pairs()
            row, place = np.nonzero(values)
            columns, terms = row % size * self.classes + classes[row, place], values[row, place]
            starts = np.arange(0, len(values) + size, size)
            ends = np.searchsorted(row, starts)
            for start, begin, end in zip(starts.tolist(), ends.tolist(), ends[1:].tolist(), strict=False):
                flat[columns[begin:end]] = terms[begin:end]
                count = min(size, len(values) - start)
                r[first + start : first + start + count] = relevance(weights, matrix[:count])
                flat[columns[begin:end]] = 0
        return r

    def bounded(
        self, weights: NDArray[np.float64], query: NDArray[np.int64], at: NDArray[np.int64], cutoff: float, mass: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Bound R of (n,) pairs of a query and a record by the first probabilities of the record.

        The others can add at most the largest weight of the query times what is left of the mass.

        Args:
            weights: (nq, C), s of each query.
            query, at: (n,) pairs of a query and the place of a record.
            cutoff: t of Eq. 2.
            mass: the largest mass of all records.

        Returns:
            passes (n,) bool, whether R is certainly above the cutoff; fails (n,) bool, whether R certainly is not.
        """
        passes, fails = np.zeros(len(query), bool), np.zeros(len(query), bool)
        largest, slack = weights.max(axis=1), relative_error(self.rows.shape[1] // 2)
        above, below = (cutoff + UNDERFLOW) * (1 + slack), (cutoff - UNDERFLOW) * (1 - slack)
        open_, part, left = np.arange(len(query)), np.zeros(len(query)), np.full(len(query), mass)
        for place in range(min(_FIRST, self.rows.shape[1] // 2)):
            classes, values = PackedRows(self.rows[at[open_], 2 * place : 2 * place + 2], self.classes).place(0)
            part += weights[query[open_], classes] * values
            left -= values
            yes, no = part > above, part + largest[query[open_]] * np.maximum(left, 0) <= below
            passes[open_[yes]], fails[open_[no]] = True, True
            undecided = ~(yes | no)
            open_, part, left = open_[undecided], part[undecided], left[undecided]
        return passes, fails


def raise_envelopes(
    envelopes: NDArray[np.float32], cells: NDArray[np.int32], probabilities: NDArray[np.float32] | PackedRows
) -> None:
    """Raise contiguous (cells, C) envelopes to what n records need, each of them in one of the (n,) cells."""
    if isinstance(probabilities, PackedRows):
        flat, starts = envelopes.reshape(-1), cells * np.int64(probabilities.classes)
        for place in range(probabilities.stored):
            classes, values = probabilities.place(place)
            np.maximum.at(flat, starts + classes, values)
        return
    for start in range(0, len(cells), _ROWS):
        part = slice(start, start + _ROWS)
        order = np.argsort(cells[part], kind="stable")
        present, first = np.unique(cells[part][order], return_index=True)
        upper = np.maximum.reduceat(probabilities[part][order], first, axis=0)
        envelopes[present] = np.maximum(envelopes[present], upper)


def relevance_products(
    weights: NDArray[np.float64], probabilities: NDArray[np.float32] | PackedRows, at: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute R = s . p within the error bound of `scoring.rounding`; 0 for a place of -1.

    Args:
        weights: (nq, C), s of each query.
        probabilities: the probabilities of N records.
        at: (nq, k), places of records.

    Returns:
        (nq, k) float32.
    """
    if isinstance(probabilities, PackedRows):
        return probabilities.products(weights, at)
    return inner_products(weights.astype(np.float32), probabilities, at)


def relevance_error(weights: NDArray[np.float64], probabilities: NDArray[np.float32] | PackedRows) -> float:
    """Return a relative error bound of `relevance_products`, whose sums have as many terms as values are stored."""
    if isinstance(probabilities, PackedRows):
        return relative_error(probabilities.rows.shape[1] // 2)
    return relative_error(weights.shape[1])


def packed(probabilities: NDArray[np.float32], m: int) -> NDArray[np.uint16]:
    """Return the m largest of (n, C) probabilities, m below C, rounded to the step: (n, 2 m) uint16 rows.

    Of equal probabilities, those of lower classes are taken.
    """
    size = max(1, min(_ROWS, _BLOCK // probabilities.shape[1]))
    parts = [_packed(probabilities[start : start + size], m) for start in range(0, len(probabilities), size)]
    return np.concatenate(parts) if parts else np.empty((0, 2 * m), np.uint16)


def are_packed(rows: NDArray[np.uint16], classes: int) -> bool:
    """Return whether (n, 2 m) rows are as `packed` makes them; only a forged file has others.

    The largest probabilities come first and equal ones in order of their classes; no class occurs twice or does not
    exist; unused places are at the end, and 0. Bounds of R and the cells of records rely on each of these.
    """
    keys = np.ascontiguousarray(rows).view("<u4") ^ _UNUSED  # (2^16 - 1 - multiple) 2^16 + class
    if keys.max(initial=0) > _UNUSED or not ((keys[:, 1:] > keys[:, :-1]) | (keys[:, 1:] == _UNUSED)).all():
        return False
    numbers = keys.astype(np.uint16)
    if numbers.max(initial=0) >= classes:
        return False
    if keys[:, -1].max(initial=0) == _UNUSED:
        numbers = np.where(keys == _UNUSED, classes + np.arange(numbers.shape[1]), numbers).astype(np.uint16)
    numbers.sort(axis=1)
    return bool((numbers[:, 1:] > numbers[:, :-1]).all())


def _packed(probabilities: NDArray[np.float32], m: int) -> NDArray[np.uint16]:
    count, classes = probabilities.shape
    at = np.flatnonzero(_largest(probabilities, m))
    values = probabilities.reshape(-1)[at] * np.float32(1 / STEP)
    multiples = np.minimum(np.rint(values), np.float32(_LARGEST)).astype(np.uint32)
    numbers = (at % classes).astype(np.uint32) * (multiples > 0)
    keys = (_LARGEST - multiples) << np.uint32(16) | numbers
    if len(at) < count * m:
        row, taken, keys = at // classes, keys, np.full((count, m), _LARGEST << 16, np.uint32)  # 0 in unused places
        keys[row, np.arange(len(at)) - np.searchsorted(row, np.arange(count))[row]] = taken
    keys = np.sort(keys.reshape(count, m), axis=1)  # the largest first, then by class
    rows = np.empty((count, m, 2), np.uint16)
    rows[:, :, 0], rows[:, :, 1] = keys & np.uint32(_LARGEST), _LARGEST - (keys >> np.uint32(16))
    return rows.reshape(count, 2 * m)


def _largest(probabilities: NDArray[np.float32], m: int) -> NDArray[np.bool_]:
    """Return which are the m largest of (n, C) probabilities, or those that are not 0 if no row has more: (n, C)."""
    present: NDArray[np.bool_] = probabilities != 0
    if np.count_nonzero(present) <= m * len(present) and np.count_nonzero(present, axis=1).max(initial=0) <= m:
        return present
    classes = probabilities.shape[1]
    border = np.partition(probabilities, classes - m, axis=1)[:, classes - m, None]
    taken = probabilities >= border
    tied = np.flatnonzero(np.count_nonzero(taken, axis=1) > m)
    if len(tied):
        above, equal = probabilities[tied] > border[tied], probabilities[tied] == border[tied]
        free = m - np.count_nonzero(above, axis=1, keepdims=True)
        taken[tied] = above | (equal & (np.cumsum(equal, axis=1) <= free))
    return taken


def exact_relevance(
    weights: NDArray[np.float64],
    query: NDArray[np.int64],
    probabilities: NDArray[np.float32] | PackedRows,
    at: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Compute R as `equations.relevance` does, in bounded memory.

    Args:
        weights: (nq, C), s of each query.
        query, at: (n,) pairs of a query and the place of a record.
        probabilities: the probabilities of N records.

    Returns:
        (n,) float32.
    """
    if isinstance(probabilities, PackedRows):
        return probabilities.exact(weights, query, at)
    r = np.empty(len(query), np.float32)
    size = max(1, _BLOCK // weights.shape[1])
    for start in range(0, len(query), size):
        here = slice(start, start + size)
        r[here] = relevance(weights[query[here]], probabilities[at[here]])
    return r
