"""The fast float32 comparisons stay within their error bounds of the exact values."""

from __future__ import annotations

import math

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes.scoring.rounding import UNDERFLOW, Products, inner_products, relative_error, squared_distances
from tests.indexes.generate import PROPERTY, features, probabilities, threads

seeds = st.integers(0, 2**32 - 1)
thread_counts = st.sampled_from([1, 2, 3, 5])


def some_rows(rng: np.random.Generator, count: int, width: int, records: int) -> np.ndarray:
    """Return (count, width) rows, a fifth of them -1."""
    rows = rng.integers(0, records, (count, width))
    rows[rng.random(rows.shape) < 0.2] = -1
    return rows


@PROPERTY
@given(
    seed=seeds,
    dim=st.one_of(st.integers(1, 130), st.just(2000)),
    count=st.integers(1, 4),
    width=st.integers(0, 23),
    scale=st.sampled_from([1e-30, 1e-22, 1e-10, 1, 1e10, 1e18]),
    parts=thread_counts,
)
def test_squared_distances_are_within_their_bound(seed, dim, count, width, scale, parts):
    rng = np.random.default_rng(seed)
    queries = features(rng, count, dim, normalised=True) * np.float32(scale)
    matrix = features(rng, 30, dim, normalised=True) * np.float32(scale)
    matrix[:5] = queries[0]  # equal and nearly equal ones
    matrix[2:5, 0] = np.nextafter(matrix[2:5, 0], np.float32(np.inf))
    rows = some_rows(rng, count, width, len(matrix))
    with threads(parts):
        found = squared_distances(queries, matrix, rows)
    assert found.dtype == np.float32
    assert found.shape == rows.shape
    exact = ((queries[:, None].astype(np.float64) - matrix[rows].astype(np.float64)) ** 2).sum(axis=2)
    assert np.isposinf(found[rows < 0]).all()
    present = rows >= 0
    assert (np.abs(found - exact)[present] <= exact[present] * relative_error(dim) + UNDERFLOW).all()


@PROPERTY
@given(
    seed=seeds,
    classes=st.one_of(st.integers(2, 40), st.just(1000)),
    count=st.integers(1, 4),
    width=st.integers(0, 23),
    scale=st.sampled_from([1e-30, 1e-6, 1, 50, 1e6]),
    parts=thread_counts,
)
def test_inner_products_of_values_that_are_not_negative_are_within_their_bound(
    seed, classes, count, width, scale, parts
):
    rng = np.random.default_rng(seed)
    weights = probabilities(rng, count, classes).astype(np.float64) * scale  # rounded to float32 like a search does
    matrix = probabilities(rng, 30, classes)
    rows = some_rows(rng, count, width, len(matrix))
    with threads(parts):
        found = inner_products(weights.astype(np.float32), matrix, rows)
    assert found.dtype == np.float32
    exact = (weights[:, None] * matrix[rows].astype(np.float64)).sum(axis=2)
    present = rows >= 0
    assert (found[~present] == 0).all()
    assert (np.abs(found - exact)[present] <= exact[present] * relative_error(classes) + UNDERFLOW).all()


@PROPERTY
@given(seed=seeds, classes=st.integers(2, 300), scale=st.sampled_from([1e-30, 1, 1e6]), count=st.integers(0, 40))
def test_products_with_a_whole_matrix_are_within_their_bound(seed, classes, scale, count):
    rng = np.random.default_rng(seed)
    weights = probabilities(rng, count, classes).astype(np.float64) * scale
    matrix = probabilities(rng, int(rng.integers(1, 50)), classes)
    found = Products(matrix)(weights.astype(np.float32))
    assert found.dtype == np.float32
    exact = weights @ matrix.T.astype(np.float64)
    assert found.shape == exact.shape
    assert (np.abs(found - exact) <= exact * relative_error(classes) + UNDERFLOW).all()


def test_products_keep_their_own_copy_of_the_matrix():
    matrix = np.eye(3, dtype=np.float32)
    products = Products(matrix)
    matrix[:] = 7
    assert products(np.array([[1, 2, 3]], np.float32)).tolist() == [[1, 2, 3]]


def test_products_accept_matrices_and_queries_of_any_layout():
    rng = np.random.default_rng(0)
    matrix, queries = rng.random((6, 8)).astype(np.float32), rng.random((10, 8)).astype(np.float32)
    expected = Products(matrix)(queries)
    np.testing.assert_array_equal(Products(np.asfortranarray(matrix))(np.asfortranarray(queries)), expected)
    np.testing.assert_array_equal(Products(matrix)(np.repeat(queries, 2, axis=0)[::2]), expected)


@pytest.mark.parametrize("function", [squared_distances, inner_products])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 8, 9, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8, 16])
def test_one_query_split_over_threads_gives_what_it_gives_on_one(function, width, parts):
    rng = np.random.default_rng(width)
    query, matrix = rng.random((1, 5)).astype(np.float32), rng.random((40, 5)).astype(np.float32)
    rows = some_rows(rng, 1, width, 40)
    with threads(1):
        expected = function(query, matrix, rows)
    with threads(parts):
        assert faiss.omp_get_max_threads() == parts
        found = function(query, matrix, rows)
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("function", [squared_distances, inner_products])
def test_no_queries_give_no_values(function):
    found = function(np.empty((0, 5), np.float32), np.ones((3, 5), np.float32), np.empty((0, 4), np.int64))
    assert found.shape == (0, 4)


@pytest.mark.parametrize("function", [squared_distances, inner_products])
def test_rows_of_a_read_only_memory_mapped_matrix_are_read_in_place(function, tmp_path):
    matrix = np.random.default_rng(1).random((50, 6)).astype(np.float32)
    matrix.tofile(tmp_path / "matrix")
    mapped = np.memmap(tmp_path / "matrix", np.float32, "r", shape=(50, 6))
    rows = np.array([[0, 49, -1], [3, 3, 20]])
    np.testing.assert_array_equal(function(matrix[:2], mapped, rows), function(matrix[:2], matrix, rows))
    np.testing.assert_array_equal(mapped, matrix)


@pytest.mark.parametrize("function", [squared_distances, inner_products])
def test_queries_and_rows_may_have_any_layout(function):
    rng = np.random.default_rng(2)
    queries, matrix = rng.random((4, 6)).astype(np.float32), rng.random((9, 6)).astype(np.float32)
    rows = rng.integers(-1, 9, (4, 5))
    expected = function(queries, matrix, rows)
    np.testing.assert_array_equal(function(np.asfortranarray(queries), matrix, np.asfortranarray(rows)), expected)
    np.testing.assert_array_equal(function(queries, matrix, np.repeat(rows, 2, axis=1)[:, ::2]), expected)


def test_the_bound_covers_the_largest_rounding_error_of_a_float32_sum():
    terms = 10_000
    values = np.full((1, terms), np.float32(1 / 3))
    in_order = np.float32(0)
    for value in values[0]:
        in_order += value * np.float32(1)
    exact = math.fsum(values[0].tolist())
    assert abs(float(in_order) - exact) <= exact * relative_error(terms)
