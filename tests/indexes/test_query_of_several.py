"""A query made of several images is the mean of their values, less those of others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    joined_query,
)
from semcut.indexes.scoring.equations import hamming
from tests.indexes.generate import PROPERTY, assert_same, classified, filled, threads, worlds

CONFIG = IndexConfig(classes=5, bits=32, dim=8)


def images(count: int, seed: int = 0) -> Encodings:
    return classified(np.random.default_rng(seed), CONFIG, count)


def test_the_values_are_means():
    some = images(5)
    query = joined_query(some)
    assert len(query) == 1
    assert query.ids is None
    np.testing.assert_allclose(query.probabilities[0], some.probabilities.mean(axis=0), rtol=1e-6)
    mean = some.features.mean(axis=0)
    np.testing.assert_allclose(query.features[0], mean / np.linalg.norm(mean), rtol=1e-5)
    majority = np.unpackbits(some.codes, axis=1).sum(axis=0) > 2.5
    np.testing.assert_array_equal(np.unpackbits(query.codes[0]), majority)


def test_one_image_is_its_own_query():
    one = images(1)
    query = joined_query(one)
    np.testing.assert_array_equal(query.codes, one.codes)
    np.testing.assert_allclose(query.features, one.features, rtol=1e-6)
    np.testing.assert_allclose(query.probabilities, one.probabilities, rtol=1e-6)


@settings(PROPERTY)
@given(count=st.integers(1, 7), seed=st.integers(0, 1000))
def test_no_code_is_nearer_to_the_images(count, seed):
    some, query = images(count, seed), joined_query(images(count, seed))
    rng = np.random.default_rng(seed)
    others = np.packbits(np.unpackbits(query.codes, axis=1) ^ (rng.random((50, CONFIG.bits)) < 0.1), axis=1)
    sums = hamming(others[:, None], some.codes[None]).sum(axis=1)
    assert (sums >= hamming(query.codes, some.codes).sum()).all()


def test_features_that_an_index_has_rounded_still_have_length_1_together():
    config = IndexConfig(classes=5, bits=32, dim=64, stored_features="int8")
    with FaissIndex.create(None, config) as index:
        index.add(classified(np.random.default_rng(0), config, 20))
        records = index.get(index.ids()[:4])
        assert not records.normalised()
        assert joined_query(records).normalised()
        assert len(index.search(joined_query(records), ranking="fused")) == 1


def test_ties_of_bits_go_to_the_first_image():
    some = images(2)
    np.testing.assert_array_equal(joined_query(some).codes, some.codes[:1])
    np.testing.assert_array_equal(joined_query(some[[1, 0]]).codes, some.codes[1:])


def test_results_are_less_like_other_images():
    some, others = images(3), images(2, seed=1)
    query = joined_query(some, others, weight=0.25)
    difference = some.features.mean(axis=0) - 0.25 * others.features.mean(axis=0)
    np.testing.assert_allclose(query.features[0], difference / np.linalg.norm(difference), rtol=1e-4)
    clipped = np.maximum(0, some.probabilities.mean(axis=0) - 0.25 * others.probabilities.mean(axis=0))
    np.testing.assert_allclose(query.probabilities[0], clipped / clipped.sum(), rtol=1e-4)
    signs = [2.0 * np.unpackbits(one.codes, axis=1) - 1 for one in (some, others)]
    np.testing.assert_array_equal(
        np.unpackbits(query.codes[0]), signs[0].mean(axis=0) - 0.25 * signs[1].mean(axis=0) > 0
    )
    for nothing in (None, others[:0]):
        np.testing.assert_array_equal(joined_query(some, nothing).features, joined_query(some).features)
    np.testing.assert_array_equal(joined_query(some, others, weight=0).features, joined_query(some).features)


@settings(PROPERTY)
@given(world=worlds(rows=(1, 40), queries=(1, 6)))
def test_every_index_answers_a_joined_query(world):
    """Of any widths, masses and features; and a search with it is a search with any other query."""
    try:
        query = joined_query(world.queries, world.records[:2])
    except InvalidParameterError:  # opposite features, or images without any class
        return
    with threads(1), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        assert_same(index.search(query, k=5), world.reference.search(query, k=5))


def test_wrong_arguments_are_one_error():
    some = images(2)
    with pytest.raises(InvalidParameterError, match="queries = no images, expected at least one"):
        joined_query(some[:0])
    for weight in (-0.1, 1.1, float("nan"), "much"):
        with pytest.raises(InvalidParameterError, match="weight"):
            joined_query(some, some, weight=weight)
    with pytest.raises(InvalidParameterError, match="expected an instance of Encodings"):
        joined_query([some])
    wide = classified(np.random.default_rng(0), IndexConfig(classes=5, bits=32, dim=9), 1)
    with pytest.raises(InvalidEncodingsError, match="features of less_like have 9 columns, expected 8"):
        joined_query(some, wide)
    with pytest.raises(InvalidParameterError, match="cancel each other out"):
        joined_query(some, some, weight=1)
    opposite = Encodings(
        probabilities=some.probabilities, codes=some.codes, features=some.features[[0, 0]] * np.float32([[1], [-1]])
    )
    with pytest.raises(InvalidParameterError, match="cancel each other out"):
        joined_query(opposite)
