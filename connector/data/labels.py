"""Look up the labels of the records of an index: the class of a record is that of its file, or what a list says of it.

Works without torch. The names of the classes usually come from the description of the network that made the index, see
`semcut.connector.retrieval.model_link`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import MAX_CLASSES, classes_given
from semcut.connector.data.file_arguments import roots_given
from semcut.connector.data.image_folders import classes_of
from semcut.connector.data.image_uris import canonical_uri, paths_of, uri_of
from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.sources import ImageSet
from semcut.indexes import SemanticIndex
from semcut.indexes.argument_checks import instance_given, possible_path_given
from semcut.indexes.array_checks import integers_given
from semcut.indexes.errors import DataError, InvalidParameterError


@dataclass(frozen=True, eq=False)
class RecordLabels:
    """The labels of the records of an index, in memory that depends on their number, not on their ids.

    Attributes:
        ids: (n,) int64, ascending.
        labels: (n,) int64, -1 for unknown; of a record that has several, the first.
        label_sets: all labels of the n records; None if no record has several.

    Raises:
        InvalidParameterError: the ids are not ascending, or a value is no integer, or out of range.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    label_sets: LabelSets | None = None

    def __post_init__(self) -> None:
        ids = integers_given("ids", self.ids, 0, 2**63 - 1)
        if (ids[1:] <= ids[:-1]).any():
            raise InvalidParameterError("ids are not ascending, expected each id once, in ascending order")
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "labels", integers_given("labels", self.labels, -1, MAX_CLASSES - 1, (len(ids),)))
        if self.label_sets is not None:
            instance_given("label_sets", self.label_sets, LabelSets)
            if not np.array_equal(self.label_sets.first(), self.labels):
                raise InvalidParameterError("label_sets do not fit labels: expected each label as the first of its set")

    def __getitem__(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Look up labels by ids of any shape; -1 where no record has this id, as where the id is -1.

        Raises:
            InvalidParameterError: an id is no integer of at least -1.
        """
        ids = integers_given("ids", ids, -1, 2**63 - 1, None)
        if not len(self.ids):
            return np.full(ids.shape, -1, np.int64)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, self.labels[at], -1)


def labels_by_id(
    index: SemanticIndex, classes: Sequence[str], roots: tuple[str, ...] = (), root: str | None = None
) -> RecordLabels:
    """Look up the label of every record by the class folder of its file.

    Args:
        index: the index.
        classes: names of the classes, in order of their labels.
        roots: folders of class folders, see `class_of`.
        root: the folder to which uris are relative, see `image_uris`.

    Returns:
        The label of each record, the position of its class in `classes`; -1 if the class is not in `classes`,
        or if the record has no uri.

    Raises:
        InvalidParameterError: `classes` is no list of different names.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    classes, roots = classes_given("classes", classes, least=0), roots_given("roots", roots)
    root = None if root is None else possible_path_given("root", root)
    label_of = {name: label for label, name in enumerate(classes)}
    ids = index.ids()
    labels = [label_of.get(name or "", -1) for name in classes_of(paths_of(index.uris(ids), root), roots)]
    return RecordLabels(ids, np.array(labels, np.int64))


def labels_of_images(
    index: SemanticIndex, classes: Sequence[str], images: ImageSet, root: str | None = None
) -> RecordLabels:
    """Look up the labels of every record in a set of labelled images, by the path of its file.

    Args:
        index: the index.
        classes: names of the classes, in order of their labels.
        images: the labelled images, such as those of a list.
        root: the folder to which uris are relative, see `image_uris`.

    Returns:
        The labels of each record, positions in `classes`; none for a record that is not of the images, or whose classes
        are not in `classes`.

    Raises:
        DataError: no record is of the images.
        InvalidParameterError: `classes` is no list of different names.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    instance_given("images", images, ImageSet)
    classes = classes_given("classes", classes, least=0)
    root = None if root is None else possible_path_given("root", root)
    label_of = {name: label for label, name in enumerate(classes)}
    places = {uri_of(file, root): place for place, file in enumerate(images.files)}
    ids = index.ids()
    uris = index.uris(ids)
    found = np.array([-1 if uri is None else places.get(canonical_uri(uri, root), -1) for uri in uris], np.int64)
    if not (found >= 0).any():
        raise DataError(
            f"none of the {len(ids):,} records of the index is one of the {len(images):,} labelled images: give the "
            "labels of the images that were indexed, by the same paths"
        )
    sets = images.all_labels
    counts = np.where(found >= 0, sets.counts[found], 0)
    known = LabelSets(np.concatenate([[0], np.cumsum(counts)]), sets[found[found >= 0]].labels)
    named = known.renumbered([label_of.get(name, -1) for name in images.classes])
    return RecordLabels(ids, named.first(), named)
