"""`LabelSets`: the labels of many images, any number of each, as two arrays.

A list can give an image several labels. Training and protocols need one label of each image; evaluation takes any
number, and counts a record as right for a query that it shares a label with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import MAX_CLASSES
from semcut.indexes.array_checks import integers_given
from semcut.indexes.errors import DataError, InvalidParameterError


@dataclass(frozen=True, eq=False)
class LabelSets:
    """The labels of n images.

    Attributes:
        starts: (n + 1,) int64; the labels of image i are `labels[starts[i] : starts[i + 1]]`.
        labels: (m,) int64, positions in a list of classes; the first label of an image comes first.

    Raises:
        InvalidParameterError: a value is no integer, out of range, or `starts` does not ascend from 0 to m.
    """

    starts: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        labels = integers_given("labels", self.labels, 0, MAX_CLASSES - 1)
        starts = integers_given("starts", self.starts, 0, len(labels))
        if not len(starts) or starts[0] != 0 or starts[-1] != len(labels) or (np.diff(starts) < 0).any():
            raise InvalidParameterError(f"starts do not ascend from 0 to {len(labels):,}, the number of labels")
        object.__setattr__(self, "starts", starts)
        object.__setattr__(self, "labels", labels)

    @staticmethod
    def of(sets: Iterable[Sequence[int]]) -> LabelSets:
        """Make the arrays of the labels of each image."""
        sets = list(sets)
        starts = np.zeros(len(sets) + 1, np.int64)
        np.cumsum([len(one) for one in sets], out=starts[1:])
        return LabelSets(starts, np.fromiter(chain.from_iterable(sets), np.int64, int(starts[-1])))

    @staticmethod
    def single(labels: NDArray[np.int64]) -> LabelSets:
        """Make the arrays of (n,) labels, one of each image; -1 for an image without a label."""
        has = labels >= 0
        return LabelSets(np.concatenate([[0], np.cumsum(has)]), labels[has])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, positions: NDArray[np.int64]) -> LabelSets:
        """Select the images at (k,) positions."""
        counts = self.counts[positions]
        starts = np.concatenate([[0], np.cumsum(counts)])
        # the place of each selected label in its image, added to where the labels of the image begin
        places = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return LabelSets(starts, self.labels[np.repeat(self.starts[:-1][positions], counts) + places])

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n,) int64, the number of labels of each image."""
        return np.diff(self.starts)

    @property
    def images(self) -> NDArray[np.int64]:
        """(m,) int64, the position of the image that has each label."""
        return np.repeat(np.arange(len(self)), self.counts)

    def first(self) -> NDArray[np.int64]:
        """Return the first label of each image: (n,) int64, -1 for one without a label."""
        found = np.full(len(self), -1, np.int64)
        has = self.counts > 0
        found[has] = self.labels[self.starts[:-1][has]]
        return found

    def renumbered(self, new: Any) -> LabelSets:
        """Replace each label by `new[label]`, and leave out those of which it is -1; `new` is (classes,) int64."""
        labels = np.asarray(new, np.int64)[self.labels]
        kept = labels >= 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return LabelSets(before[self.starts], labels[kept])


def require_one_label(files: Sequence[str], sets: LabelSets | None, purpose: str) -> None:
    """Raise `DataError` if an image has several labels.

    Args:
        files: n images.
        sets: their labels; None if no image has several.
        purpose: what needs one label of each image, such as "training".
    """
    several = [] if sets is None else np.flatnonzero(sets.counts > 1).tolist()
    if several:
        raise DataError(
            f"{len(several):,} of {len(files):,} images have several labels, the first is {files[several[0]]}: "
            f"{purpose} needs one label of each image"
        )
