"""Labels of the records of a stored index: their files lie in folders named like their classes.

Reads what connector and network have left beside them as files, so it works without torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.sources import class_of
from semcut.indexes import SemanticIndex

LINK = "connector.json"
"""Beside the columns of an index: where the network that made it is."""

MODEL = "model.json"
"""Beside the weights of a network: its description."""


def labels_by_id(index: SemanticIndex, classes: Sequence[str]) -> NDArray[np.int64]:
    """Label of the record with each id, from 0 up to the largest: the position in `classes` of the name of the folder
    that its file lies in, -1 where that is none of them."""
    numbers = {name: label for label, name in enumerate(classes)}
    labels = np.full(index.next_id(), -1, np.int64)
    ids = index.ids()
    labels[ids] = [numbers.get(class_of(uri) or "", -1) for uri in index.uris(ids)]
    return labels


def network_classes(path: Path) -> tuple[str, ...] | None:
    """Names of the classes, in order of the probabilities, of the network that made the index in a directory; None if
    the index does not say which one that is, or it is not there any more."""
    try:
        model = Path(json.loads((path / LINK).read_text())["model"])
        classes = json.loads((model / MODEL).read_text())["architecture"]["classes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tuple(map(str, classes)) if isinstance(classes, list) else None
