import numpy as np
import pytest

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.fit_quality import compare, statistics
from semcut.connector.benchmark.datasets.fitted_records import Fit, fitted_dataset
from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes
from semcut.connector.benchmark.datasets.strata import Source
from semcut.indexes import Encodings
from semcut.indexes.errors import DataError
from tests.connector.benchmark.synthetic import BITS, CLASSES, DIM, encodings, stored

ROWS = 6000


@pytest.fixture(scope="module")
def source():
    return encodings(ROWS)


@pytest.fixture(scope="module")
def fit(source):
    return Fit.of(*source)


def accuracy(batch, labels):
    return (batch.probabilities.argmax(axis=1) == labels).mean()


def test_statistics_of_generated_records_are_those_of_their_source(fit):
    compared = {one.statistic: one for one in compare(fit)}
    tolerances = {
        "top-1 accuracy": 0.02,
        "top-1 accuracy of queries": 0.035,
        "mean of max p": 0.01,
        "max p, 10% quantile": 0.02,
        "max p, 25% quantile": 0.02,
        "max p, 50% quantile": 0.01,
        "max p, 75% quantile": 0.005,
        "relevant at t = 0.2": 0.004,
        "relevant at t = 0.5": 0.004,
        "Hamming distance in a class": 0.3,
        "Hamming distance in a class, deviation": 0.4,
        "distance in a class": 0.01,
        "Hamming distance between classes": 0.3,
        "Hamming distance between classes, deviation": 0.3,
        "distance between classes": 0.01,
        "mAP@10, Hamming and re-rank": 0.035,
        "Hamming distance of the nearest": 0.8,
        "Hamming distance of the 100th": 0.5,
        "distance of the best in the shortlist": 0.02,
    }
    assert compared.keys() == tolerances.keys()
    for name, tolerance in tolerances.items():
        assert compared[name].generated == pytest.approx(compared[name].source, abs=tolerance), name


def test_mean_and_variance_of_a_class_are_preserved(source, fit):
    batch, labels = fit.generator().batch(30_000)
    for label in (0, 7):
        original, made = (
            np.hstack([np.log(b.probabilities[y == label]), b.features[y == label]]).astype(np.float64)
            for b, y in ((source[0], source[1]), (batch, labels))
        )
        spread = original.std(axis=0)
        assert np.abs(made.mean(axis=0) - original.mean(axis=0)).max() < 0.2 * spread.max()
        assert made.std(axis=0) == pytest.approx(spread, rel=0.12)
        bits = [np.unpackbits(b.codes[y == label], axis=1).mean(axis=0) for b, y in (source, (batch, labels))]
        assert np.abs(bits[0] - bits[1]).max() < 0.08


def test_no_record_occurs_twice_even_at_500_times_the_size():
    fit = Fit.of(*encodings(8 * CLASSES))
    batch, _ = fit.generator().batch(500 * 6 * CLASSES)
    for rows in (batch.features, batch.probabilities):
        assert len(np.unique(rows.view(np.uint8).reshape(len(rows), -1), axis=0)) == len(rows)


def test_records_and_queries_are_drawn_from_different_encodings(source):
    batch, labels = source
    opposite = Encodings(probabilities=batch.probabilities, codes=~batch.codes, features=-batch.features)
    fit = Fit("both", Source.of(batch, labels), Source.of(opposite, labels))
    mean = batch.features.mean(axis=0)
    for classes in (5, CLASSES, 30):
        made, queries = (fit.generator(classes=classes, queries=kind).batch(500)[0] for kind in (False, True))
        assert (made.features @ mean).mean() > 0.2
        assert (queries.features @ mean).mean() < -0.2


def test_encodings_without_queries_are_split_in_every_class(source):
    fit = Fit.of(*source, seed=3)
    for part, share in ((fit.records, 0.75), (fit.queries, 0.25)):
        assert np.diff(part.starts).tolist() == [share * ROWS / CLASSES] * CLASSES
    rows = np.concatenate([fit.records.features, fit.queries.features])
    assert len(np.unique(rows, axis=0)) == ROWS


def test_fewer_classes_use_only_the_records_of_a_subset_of_the_source(source, fit):
    generator = fit.generator(classes=4, seed=1)
    batch, labels = generator.batch(4000)
    assert batch.probabilities.shape == (4000, 4)
    assert batch.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    chosen = generator.variants.chosen
    rows = np.isin(source[1], chosen)
    restricted = source[0].probabilities[rows][:, chosen]
    restricted /= restricted.sum(axis=1, keepdims=True)
    expected = (chosen[restricted.argmax(axis=1)] == source[1][rows]).mean()
    assert accuracy(batch, labels) == pytest.approx(expected, abs=0.03)
    assert restricted.max(axis=1).mean() == pytest.approx(batch.probabilities.max(axis=1).mean(), abs=0.02)
    for label in range(4):
        original = source[0].features[source[1] == chosen[label]].mean(axis=0)
        assert batch.features[labels == label].mean(axis=0) == pytest.approx(original, abs=0.04)


