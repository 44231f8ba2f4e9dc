import json
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes
from semcut.connector.data.model_file import MODEL, WEIGHTS, sha256_of
from semcut.connector.retrieval.model_link import LINK
from semcut.indexes import Encodings, FaissIndex, IndexConfig, InvalidParameterError
from semcut.indexes.errors import DataError
from tests.connector.benchmark.synthetic import BITS, CLASSES, DIM, encodings, stored


@pytest.fixture
def records(tmp_path):
    batch, labels = encodings(120, seed=0)
    return stored(tmp_path / "records", batch, labels), batch, labels


@pytest.fixture
def queries(tmp_path):
    batch, labels = encodings(60, seed=1)
    return stored(tmp_path / "queries", batch, labels), batch, labels


def test_records_and_queries_are_copied_in_order_of_their_ids_with_labels(tmp_path, records, queries):
    with dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="twelve") as dataset:
        for index, found, (_, batch, labels) in (
            (dataset.index, dataset.record_labels, records),
            (dataset.queries, dataset.query_labels, queries),
        ):
            copied = index.get(np.arange(len(batch)))
            assert sorted(index.ids().tolist()) == list(range(len(batch)))
            assert found.tolist() == labels[::-1].tolist()  # the first record has the largest id
            assert np.array_equal(copied.probabilities, batch.probabilities[::-1])
            assert np.array_equal(copied.codes, batch.codes[::-1])
            assert np.array_equal(copied.features, batch.features[::-1].astype(np.float16).astype(np.float32))
        about = dataset.about
        assert (about.name, about.records, about.queries, about.classes) == ("twelve", 120, 60, CLASSES)
        assert (about.bits, about.dim, about.seed) == (BITS, DIM, None)


def test_codes_can_be_cut_to_a_prefix(tmp_path, records, queries):
    with dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x", bits=32) as dataset:
        assert dataset.about.bits == dataset.index.config.bits == dataset.queries.config.bits == 32
        assert np.array_equal(dataset.index.get([0]).codes, records[1].codes[-1:, :4])


def test_queries_can_be_limited_evenly_over_the_classes(tmp_path, records, queries):
    sets = [
        dataset_from_indexes(tmp_path / str(number), records[0], queries[0], name="x", limit_queries=24, seed=seed)
        for number, seed in enumerate((1, 1, 2))
    ]
    features = [dataset.queries.get(np.arange(24)).features for dataset in sets]
    for dataset, feature in zip(sets, features, strict=True):
        assert np.bincount(dataset.query_labels).tolist() == [2] * CLASSES
        source = queries[1].features.astype(np.float16).astype(np.float32)
        rows = (feature[:, None] == source[None]).all(axis=2).argmax(axis=1)
        assert dataset.query_labels.tolist() == queries[2][rows].tolist()
        dataset.close()
    assert np.array_equal(features[0], features[1])
    assert not np.array_equal(features[0], features[2])


def describe(network: Path, classes: list[str]) -> None:
    """Write a description in the form of version 2, whose digest is that of the weights."""
    network.mkdir()
    (network / WEIGHTS).write_bytes(b"weights")
    content = {"semcut_model": 2, "sha256": sha256_of(network / WEIGHTS), "architecture": {"classes": classes}}
    (network / MODEL).write_text(json.dumps(content))


def test_labels_are_positions_in_the_classes_of_the_network(tmp_path, records, queries):
    names = [f"class-{label:02d}" for label in range(CLASSES)][::-1]
    describe(tmp_path / "model", names)
    (records[0] / LINK).write_text(json.dumps({"model": str(tmp_path / "model")}))
    with dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x") as dataset:
        assert dataset.record_labels.tolist() == (CLASSES - 1 - records[2][::-1]).tolist()
    (tmp_path / "model" / MODEL).unlink()
    with dataset_from_indexes(tmp_path / "without", records[0], queries[0], name="x") as dataset:
        assert dataset.record_labels.tolist() == records[2][::-1].tolist()


def test_records_without_uris_are_refused(tmp_path, records, queries):
    without = stored(tmp_path / "without", records[1], records[2], uris=False)
    with pytest.raises(DataError, match=r"120 of the 120 records of .*without have no uri"):
        dataset_from_indexes(tmp_path / "set", without, queries[0], name="x")
    with pytest.raises(DataError, match=r"no record of .*without has a uri"):
        dataset_from_indexes(tmp_path / "set", without, without, name="x")
    assert not (tmp_path / "set").exists()


def test_classes_that_do_not_match_are_refused(tmp_path, records, queries):
    others = stored(tmp_path / "others", queries[1], queries[2], names="other")
    with pytest.raises(DataError, match=r"24 class folders \(class-00, .*but there are 12 probabilities"):
        dataset_from_indexes(tmp_path / "set", records[0], others, name="x")
    describe(tmp_path / "model", [f"class-{label:02d}" for label in range(CLASSES)])
    (records[0] / LINK).write_text(json.dumps({"model": str(tmp_path / "model")}))
    with pytest.raises(DataError, match=r"60 of the 60 records of .*others are in folders like 'other-"):
        dataset_from_indexes(tmp_path / "set", records[0], others, name="x")


def test_indexes_of_different_shapes_are_refused(tmp_path, records, queries):
    batch = queries[1]
    short = stored(
        tmp_path / "short",
        Encodings(probabilities=batch.probabilities, codes=batch.codes[:, :4], features=batch.features),
        queries[2],
    )
    with pytest.raises(DataError, match=r"\(12, 64, 24\) but .*short has \(12, 32, 24\)"):
        dataset_from_indexes(tmp_path / "set", records[0], short, name="x")


def test_bits_that_there_are_not_are_refused(tmp_path, records, queries):
    with pytest.raises(DataError, match=r"bits = 72, but codes of .* have 64"):
        dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x", bits=72)
    with pytest.raises(InvalidParameterError, match="bits = 33"):
        dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x", bits=33)


def test_an_empty_index_is_refused(tmp_path, records):
    FaissIndex.create(tmp_path / "empty", IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)).close()
    with pytest.raises(DataError, match="empty is empty"):
        dataset_from_indexes(tmp_path / "set", records[0], tmp_path / "empty", name="x")


def test_a_directory_that_is_in_use_is_refused(tmp_path, records, queries):
    dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x").close()
    with pytest.raises(DataError, match="not empty"):
        dataset_from_indexes(tmp_path / "set", records[0], queries[0], name="x")
