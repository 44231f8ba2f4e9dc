import numpy as np

from semcut.connector.data.labels import labels_by_id
from semcut.indexes import Encodings, FaissIndex, IndexConfig


def test_labels_are_the_positions_of_folder_names_in_the_classes():
    with FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2)) as index:
        index.add(
            Encodings(
                probabilities=np.full((4, 2), 0.5, np.float32),
                codes=np.zeros((4, 4), np.uint8),
                features=np.ones((4, 2), np.float32),
                ids=[2**63 - 1, 1, 3, 2],
                uris=["/x/dog/1.png", "/x/cat/1.png", None, "/cat/x/1.png"],
            )
        )
        asked = np.array([0, 1, 2, 3, 4, 2**63 - 1])  # memory follows the number of records, not the largest id
        assert labels_by_id(index, ("cat", "dog"))[asked].tolist() == [-1, 0, -1, -1, -1, 1]
        assert labels_by_id(index, ("dog",))[asked].tolist() == [-1, -1, -1, -1, -1, 0]
        assert labels_by_id(index, ("dog",))[np.array([[-1], [1]])].tolist() == [[-1], [-1]]


def test_an_index_without_records_has_no_labels():
    with FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2)) as index:
        assert labels_by_id(index, ("cat",))[np.array([0, 7])].tolist() == [-1, -1]