@pytest.mark.parametrize("classes", [24, 31, 120])
def test_more_classes_have_the_distances_and_certainties_of_the_source(source, fit, classes):
    batch, labels = fit.generator(classes=classes, seed=2).batch(ROWS)
    queries, query_labels = fit.generator(classes=classes, seed=2, queries=True).batch(1000)
    assert batch.probabilities.shape == (ROWS, classes)
    assert (batch.probabilities > 0).mean() > 0.999
    assert set(np.unique(labels)) == set(range(classes))
    expected, made = statistics(*source, *encodings(1000, seed=5)), statistics(batch, labels, queries, query_labels)
    easier = 1 if classes % CLASSES == 0 else 2  # where the last variant lacks classes
    assert made["top-1 accuracy"] == pytest.approx(expected["top-1 accuracy"], abs=0.025 * easier)
    assert made["top-1 accuracy of queries"] == pytest.approx(expected["top-1 accuracy"], abs=0.05)
    assert made["mean of max p"] == pytest.approx(expected["mean of max p"], abs=0.02)
    assert made["max p, 75% quantile"] == pytest.approx(expected["max p, 75% quantile"], abs=0.004 * easier)
    assert made["relevant at t = 0.2"] == pytest.approx(expected["relevant at t = 0.2"] * CLASSES / classes, rel=0.15)
    assert made["Hamming distance in a class"] == pytest.approx(expected["Hamming distance in a class"], abs=0.8)
    assert made["Hamming distance between classes"] == pytest.approx(
        expected["Hamming distance between classes"], abs=1
    )
    assert made["distance in a class"] == pytest.approx(expected["distance in a class"], abs=0.03)
    assert made["distance between classes"] == pytest.approx(expected["distance between classes"], abs=0.05)


def test_variants_of_a_class_are_no_nearer_to_each_other_than_other_classes(fit):
    batch, labels = fit.generator(classes=5 * CLASSES).batch(20_000)
    groups = [batch[labels == label] for label in range(5 * CLASSES)]
    centres = np.stack([group.features.mean(axis=0) for group in groups])
    codes = np.stack([np.unpackbits(group.codes, axis=1).mean(axis=0) for group in groups])
    first, second = np.triu_indices(5 * CLASSES, 1)
    same = first % CLASSES == second % CLASSES
    apart = first // CLASSES != second // CLASSES
    for values in (centres, codes):
        distances = np.linalg.norm(values[first] - values[second], axis=1)
        assert distances[same].mean() > 0.85 * distances[apart & ~same].mean()
        assert distances[same].min() > 0.4 * distances[apart & ~same].mean()


