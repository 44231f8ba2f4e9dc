import json

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.dataset import About, Dataset, finish_dataset, start_dataset
from semcut.indexes.errors import DataError
from tests.connector.benchmark.synthetic import BITS, CLASSES, DIM, encodings, stored

ABOUT = About(name="x", source="made up", records=60, queries=24, classes=CLASSES, bits=BITS, dim=DIM)


def make(path, about=ABOUT):
    """Create a finished data set."""
    labels = []
    for at, rows, seed in zip(start_dataset(path), (60, 24), (0, 1), strict=True):
        batch, label = encodings(rows, seed=seed)
        stored(at, batch, label)
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
    with pytest.raises(DataError, match="no finished data set"):
        Dataset.open(tmp_path / "set")


def test_parts_of_different_sizes_are_refused(tmp_path):
    make(tmp_path / "set")
    file = tmp_path / "set" / "dataset.json"
    for change in ({"records": 61}, {"bits": 32}):
        file.write_text(json.dumps({**ABOUT.model_dump(), **change}))
        with pytest.raises(DataError, match="delete"):
            Dataset.open(tmp_path / "set")


def test_a_directory_that_is_in_use_stays_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        start_dataset(tmp_path / "set")
    with pytest.raises(DataError, match="cannot create"):
        start_dataset(tmp_path / "set" / "mine" / "deeper")
    assert [file.name for file in (tmp_path / "set").iterdir()] == ["mine"]
