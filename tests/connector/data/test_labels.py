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
                ids=[5, 1, 3, 2],
                uris=["/x/dog/1.png", "/x/cat/1.png", None, "/cat/x/1.png"],
            )
        )
        assert labels_by_id(index, ("cat", "dog")).tolist() == [-1, 0, -1, -1, -1, 1]
        assert labels_by_id(index, ("dog",)).tolist() == [-1, -1, -1, -1, -1, 0]