def test_an_ambiguous_record_lies_between_its_classes_in_every_variant(fit):
    batch, labels = fit.generator(classes=3 * CLASSES).batch(30_000)
    centres = np.stack([batch.features[labels == label].mean(axis=0) for label in range(3 * CLASSES)])
    order = batch.probabilities.argsort(axis=1)
    best, second = order[:, -1], order[:, -2]
    ambiguous = np.flatnonzero((batch.probabilities.max(axis=1) < 0.6) & (best == labels))
    distance = np.linalg.norm(batch.features[ambiguous, None] - centres[None], axis=2)
    near = distance[np.arange(len(ambiguous)), second[ambiguous]]
    assert len(ambiguous) > 1000
    for variant in range(3):
        own = labels[ambiguous] // CLASSES == variant
        assert (second[ambiguous][own] // CLASSES == variant).mean() > 0.95
        assert near[own].mean() < distance[own].mean() - 0.1


def test_labels_of_records_follow_zipf_and_those_of_queries_are_balanced(fit):
    _, labels = fit.generator(classes=24, zipf=1, seed=4).batch(50_000)
    counts = np.sort(np.bincount(labels, minlength=24))[::-1]
    weights = 1 / np.arange(1, 25)
    assert counts / counts.sum() == pytest.approx(weights / weights.sum(), rel=0.1)
    assert np.bincount(labels).argsort().tolist() != list(range(24))[::-1]
    for generator in (fit.generator(zipf=1, queries=True), fit.generator()):
        assert np.bincount(generator.batch(24_000)[1]) == pytest.approx([2000] * CLASSES, rel=0.1)


def test_a_seed_and_the_same_calls_give_the_same_data(fit):
    def drawn(seed, **settings):
        generator = fit.generator(classes=18, seed=seed, **settings)
        parts = [generator.batch(n) for n in (100, 50)]
        batch = Encodings.concatenate([part for part, _ in parts])
        return [batch.probabilities, batch.codes, batch.features, np.concatenate([labels for _, labels in parts])]

    for first, again, other, queries in zip(drawn(1), drawn(1), drawn(2), drawn(1, queries=True), strict=True):
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert not np.array_equal(first, queries)


def test_codes_can_be_a_prefix_and_features_of_any_length(source, fit):
    batch, _ = fit.generator(bits=32).batch(2000)
    rates = np.unpackbits(source[0].codes[:, :4], axis=1).mean(axis=0)
    assert np.unpackbits(batch.codes, axis=1).mean(axis=0) == pytest.approx(rates, abs=0.05)
    assert batch.normalised()
    scaled = Encodings(probabilities=source[0].probabilities, codes=source[0].codes, features=3 * source[0].features)
    scaled_batch, _ = Fit.of(scaled, source[1]).generator(classes=24).batch(500)
    assert np.linalg.norm(scaled_batch.features, axis=1).mean() == pytest.approx(3, abs=0.3)


def test_a_data_set_is_made_and_opened_again(tmp_path, fit):
    reports = []
    settings = {"classes": 20, "records": 700, "queries": 80, "zipf": 0.5, "seed": 6, "bits": 32}
    made = fitted_dataset(tmp_path / "a", fit, name="f", progress=lambda *now: reports.append(now), **settings)
    made.close()
    fitted_dataset(tmp_path / "b", fit, name="f", **settings).close()
    with Dataset.open(tmp_path / "a") as one, Dataset.open(tmp_path / "b") as two:
        assert reports == [(700, 700, "generating records")]
        assert one.about.model_dump() == {
            "name": "f", "source": "fitted to encodings", "records": 700, "queries": 80, "classes": 20, "bits": 32,
            "dim": DIM, "zipf": 0.5, "seed": 6, "origin": None,
        }  # fmt: skip
        for index, labels, n in ((one.index, one.record_labels, 700), (one.queries, one.query_labels, 80)):
            assert index.ids().tolist() == list(range(n))
            assert accuracy(index.get(np.arange(n)), labels) > 0.7
        assert np.array_equal(one.index.get([5]).features, two.index.get([5]).features)
        assert np.array_equal(one.record_labels, two.record_labels)


def test_a_data_set_can_be_fitted(tmp_path):
    paths = [stored(tmp_path / name, *encodings(rows, seed=rows)) for name, rows in (("r", 600), ("q", 240))]
    with dataset_from_indexes(tmp_path / "copied", *paths, name="copied") as dataset:
        fit = Fit.of(dataset)
        assert (fit.name, fit.classes, fit.bits, fit.dim) == ("copied", CLASSES, BITS, DIM)
        assert (len(fit.records.codes), len(fit.queries.codes)) == (600, 240)
        batch, labels = fit.generator().batch(1000)
        original = accuracy(dataset.index.get(np.arange(600)), dataset.record_labels)
        assert accuracy(batch, labels) == pytest.approx(original, abs=0.04)


def test_an_unfinished_directory_is_refused(tmp_path, fit):
    def stop(done, total, task=""):
        raise KeyboardInterrupt

    settings = {"name": "f", "classes": 12, "records": 100, "queries": 10}
    with pytest.raises(KeyboardInterrupt):
        fitted_dataset(tmp_path / "a", fit, progress=stop, **settings)
    with pytest.raises(DataError, match="no finished data set"):
        Dataset.open(tmp_path / "a")
    with pytest.raises(DataError, match="not empty, perhaps an unfinished data set: delete it"):
        fitted_dataset(tmp_path / "a", fit, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes = 1"),
        ({"zipf": -1}, "zipf = -1"),
        ({"seed": -1}, "seed = -1"),
        ({"bits": 72}, "bits = 72, .* at most the 64"),
        ({"bits": 12}, "bits = 12"),
    ],
)
def test_a_generator_refuses_what_it_cannot_make(fit, settings, message):
    with pytest.raises(DataError, match=message):
        fit.generator(**settings)


def test_an_unsuitable_source_is_refused(tmp_path, source, fit):
    batch, labels = source
    with pytest.raises(DataError, match="without labels"):
        Fit.of(batch)
    with pytest.raises(DataError, match=r"shape \(10,\), expected \(6000,\)"):
        Fit.of(batch, labels[:10])
    with pytest.raises(DataError, match="from 0 to 12, expected 0 to 11"):
        Fit.of(batch, np.where(np.arange(ROWS) == 7, 12, labels))
    few = np.flatnonzero((labels != 3) | (np.cumsum(labels == 3) <= 1))
    with pytest.raises(DataError, match="class 3 has 1 of the"):
        Fit.of(batch[few], labels[few])
    with pytest.raises(DataError, match="records = 0"):
        fitted_dataset(tmp_path / "a", fit, name="f", classes=12, records=0, queries=10)
