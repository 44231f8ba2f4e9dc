"""`PackedRows`: the largest probabilities of records, as an index stores them, and relevance (Eq. 1) by them.

`stored_values` says which are stored. Where an index stores all of them, the same functions take a matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.scoring.equations import relevance
from semcut.indexes.scoring.rounding import inner_products

STEP = 2.0**-16
"""The step of stored probabilities."""

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

    def values(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the classes and their probabilities: (n, m) int64 and (n, m) float32.

        Classes that do not exist, which only a forged file has, get the probability 0.
        """
        classes = self.rows[:, ::2].astype(np.int64)
        values = self.rows[:, 1::2].astype(np.float32) * np.float32(STEP)
        forged = classes >= self.classes
        if forged.any():
            classes[forged], values[forged] = 0, 0
        return classes, values

    def dense(self) -> NDArray[np.float32]:
        """Return all probabilities: (n, C) float32."""
        classes, values = self.values()
        matrix = np.zeros((len(classes), self.classes), np.float32)
        for place in reversed(range(classes.shape[1])):  # unused places come last, and must not overwrite class 0
            used = values[:, place] > 0
            matrix[used, classes[used, place]] = values[used, place]
        return matrix

    def products(self, weights: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute R = s . p of each query and its records: (nq, C), (nq, k) to (nq, k) float32; 0 for a place of -1."""
        classes, values = self.values()
        found = np.zeros(at.shape, np.float64)
        if len(classes):
            query = np.arange(len(weights))[:, None]
            for place in range(classes.shape[1]):
                found += weights[query, classes[at, place]] * values[at, place]
            found[at < 0] = 0
        return found.astype(np.float32)


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
        return PackedRows(probabilities.rows[at], probabilities.classes).dense()
    return probabilities[at]


def packed(probabilities: NDArray[np.float32], m: int) -> NDArray[np.uint16]:
    """Return (n, C) stored probabilities, of which m in a row are not 0 at most, as (n, 2 m) uint16 rows."""
    multiples = np.rint(probabilities * np.float32(1 / STEP)).astype(np.uint16)
    row, column = np.nonzero(multiples)
    rows = np.zeros((len(probabilities), 2 * m), np.uint16)
    order = np.argsort(row * (1 << 16) + (65_535 - multiples[row, column].astype(np.int64)), kind="stable")
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, np.arange(len(probabilities)))[row]
    kept = place < m
    row, column, place = row[kept], column[kept], place[kept]
    rows[row, 2 * place] = column
    rows[row, 2 * place + 1] = multiples[row, column]
    return rows


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
