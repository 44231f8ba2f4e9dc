"""Relevance of packed rows has the bits of the equation over all classes, and costs what is stored."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.scoring.equations import relevance
from semcut.indexes.scoring.packed_rows import PackedRows, are_packed, exact_relevance, packed
from tests.indexes.generate import PROPERTY

CLASSES = 10_000


def halfway(weights, row):
    """Scale weights so that their sum for a row is as near as possible to the middle of two float32 values."""
    total = np.vecdot(weights, row.astype(np.float64))
    value = np.float32(total)
    return weights * ((np.float64(value) + np.float64(np.nextafter(value, np.float32(np.inf)))) / 2 / total)


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 400),
    m=st.integers(1, 60),
    queries=st.integers(1, 3),
    exponents=st.sampled_from([0, 3, 40]),
)
def test_exact_relevance_of_packed_rows_has_the_bits_of_the_equation(seed, classes, m, queries, exponents):
    rng, m = np.random.default_rng(seed), min(m, classes - 1)
    probabilities = rng.dirichlet(np.full(classes, 0.1), 200).astype(np.float32)
    probabilities[::7] = probabilities[0]
    rows = PackedRows(packed(probabilities, m), classes)
    dense = rows.dense()
    weights = rng.random((queries, classes)) * 2.0 ** -rng.integers(0, exponents + 1, (queries, classes))
    for query in range(queries):
        weights[query] = halfway(weights[query], dense[0])
    query, at = rng.integers(0, queries, 300), rng.integers(0, 200, 300)
    np.testing.assert_array_equal(exact_relevance(weights, query, rows, at), relevance(weights[query], dense[at]))


def test_sums_that_only_their_order_decides_have_the_bits_of_the_equation():
    """Rows of different classes whose sums are at the middle of two float32 values, up to the rounding of float64."""
    rng, classes, n = np.random.default_rng(0), 1000, 5000
    rows = np.zeros((n, 12), np.uint16)
    rows[:, ::2] = np.argsort(rng.random((n, classes)), axis=1)[:, :6]
    rows[:, 1::2] = [20_011, 15_013, 9_001, 7_019, 5_003, 3_001]
    weights = np.full(classes, 0.7) * (1 + rng.integers(-3, 4, classes) * 2.0**-52)
    stored = PackedRows(rows, classes)
    weights = halfway(weights, stored.dense()[0])[None]
    query, at = np.zeros(n, np.int64), np.arange(n)
    expected = relevance(weights, stored.dense())
    assert len(np.unique(expected)) == 2
    np.testing.assert_array_equal(exact_relevance(weights, query, stored, at), expected)


@pytest.mark.parametrize("factor", [0, 1, 1 + 2.0**-20], ids=["none", "middle", "near"])
def test_relevance_of_packed_rows_takes_memory_for_what_is_stored(factor):
    """Matrices of all classes would take 20 MB; of 0, and of sums that no order changes, none is made."""
    rows = np.zeros((2000, 8), np.uint16)
    rows[:, ::2], rows[:, 1::2] = np.arange(4), 16_000
    stored = PackedRows(rows, CLASSES)
    weights = np.zeros((1, CLASSES))
    weights[0, :4] = 0.3
    weights = halfway(weights[0], stored.taken(np.zeros(1, np.int64)).dense()[0])[None] * factor
    query, at = np.zeros(len(rows), np.int64), np.arange(len(rows))
    tracemalloc.start()
    exact_relevance(weights, query, stored, at)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (2 << 20 if factor == 1 else 500 << 10)


@pytest.mark.parametrize("engine", ["faiss", "compiled"])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
@pytest.mark.parametrize(("value", "cutoff", "hits"), [(0, 0.0, 0), (0.75, 0.375, 0), (0.75, 0.37499, 3)])
def test_a_search_at_the_cutoff_takes_memory_for_what_is_stored(engine, ranking, value, cutoff, hits):
    """Records of 10,000 classes with R = 0, and at or near the cutoff: a matrix of 100 of them would take 20 MB."""
    config = IndexConfig(classes=CLASSES, bits=32, dim=2, stored_probabilities=2, stored_features="int8")
    probabilities = np.zeros((300, CLASSES), np.float32)
    probabilities[:, 0], probabilities[:, 1] = value, 0.125
    batch = Encodings(
        probabilities=probabilities, codes=np.zeros((300, 4), np.uint8),
        features=np.full((300, 2), np.sqrt(0.5), np.float32), ids=np.arange(300), any_mass=True,
    )  # fmt: skip
    wanted = np.zeros((1, CLASSES), np.float32)
    wanted[0, 0] = 0.5
    query = Encodings(probabilities=wanted, codes=batch.codes[:1], features=batch.features[:1], any_mass=True)
    with FaissIndex.create(None, config, engine=engine) as index:
        index.add(batch)
        index.search(query, k=3, cutoff=0.1)
        tracemalloc.start()
        found = index.search(query, k=3, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.ids[0].tolist() == [0, 1, 2][:hits] + [-1] * (3 - hits)
    assert peak < 4 << 20


def is_packed(row: list[int], classes: int) -> bool:
    """Say literally what `are_packed` says of one row."""
    pairs = [(row[at + 1], row[at]) for at in range(0, len(row), 2)]
    used = [pair for pair in pairs if pair[0]]
    return (
        pairs == used + [(0, 0)] * (len(pairs) - len(used))
        and used == sorted(used, key=lambda pair: (-pair[0], pair[1]))
        and len({number for _, number in used}) == len(used)
        and all(number < classes for _, number in used)
    )


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.sampled_from([2, 3, 7, 40, 10_000]),
    m=st.integers(1, 30),
    changes=st.integers(0, 3),
)
def test_rows_are_packed_exactly_where_they_are_as_semcut_writes_them(seed, classes, m, changes):
    rng, m = np.random.default_rng(seed), min(m, classes - 1)
    probabilities = rng.dirichlet(np.full(classes, 0.05), 4).astype(np.float32)
    probabilities[0] = np.rint(probabilities[0] * 8) / 8
    rows = packed(probabilities, m)
    assert are_packed(rows, classes)
    assert are_packed(rows[:0], classes)
    for _ in range(changes):
        row, column = rng.integers(0, rows.shape[0]), rng.integers(0, rows.shape[1])
        others = [0, 1, classes - 1, classes, 65_535, *rows[row].tolist()]
        rows[row, column] = rng.choice(others)
    for row in rows:
        assert are_packed(row[None], classes) == is_packed(row.tolist(), classes)
    assert are_packed(rows, classes) == all(is_packed(row, classes) for row in rows.tolist())
