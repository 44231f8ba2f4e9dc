"""The equations are compared with the same formulas in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semcut.indexes import IndexConfig
from semcut.indexes.scoring.equations import Similarity, distance, fused_score, hamming, is_relevant, relevance
from tests.indexes.generate import PROPERTY, configs, features, probabilities

seeds = st.integers(0, 2**32 - 1)


def assert_rounded(found: np.ndarray, exact: list[float]) -> None:
    """Assert that float32 values are the exact values, rounded: they differ by at most one float32 step."""
    assert found.dtype == np.float32
    expected = np.array(exact, np.float64).reshape(found.shape)
    assert (np.abs(found - expected) <= np.spacing(np.abs(expected).astype(np.float32))).all()


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


# Eq. 1


@PROPERTY
@given(config=configs(), seed=seeds)
def test_relevance_is_the_sum_over_both_images_probabilities_and_s(config, seed):
    rng = np.random.default_rng(seed)
    a, b = probabilities(rng, 4, config.classes), probabilities(rng, 5, config.classes)
    if config.similarity is not None:
        s = [list(row) for row in config.similarity]
    else:
        total = 1 if config.prior is None else math.fsum(config.prior)
        prior = config.prior or [1 / config.classes] * config.classes
        s = [
            [1 / (config.classes * p / total) if i == j else 0.0 for j in range(config.classes)]
            for i, p in enumerate(prior)
        ]
    exact = [
        math.fsum(
            float(pa[i]) * s[i][j] * float(pb[j])
            for i in range(config.classes)
            for j in (range(config.classes) if config.similarity is not None else [i])
        )
        for pa in a
        for pb in b
    ]
    weights = Similarity(config).weights(a)
    assert_rounded(relevance(weights[:, None], b[None]), exact)


def test_by_default_relevance_is_the_probability_of_the_same_label():
    a, b = np.array([[0.5, 0.25, 0.25]], np.float32), np.array([[0.125, 0.5, 0.375]], np.float32)
    weights = Similarity(IndexConfig(classes=3, bits=32, dim=1)).weights(a)
    assert relevance(weights, b).tolist() == [0.5 * 0.125 + 0.25 * 0.5 + 0.25 * 0.375]


def test_relevance_of_two_sure_images_of_one_class_is_1_whatever_the_number_of_classes():
    for classes in (2, 12, 1000):
        a = np.eye(classes, dtype=np.float32)[:1]
        weights = Similarity(IndexConfig(classes=classes, bits=32, dim=1)).weights(a)
        assert relevance(weights, a).tolist() == [1]


def test_a_prior_divides_by_the_classes_and_the_prior():
    config = IndexConfig(classes=2, bits=32, dim=1, prior=(0.25, 0.75))
    weights = Similarity(config).weights(np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32))
    np.testing.assert_allclose(weights, [[2, 0], [0, 2 / 3], [1, 1 / 3]], rtol=1e-15)


def test_a_prior_need_not_sum_to_1():
    p = probabilities(np.random.default_rng(0), 20, 3)
    one = Similarity(IndexConfig(classes=3, bits=32, dim=1, prior=(1, 2, 5))).weights(p)
    other = Similarity(IndexConfig(classes=3, bits=32, dim=1, prior=(0.125, 0.25, 0.625))).weights(p)
    np.testing.assert_allclose(one, other, rtol=1e-14)


@PROPERTY
@given(seed=seeds, classes=st.integers(2, 200), height=st.sampled_from([1, 0.1, 7, 1e-6]))
def test_a_uniform_prior_is_the_default(seed, classes, height):
    p = probabilities(np.random.default_rng(seed), 10, classes)
    default = Similarity(IndexConfig(classes=classes, bits=32, dim=1)).weights(p)
    uniform = Similarity(IndexConfig(classes=classes, bits=32, dim=1, prior=(height,) * classes)).weights(p)
    np.testing.assert_allclose(uniform, default, rtol=1e-13)


def test_a_similarity_lets_different_classes_match():
    config = IndexConfig(classes=3, bits=32, dim=1, similarity=[[1, 0.5, 0], [0.5, 1, 0], [0, 0, 2]])
    sure = np.eye(3, dtype=np.float32)
    weights = Similarity(config).weights(sure)
    assert relevance(weights[:, None], sure[None]).tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 2]]


def test_the_identity_as_similarity_is_the_default():
    p = probabilities(np.random.default_rng(1), 30, 5)
    plain = Similarity(IndexConfig(classes=5, bits=32, dim=1)).weights(p)
    identity = Similarity(IndexConfig(classes=5, bits=32, dim=1, similarity=np.eye(5))).weights(p)
    np.testing.assert_array_equal(identity, plain)


def test_weights_leave_the_queries_as_they_are():
    p = probabilities(np.random.default_rng(1), 30, 5)
    before = p.copy()
    Similarity(IndexConfig(classes=5, bits=32, dim=1, prior=(1, 2, 3, 4, 5))).weights(p)
    np.testing.assert_array_equal(p, before)


# Eq. 2


@given(value=st.floats(0, 1, width=32))
def test_the_cutoff_is_strict(value):
    at = np.array([value], np.float32)
    assert not is_relevant(at, value).any()
    assert is_relevant(np.nextafter(at, np.float32(2)), value).all()
    assert not is_relevant(np.nextafter(at, np.float32(-1)), value).any()


def test_the_cutoff_is_compared_in_float32():
    assert not is_relevant(np.array([0.2], np.float32), 0.2)[0]  # though 0.2 in float32 is above 0.2 in float64
    assert not is_relevant(np.array([0.2], np.float32), 0.2 - 1e-12)[0]


def test_nothing_is_relevant_at_relevance_0():
    assert is_relevant(np.array([0, 1e-45], np.float32), 0.0).tolist() == [False, True]


# distance and Eq. 4


@PROPERTY
@given(seed=seeds, dim=st.integers(1, 70), normalised=st.booleans())
def test_distance_is_euclidean(seed, dim, normalised):
    rng = np.random.default_rng(seed)
    a, b = features(rng, 4, dim, normalised=normalised), features(rng, 5, dim, normalised=normalised)
    exact = [math.sqrt(math.fsum((float(x) - float(y)) ** 2 for x, y in zip(u, v, strict=True))) for u in a for v in b]
    assert_rounded(distance(a[:, None], b[None]), exact)


def test_distance_is_symmetric_and_0_to_itself():
    values = features(np.random.default_rng(0), 30, 9, normalised=False)
    same_bits(distance(values[:, None], values[None]), distance(values[None], values[:, None]))
    assert (distance(values, values) == 0).all()


@given(r=st.floats(0, 50, width=32), d=st.floats(0, 2, width=32))
def test_the_fused_score_is_relevance_times_closeness(r, d):
    found = fused_score(np.array([r], np.float32), np.array([d], np.float32))
    assert_rounded(found, [r * (1 - d / 2)])


def test_the_fused_score_is_never_negative():
    assert fused_score(np.array([0.5], np.float32), np.array([2.001], np.float32)).tolist() == [0]


def test_the_fused_score_is_the_relevance_of_an_equal_image_and_0_for_an_opposite_one():
    assert fused_score(np.array([0.7, 0.7], np.float32), np.array([0, 2], np.float32)).tolist() == [np.float32(0.7), 0]


# Hamming


@PROPERTY
@given(seed=seeds, width=st.integers(4, 128))
def test_hamming_counts_differing_bits(seed, width):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (3, width), np.uint8), rng.integers(0, 256, (4, width), np.uint8)
    found = hamming(a[:, None], b[None])
    assert found.dtype == np.int32
    expected = [[sum(bin(x ^ y).count("1") for x, y in zip(u, v, strict=True)) for v in b.tolist()] for u in a.tolist()]
    assert found.tolist() == expected


# the same value in every batch


@PROPERTY
@given(seed=seeds, width=st.one_of(st.integers(1, 130), st.just(1000)))
@example(seed=0, width=20_000)  # long enough for numpy's BLAS to use several threads
def test_values_do_not_depend_on_the_batch_they_are_computed_in(seed, width):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((5, width)).astype(np.float32), rng.standard_normal((7, width)).astype(np.float32)
    weights, p = np.abs(a).astype(np.float64), np.abs(b)
    r, d = relevance(weights[:, None], p[None]), distance(a[:, None], b[None])
    pairs = [(i, j) for i in range(5) for j in range(7)]
    first, second = np.array(pairs).T
    same_bits(r[first, second], relevance(weights[first], p[second]))
    same_bits(d[first, second], distance(a[first], b[second]))
    for i, j in pairs:
        same_bits(r[i, j], relevance(weights[i], p[j]))
        same_bits(r[i, [j]], relevance(weights[i], p[j : j + 1]))
        same_bits(d[i, j], distance(a[i], b[j]))
        same_bits(d[i, [j]], distance(a[i : i + 1], b[j : j + 1]))
    same_bits(r[0], relevance(weights[0], np.asfortranarray(p)))
    same_bits(d[0], distance(a[0], np.asfortranarray(b)))


@PROPERTY
@given(config=configs(), seed=seeds)
def test_the_weights_of_a_query_do_not_depend_on_the_batch_it_is_in(config, seed):
    p = probabilities(np.random.default_rng(seed), 30, config.classes)
    similarity = Similarity(config)
    alone = np.concatenate([similarity.weights(p[row : row + 1]) for row in range(len(p))])
    np.testing.assert_array_equal(similarity.weights(p), alone)
    np.testing.assert_array_equal(similarity.weights(p[3:17]), alone[3:17])


@pytest.mark.parametrize("function", [relevance, distance])
def test_empty_batches_give_empty_values(function):
    dtype = np.float64 if function is relevance else np.float32
    assert function(np.empty((0, 3), dtype), np.empty((0, 3), np.float32)).shape == (0,)
