import numpy as np
import pytest

from semcut.connector.benchmark.datasets.class_variants import TAIL, ClassVariants
from tests.connector.benchmark.synthetic import BITS, CLASSES, encodings


@pytest.fixture(scope="module")
def batch():
    return encodings(600)[0]


def draw(batch, classes, seed=0):
    rates = np.unpackbits(batch.codes, axis=1).mean(axis=0)
    return ClassVariants.draw(classes, CLASSES, batch.features.mean(axis=0), rates, np.random.default_rng(seed))


def hamming(codes):
    return np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2)


def test_every_variant_is_an_isometry_of_features_and_codes(batch):
    drawn = draw(batch, 4 * CLASSES)
    distances = np.linalg.norm(batch.features[:, None] - batch.features[None], axis=2)
    moved = []
    for variant in range(4):
        features, codes = drawn.move(batch.features, batch.codes, np.full(len(batch), variant))
        assert np.linalg.norm(features[:, None] - features[None], axis=2) == pytest.approx(distances, abs=1e-5)
        assert features.mean(axis=0) == pytest.approx(batch.features.mean(axis=0), abs=1e-5)
        assert np.array_equal(hamming(codes), hamming(batch.codes))
        moved.append((features, codes))
    for first in range(4):
        for second in range(first):
            apart = np.linalg.norm(moved[first][0] - moved[second][0], axis=1).mean()
            assert apart == pytest.approx(distances.mean(), rel=0.2)
            differing = np.bitwise_count(moved[first][1] ^ moved[second][1]).sum(axis=1).mean()
            assert differing > 0.3 * BITS


def test_records_of_several_variants_are_moved_like_those_of_one(batch):
    drawn = draw(batch, 3 * CLASSES)
    variants = np.arange(len(batch)) % 3
    features, codes = drawn.move(batch.features, batch.codes, variants)
    for variant in range(3):
        alone = drawn.move(batch.features, batch.codes, np.full(len(batch), variant))
        assert np.array_equal(features[variants == variant], alone[0][variants == variant])
        assert np.array_equal(codes[variants == variant], alone[1][variants == variant])


def test_spread_probabilities_sum_to_that_of_the_class_and_change_little(batch):
    variants = np.arange(len(batch)) % 3
    spread = draw(batch, 3 * CLASSES).spread_probabilities(batch.probabilities, variants, np.random.default_rng(1))
    by_variant = spread.reshape(len(batch), 3, CLASSES)
    assert by_variant.sum(axis=1) == pytest.approx(batch.probabilities, abs=1e-6)
    own = by_variant[np.arange(len(batch)), variants]
    assert (batch.probabilities - own).max() < TAIL
    assert (own <= batch.probabilities + 1e-7).all()
    small = batch.probabilities < TAIL / 100
    share = own[small].sum() / batch.probabilities[small].sum()
    assert share == pytest.approx(1 / 3, abs=0.05)


def test_a_part_of_the_last_variant_leaves_probabilities_that_sum_to_1(batch):
    drawn = draw(batch, 2 * CLASSES + 5)
    spread = drawn.spread_probabilities(batch.probabilities, np.zeros(len(batch), np.int64), np.random.default_rng(1))
    assert spread.shape == (len(batch), 2 * CLASSES + 5)
    assert spread.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert drawn.columns.tolist()[: 2 * CLASSES] == list(range(2 * CLASSES))
    assert len(set(drawn.columns.tolist())) == 2 * CLASSES + 5


def test_fewer_classes_are_chosen_at_random(batch):
    chosen = [draw(batch, 5, seed).chosen.tolist() for seed in range(4)]
    assert all(one == sorted(set(one)) and len(one) == 5 for one in chosen)
    assert len({tuple(one) for one in chosen}) > 1
    assert draw(batch, CLASSES).chosen.tolist() == list(range(CLASSES))


def test_a_source_whose_mean_feature_is_zero_gets_variants(batch):
    drawn = ClassVariants.draw(24, 12, np.zeros(24, np.float32), np.full(BITS, 0.5), np.random.default_rng(0))
    features, _ = drawn.move(batch.features, batch.codes, np.ones(len(batch), np.int64))
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(features, batch.features)
