"""Fast float32 comparisons of queries with rows of a matrix, and how far they can be off.

A search uses them to decide what certainly counts and what certainly does not; the exact functions of `relevance` are
called for the few in between and for the results. FAISS computes them in C++: chosen rows are read in place, straight
from a (memory-mapped) column, and no candidate is copied.

Products with a whole matrix go through FAISS too, not through numpy's `@`: numpy brings its own OpenBLAS, whose
threads spin for a while after a product and slow down a scan of FAISS's threads that follows, by a factor of 3 on 2
cores. FAISS's BLAS shares the threads of its scans.

Source: FAISS `fvec_L2sqr_by_idx`, `fvec_inner_products_by_idx` (faiss/utils/distances.h) and `LinearTransform`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.faiss_library import faiss

UNDERFLOW = 2.0**-100
"""More than all terms of a sum that underflow in float32 can come to."""


def error(terms: int) -> float:
    """Relative error bound of the results below and of a float32 sum of so many products that are not negative.

    Each of the terms carries at most three roundings of 2^-24, and the sum one per addition; the bound is twice that.
    """
    return (terms + 8) * 2.0**-23


def squared_distances(
    queries: NDArray[np.float32], matrix: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """||q - x||^2 of each query and its rows: (nq, D), (N, D), (nq, m) to (nq, m) float32; inf where a row is -1."""
    return _by_row(faiss.fvec_L2sqr_by_idx, queries, matrix, rows, np.inf)


def inner_products(
    queries: NDArray[np.float32], matrix: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """q . x of each query and its rows: (nq, D), (N, D), (nq, m) to (nq, m) float32; 0 where a row is -1."""
    return _by_row(faiss.fvec_inner_products_by_idx, queries, matrix, rows, 0)


class Products:
    """q . x for every row x of a fixed matrix.

    Args:
        matrix: (N, C) float32, copied.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._rows, width = matrix.shape
        self._transform = faiss.LinearTransform(width, self._rows, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(matrix).reshape(-1), self._transform.A)
        self._transform.is_trained = True

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """(nq, C) to (nq, N) float32."""
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
    count, width = rows.shape
    if not rows.size:
        return np.empty(rows.shape, np.float32)
    parts = faiss.omp_get_max_threads() if count == 1 else 1  # FAISS runs one thread per query
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
