import json
from dataclasses import replace

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.dataset import About, Dataset, finish_dataset, start_dataset
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.errors import DataError
from tests.connector.benchmark.synthetic import BITS, CLASSES, DIM, encodings

ABOUT = About(name="x", source="made up", records=60, queries=24, classes=CLASSES, bits=BITS, dim=DIM)


def make(path, about=ABOUT, first=0):
    """Create a finished data set, with ids from `first`."""
    labels = []
    for at, rows, seed in zip(start_dataset(path), (60, 24), (0, 1), strict=True):
        batch, label = encodings(rows, seed=seed)
        with FaissIndex.create(at, IndexConfig(classes=CLASSES, bits=BITS, dim=DIM)) as index:
            index.add(replace(batch, ids=np.arange(first, first + rows)))
        labels.append(label)
    finish_dataset(path, about, *labels)
    return labels


def test_a_finished_data_set_is_opened(tmp_path):
    labels = make(tmp_path / "set")
    with Dataset.open(tmp_path / "set") as dataset:
        assert dataset.about == ABOUT
        assert dataset.index_path == tmp_path / "set" / "index"
        assert dataset.record_labels.dtype == dataset.query_labels.dtype == np.int32
        assert dataset.record_labels.tolist() == labels[0].tolist()
        assert dataset.query_labels.tolist() == labels[1].tolist()
        assert (len(dataset.index), len(dataset.queries)) == (60, 24)
        indexes = (dataset.index, dataset.queries)
    for index in indexes:
        with pytest.raises(Exception, match="closed"):
            index.stats()


@pytest.mark.parametrize("name", ["dataset.json", "labels.npz"])
@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_an_unfinished_or_damaged_data_set_is_refused(tmp_path, name, damage):
    make(tmp_path / "set")
    file = tmp_path / "set" / name
    content = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    if damage == "other":
        file.write_bytes(b'{"name": 3}')
    finished = damage == "missing" and name == "dataset.json"
    message = "no finished data set" if finished else f"{name} cannot be read .*: delete .*set, and the next run"
    with pytest.raises(DataError, match=message):
        Dataset.open(tmp_path / "set")


def test_parts_of_different_sizes_are_refused(tmp_path):
    make(tmp_path / "set")
    file = tmp_path / "set" / "dataset.json"
    for change in ({"records": 61}, {"bits": 32}):
        file.write_text(json.dumps({**ABOUT.model_dump(), **change}))
        with pytest.raises(DataError, match="delete"):
            Dataset.open(tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels + 2**30, r"labels of records from 1073741824 to \d+, expected 0 to 11"),
        (lambda labels: labels - 9, "labels of records from -9 to 2, expected 0 to 11"),
        (lambda labels: labels.astype("U9"), r"labels\.npz cannot be read"),
        (lambda labels: labels.astype(np.float32), r"labels\.npz cannot be read"),
        (lambda labels: np.zeros(1 << 20, np.int32), r"labels\.npz cannot be read"),
    ],
)
def test_labels_that_are_no_classes_are_refused_before_they_are_used(tmp_path, change, message):
    labels = make(tmp_path / "set")
    records, queries = (each.astype(np.int32) for each in labels)
    np.savez_compressed(tmp_path / "set" / "labels.npz", records=change(records), queries=queries)
    with pytest.raises(DataError, match=message):
        Dataset.open(tmp_path / "set")


def test_ids_that_do_not_count_from_zero_are_refused(tmp_path):
    make(tmp_path / "set", first=1)
    with pytest.raises(DataError, match="index has other ids than 0 to 59"):
        Dataset.open(tmp_path / "set")


def test_an_index_elsewhere_is_not_opened_through_a_link(tmp_path):
    make(tmp_path / "set")
    (tmp_path / "set" / "queries").rename(tmp_path / "elsewhere")
    (tmp_path / "set" / "queries").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="queries is a symbolic link"):
        Dataset.open(tmp_path / "set")


def test_a_description_of_great_length_is_refused(tmp_path):
    make(tmp_path / "set")
    for name, value in (("name", "W" * 5000), ("source", "W" * 5000), ("seed", 10**300), ("zipf", 1e300)):
        (tmp_path / "set" / "dataset.json").write_text(json.dumps({**ABOUT.model_dump(), name: value}))
        with pytest.raises(DataError, match=r"dataset\.json cannot be read"):
            Dataset.open(tmp_path / "set")


def test_a_directory_that_is_in_use_stays_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        start_dataset(tmp_path / "set")
    with pytest.raises(DataError, match="cannot create"):
        start_dataset(tmp_path / "set" / "mine" / "deeper")
    assert [file.name for file in (tmp_path / "set").iterdir()] == ["mine"]
