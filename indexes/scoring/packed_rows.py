"""`PackedRows`: the largest probabilities of records, as an index stores them, and relevance (Eq. 1) by them.

`stored_values` says which are stored. Where an index stores all of them, the same functions take a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.scoring.equations import relevance
from semcut.indexes.scoring.rounding import UNDERFLOW, inner_products, relative_error

STEP = 2.0**-16
"""The step of stored probabilities."""

_LARGEST = 65_535
_FIRST = 4
"""How many probabilities of a record bound its R, before it is computed."""
_ROWS = 1 << 13
_BLOCK = 1 << 20
"""Values of dense rows that are computed together, which take 20 bytes each."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The largest probabilities of n records, as they are stored.

    Attributes:
        rows: (n, 2 m) uint16: m pairs of a class and a multiple of `STEP`, the largest first.
        classes: C.
    """

    rows: NDArray[np.uint16]
    classes: int

    def place(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the class and the probability at one place of every row: (n,) int64 and (n,) float32.

        A class that does not exist, which only a forged file has, becomes class 0 with the probability 0.
        """
        classes = self.rows[:, 2 * place].astype(np.int64)
        values = self.rows[:, 2 * place + 1] * np.float32(STEP)
        forged = classes >= self.classes
        if forged.any():
            classes[forged], values[forged] = 0, 0
        return classes, values

    def taken(self, at: NDArray[np.int64]) -> PackedRows:
        """Return the rows at (n,) places."""
        return PackedRows(self.rows[at], self.classes)

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
        width = self.rows.shape[1]
        size = max(1, _BLOCK // width)
        for start in range(0, len(query), size):
            some = query[start : start + size]
            rows, total = self.taken(at[some, column[start : start + size]]), np.zeros(len(some))
            for place in range(width // 2):
                classes, values = rows.place(place)
                total += weights[some, classes] * values
            found[some, column[start : start + size]] = total
        return found

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
        largest, slack = weights.max(axis=1), relative_error(weights.shape[1])
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


def _dense(probabilities: NDArray[np.float32] | PackedRows, at: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return all probabilities of the records at (n,) places: (n, C) float32."""
    if isinstance(probabilities, PackedRows):
        return probabilities.taken(at).dense()
    return probabilities[at]


def packed(probabilities: NDArray[np.float32], m: int) -> NDArray[np.uint16]:
    """Return the m largest of (n, C) probabilities, m below C, rounded to the step: (n, 2 m) uint16 rows.

    Of equal probabilities, those of lower classes are taken.
    """
    parts = [_packed(probabilities[start : start + _ROWS], m) for start in range(0, len(probabilities), _ROWS)]
    return np.concatenate(parts) if parts else np.empty((0, 2 * m), np.uint16)


def _packed(probabilities: NDArray[np.float32], m: int) -> NDArray[np.uint16]:
    count, classes = probabilities.shape
    border = np.partition(probabilities, classes - m, axis=1)[:, classes - m, None]
    taken = probabilities >= border
    tied = np.flatnonzero(np.count_nonzero(taken, axis=1) > m)
    if len(tied):
        above, equal = probabilities[tied] > border[tied], probabilities[tied] == border[tied]
        free = m - np.count_nonzero(above, axis=1, keepdims=True)
        taken[tied] = above | (equal & (np.cumsum(equal, axis=1) <= free))
    at = np.flatnonzero(taken)
    values = probabilities.reshape(-1)[at].reshape(count, m) * np.float32(1 / STEP)
    multiples = np.minimum(np.rint(values), np.float32(_LARGEST)).astype(np.uint32)
    numbers = (at % classes).astype(np.uint32).reshape(count, m) * (multiples > 0)
    keys = np.sort((_LARGEST - multiples) << np.uint32(16) | numbers, axis=1)  # the largest first, then by class
    rows = np.empty((count, m, 2), np.uint16)
    rows[:, :, 0], rows[:, :, 1] = keys & np.uint32(_LARGEST), _LARGEST - (keys >> np.uint32(16))
    return rows.reshape(count, 2 * m)


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
    r = np.empty(len(query), np.float32)
    size = max(1, _BLOCK // weights.shape[1])
    for start in range(0, len(query), size):
        here = slice(start, start + size)
        r[here] = relevance(weights[query[here]], _dense(probabilities, at[here]))
    return r
