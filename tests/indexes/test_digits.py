"""Recorded data: scikit-learn's handwritten digits, encoded without a network.

Probabilities come from a logistic regression that is fitted to one half of the digits, codes are signs of random
projections, and features are the pixels. The other half is indexed and searched.
"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig
from tests.indexes.generate import World, assert_same, assert_shortlist

CUTOFFS = [0.0, 0.05, 0.2, 0.5, 0.9]


@pytest.fixture(scope="module")
def digits():
    """Return encodings of 898 digits in three batches, 150 of them as queries, and the labels of the digits by id."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels / 16
    model = LogisticRegression(max_iter=300, C=0.05).fit(pixels[::2], labels[::2])
    pixels, labels = pixels[1::2], labels[1::2]
    centred = pixels - pixels.mean(axis=0)
    bits = centred @ np.random.default_rng(0).standard_normal((64, 64)) > 0
    records = Encodings(
        probabilities=model.predict_proba(pixels),
        codes=np.packbits(bits, axis=1),
        features=pixels / np.linalg.norm(pixels, axis=1, keepdims=True),
        ids=np.arange(len(pixels)),
    )
    world = World(
        config=IndexConfig(classes=10, bits=64, dim=64, stored_features="float32"),
        batches=[records[:1], records[1:600], records[600:]],
        queries=records[::6],
        normalised=True,
        seed=0,
    )
    return world, labels


@pytest.fixture(scope="module")
def indexes(digits, tmp_path_factory):
    """Return a brute-force index of the digits, and a stored index of them that was opened again."""
    world, _ = digits
    reference = world.brute_force()
    path = tmp_path_factory.mktemp("digits")
    with FaissIndex.create(path, world.config) as written:
        for batch in world.batches:
            written.add(batch)
    with FaissIndex.open(path) as index:
        yield reference, index


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("ranking", ["distance", "fused"])
@pytest.mark.parametrize("k", [1, 10, 900])
def test_without_a_shortlist_both_indexes_give_the_same(digits, indexes, cutoff, ranking, k):
    (world, _), (reference, index) = digits, indexes
    options = {"k": k, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
    assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("n", [1, 20, 100])
def test_shortlists_are_those_of_brute_force(digits, indexes, cutoff, n):
    (world, _), (reference, index) = digits, indexes
    options = {"k": n, "cutoff": cutoff, "shortlist": n}
    found, expected = index.search(world.queries, **options), reference.search(world.queries, **options)
    assert_same(found, expected)
    k = max(1, n // 10)
    for ranking in ("distance", "fused"):
        result = index.search(world.queries, k=k, cutoff=cutoff, shortlist=n, ranking=ranking, fill=False)
        assert_shortlist(result, world, k=k, cutoff=cutoff, shortlist=n, ranking=ranking)


def test_a_digit_that_is_in_the_index_is_its_own_nearest(digits, indexes):
    (world, _), (_, index) = digits, indexes
    result = index.search(world.queries, k=1, cutoff=0.05)
    assert (result.distances == 0).all()
    np.testing.assert_array_equal(result.ids[:, 0], world.queries.ids)


def test_most_of_what_is_found_shows_the_same_digit(digits, indexes):
    (world, labels), (_, index) = digits, indexes
    result = index.search(world.queries, k=10, cutoff=0.2)
    found = result.ids >= 0
    same = labels[result.ids] == labels[world.queries.ids][:, None]
    assert same[found].mean() > 0.9


def test_pruning_spares_most_of_the_records(digits, indexes):
    (world, _), (_, index) = digits, indexes
    scanned = index.search(world.queries, k=10, cutoff=0.2).codes
    assert scanned.mean() < 0.5 * len(index)


def test_a_mapping_of_similar_digits_finds_both(digits):
    world, labels = digits
    similarity = np.eye(10)
    similarity[3, 8] = similarity[8, 3] = 1
    config = IndexConfig(classes=10, bits=64, dim=64, similarity=similarity)
    with FaissIndex.create(None, config) as index:
        reference = BruteForceIndex(config)
        for one in (index, reference):
            one.add(world.records)
        threes = world.queries[labels[world.queries.ids] == 3]
        options = {"k": 300, "cutoff": 0.2, "shortlist": None}
        result = index.search(threes, **options)
        assert_same(result, reference.search(threes, **options))
    assert {3, 8} <= set(labels[result.ids[result.ids >= 0]].tolist())
