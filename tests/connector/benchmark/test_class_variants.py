import numpy as np
import pytest

from semcut.connector.benchmark.datasets.class_variants import TAIL, ClassVariants
from tests.connector.benchmark.synthetic import BITS, CLASSES, encodings


@pytest.fixture(scope="module")
def batch():
    return encodings(600)[0]


def layout(batch, classes, seed=0):
    rates = np.unpackbits(batch.codes, axis=1).mean(axis=0)
    return ClassVariants.draw(classes, CLASSES, batch.features.mean(axis=0), rates, np.random.default_rng(seed))


def hamming(codes):
    return np.bitwise_count(codes[:, None] ^ codes[None]).sum(axis=2)


def test_every_copy_is_an_isometry_of_features_and_codes(batch):
    drawn = layout(batch, 4 * CLASSES)
    distances = np.linalg.norm(batch.features[:, None] - batch.features[None], axis=2)
    moved = []
    for copy in range(4):
        features, codes = drawn.move(batch.features, batch.codes, np.full(len(batch), copy))
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


def test_records_of_several_copies_are_moved_like_those_of_one(batch):
    drawn = layout(batch, 3 * CLASSES)
    copies = np.arange(len(batch)) % 3
    features, codes = drawn.move(batch.features, batch.codes, copies)
    for copy in range(3):
        alone = drawn.move(batch.features, batch.codes, np.full(len(batch), copy))
        assert np.array_equal(features[copies == copy], alone[0][copies == copy])
        assert np.array_equal(codes[copies == copy], alone[1][copies == copy])


def test_what_is_spread_sums_to_the_probability_of_the_class_and_is_small(batch):
    copies = np.arange(len(batch)) % 3
    spread = layout(batch, 3 * CLASSES).spread(batch.probabilities, copies, np.random.default_rng(1))
    by_copy = spread.reshape(len(batch), 3, CLASSES)
    assert by_copy.sum(axis=1) == pytest.approx(batch.probabilities, abs=1e-6)
    own = by_copy[np.arange(len(batch)), copies]
    assert (batch.probabilities - own).max() < TAIL
    assert (own <= batch.probabilities + 1e-7).all()
    small = batch.probabilities < TAIL / 100
    share = own[small].sum() / batch.probabilities[small].sum()
    assert share == pytest.approx(1 / 3, abs=0.05)


def test_a_part_of_the_last_copy_leaves_probabilities_that_sum_to_1(batch):
    drawn = layout(batch, 2 * CLASSES + 5)
    spread = drawn.spread(batch.probabilities, np.zeros(len(batch), np.int64), np.random.default_rng(1))
    assert spread.shape == (len(batch), 2 * CLASSES + 5)
    assert spread.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert drawn.columns.tolist()[: 2 * CLASSES] == list(range(2 * CLASSES))
    assert len(set(drawn.columns.tolist())) == 2 * CLASSES + 5


def test_fewer_classes_are_chosen_at_random(batch):
    chosen = [layout(batch, 5, seed).chosen.tolist() for seed in range(4)]
    assert all(one == sorted(set(one)) and len(one) == 5 for one in chosen)
    assert len({tuple(one) for one in chosen}) > 1
    assert layout(batch, CLASSES).chosen.tolist() == list(range(CLASSES))


def test_a_source_without_a_mean_feature_can_be_copied(batch):
    drawn = ClassVariants.draw(24, 12, np.zeros(24, np.float32), np.full(BITS, 0.5), np.random.default_rng(0))
    features, _ = drawn.move(batch.features, batch.codes, np.ones(len(batch), np.int64))
    assert np.linalg.norm(features, axis=1) == pytest.approx(1, abs=1e-5)
    assert not np.allclose(features, batch.features)
