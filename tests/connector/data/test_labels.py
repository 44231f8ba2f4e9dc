import json

import numpy as np
import pytest

from semcut.connector.data.labels import MODEL, labels_by_id
from semcut.connector.retrieval.model_link import LINK, network_classes
from semcut.indexes import Encodings, FaissIndex, IndexConfig


def test_labels_are_positions_of_the_names_of_folders_by_id():
    with FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2)) as index:
        index.add(
            Encodings(
                probabilities=np.full((4, 2), 0.5, np.float32),
                codes=np.zeros((4, 4), np.uint8),
                features=np.ones((4, 2), np.float32),
                ids=[5, 1, 3, 2],
                uris=["/x/dog/1.png", "/x/cat/1.png", None, "/cat/x/1.png"],
            )
        )
        assert labels_by_id(index, ("cat", "dog")).tolist() == [-1, 0, -1, -1, -1, 1]
        assert labels_by_id(index, ("dog",)).tolist() == [-1, -1, -1, -1, -1, 0]


def test_an_index_tells_the_classes_of_its_network(tmp_path):
    assert network_classes(tmp_path) is None
    (tmp_path / LINK).write_text(json.dumps({"model": str(tmp_path / "model")}))
    assert network_classes(tmp_path) is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / MODEL).write_text(json.dumps({"architecture": {"classes": ["dog", "cat"]}}))
    assert network_classes(tmp_path) == ("dog", "cat")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"architecture": []}', '{"architecture": {"classes": 3}}'])
def test_a_description_of_a_network_that_says_nothing_is_none(tmp_path, content):
    (tmp_path / LINK).write_text(json.dumps({"model": str(tmp_path)}))
    (tmp_path / MODEL).write_text(content)
    assert network_classes(tmp_path) is None
