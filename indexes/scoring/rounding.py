"""Compute distances and products fast in float32 with FAISS, and bound how far they are from the exact values.

A search uses these values to find the records that certainly are, and that certainly are not, above a threshold. For
the few records in between, and for its results, it calls the exact functions of `equations`. FAISS computes the sums in
C++ and reads the chosen rows in place, from a (memory-mapped) column, so no candidate is copied.

Products with a whole matrix are computed by FAISS too, not by numpy's `@`. Numpy has its own OpenBLAS, whose threads
keep running for a while after a product and slow down a following scan by FAISS's threads, by a factor of 3 on 2 cores.
FAISS's BLAS uses the threads of FAISS's scans.

Source: FAISS `fvec_L2sqr_by_idx`, `fvec_inner_products_by_idx` (faiss/utils/distances.h) and `LinearTransform`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.faiss_library import faiss, thread_count

SUM_ERROR = 2.0**-51
"""Relative error bound per term of a float64 sum whose terms are not negative."""

UNDERFLOW = 2.0**-100
"""A bound on the sum of the terms that underflow in a float32 sum."""


def relative_error(terms: int) -> float:
    """Return a relative error bound of the functions below, and of any float32 sum of products that are not negative.

    Each term carries at most three roundings of 2^-24, and the sum one per addition; the bound is twice that.

    Args:
        terms: the number of terms of the sum.
    """
    return (terms + 8) * 2.0**-23


def squared_distances(
    queries: NDArray[np.float32], matrix: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute ||q - x||^2 of each query and its rows: (nq, D), (N, D), (nq, m) to (nq, m) float32; inf for row -1."""
    return _by_row(faiss.fvec_L2sqr_by_idx, queries, matrix, rows, np.inf)


def inner_products(
    queries: NDArray[np.float32], matrix: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Compute q . x of each query and its rows: (nq, D), (N, D), (nq, m) to (nq, m) float32; 0 for row -1."""
    return _by_row(faiss.fvec_inner_products_by_idx, queries, matrix, rows, 0)


class Products:
    """Computes q . x for every row x of a fixed matrix.

    Args:
        matrix: (N, C) float32, copied.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._rows, width = matrix.shape
        self._transform = faiss.LinearTransform(width, self._rows, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(matrix).reshape(-1), self._transform.A)
        self._transform.is_trained = True

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Multiply (nq, C) queries with the matrix: (nq, N) float32."""
        queries = np.ascontiguousarray(queries)
        values = np.empty((len(queries), self._rows), np.float32)
        if values.size:
            self._transform.apply_noalloc(len(queries), faiss.swig_ptr(queries), faiss.swig_ptr(values))
        return values


def _by_row(
    function: Callable[..., None],
    queries: NDArray[np.float32],
    matrix: NDArray[np.float32],
    rows: NDArray[np.int64],
    absent: float,
) -> NDArray[np.float32]:
    """Call a function of FAISS for each query and its rows; rows of -1 get the value `absent`.

    FAISS runs one thread per query, so the rows of a single query are split into as many queries as there are threads.
    """
    count, width = rows.shape
    if not rows.size:
        return np.empty(rows.shape, np.float32)
    parts = thread_count() if count == 1 else 1
    if parts > 1:
        padding = np.full((1, -width % parts), -1, np.int64)
        rows = np.concatenate([rows, padding], axis=1).reshape(parts, -1)
        queries = np.repeat(queries, parts, axis=0)
    rows, queries = np.ascontiguousarray(rows), np.ascontiguousarray(queries)
    values = np.empty(rows.shape, np.float32)
    pointers: list[Any] = [faiss.swig_ptr(array) for array in (values, queries, matrix, rows)]
    function(*pointers, queries.shape[1], *rows.shape)
    values[rows < 0] = absent
    return values.reshape(count, -1)[:, :width]
