"""Look up the labels of the records of an index: the class of a record is that of its file.

Works without torch. The names of the classes usually come from the description of the network that made the index, see
`semcut.connector.retrieval.model_link`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.image_folders import class_of
from semcut.indexes import SemanticIndex


def labels_by_id(index: SemanticIndex, classes: Sequence[str], roots: tuple[str, ...] = ()) -> NDArray[np.int64]:
    """Look up the label of every record by the class folder of its file.

    Args:
        index: the index.
        classes: names of the classes, in order of their labels.
        roots: folders of class folders, see `class_of`.

    Returns:
        (index.next_id(),) int64: at each id, the position of the class in `classes`; -1 if it is not in
        `classes`, if the record has no uri, or if no record has this id.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.full(index.next_id(), -1, np.int64)
    ids = index.ids()
    labels[ids] = [label_of.get(class_of(uri, roots) or "", -1) for uri in index.uris(ids)]
    return labels
