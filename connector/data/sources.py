"""Find a data set: a folder of image files, or a source that is written to the cache as such a folder on first use.

A source is given as a string:

    animals/train               a folder with one folder of images per class
    cifar10.tar.gz/train        a folder inside a tar or zip archive, unpacked once into the cache
    photos.csv, photos.jsonl    a list of files, with labels or without, see `list_files`
    'photos/*.parquet', shards  Parquet files or shards of WebDataset, unpacked once into the cache, see `packed_files`
    s3://photos/train           any of these at an address, fetched into the cache by fsspec, see `remote_sources`
    digits/train, digits/test   scikit-learn's 1,797 scans of digits; every fifth scan of each digit is for testing
    torchvision:CIFAR10/train   a torchvision data set by name, downloaded once and written out as PNG files

What is no folder is written to the cache by `source_folders`. The class of a file is the folder directly under the root
that it is in, see `image_folders`, or its label in a list, which can give it several.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import MAX_CLASSES, classes_given
from semcut.connector.data.file_arguments import files_given, roots_given
from semcut.connector.data.image_folders import ImageFolder, Skipped, list_folder, warn_of_folders_in_two_classes
from semcut.connector.data.image_folders import class_of as class_of
from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.library_datasets import write_digits
from semcut.connector.data.list_files import ImageList, is_list, read_list, require_labels
from semcut.connector.data.listed_attributes import attribute_types_given
from semcut.connector.data.remote_sources import fetched, is_remote
from semcut.connector.data.source_folders import cached, source_folder
from semcut.indexes.argument_checks import (
    flag_given,
    instance_given,
    integer_given,
    number_given,
    possible_path_given,
    text_given,
)
from semcut.indexes.array_checks import integers_given
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.errors import DataError, InvalidParameterError, shown

DIGEST_BYTES = 16
"""Length of the digest of an image, see `image_contents`."""

_T = TypeVar("_T")

_PARTS = {"train", "test", "val", "valid", "validation"}
"""Names of the parts of a data set; folders with these names alone are no classes."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Image files with their classes.

    Attributes:
        files: n absolute paths.
        labels: (n,) int64; position of each file's class in `classes`, of its first one if it has several.
        classes: class names, in order of the labels: sorted, or as a network has them that is trained further.
        roots: folders in which the class folders are.
        digests: n digests of the contents, see `image_contents`; None if they were not computed.
        skipped: files and folders that were left out when the set was made, with reasons.
        label_sets: all labels of the n files; None if no file has several.

    Paths may be given as strings or as `os.PathLike`, and all values as any list; they are kept as above.

    Raises:
        DataError: `files` or `roots` is no list of paths.
        InvalidParameterError: another value has a wrong type, or does not fit the others.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    roots: tuple[str, ...] = ()
    digests: tuple[bytes, ...] | None = None
    skipped: tuple[Skipped, ...] = ()
    label_sets: LabelSets | None = None

    def __post_init__(self) -> None:
        files, classes = tuple(files_given("files", self.files)), classes_given("classes", self.classes)
        labels = integers_given("labels", self.labels, 0, len(classes) - 1, (len(files),))
        digests = None if self.digests is None else _of_type("digests", self.digests, bytes)
        if digests is not None and (len(digests) != len(files) or {*map(len, digests)} - {DIGEST_BYTES}):
            raise InvalidParameterError(
                f"digests = {shown(self.digests)}, expected {DIGEST_BYTES} bytes for each of the {len(files):,} files"
            )
        if self.label_sets is not None:
            instance_given("label_sets", self.label_sets, LabelSets)
            integers_given("label_sets", self.label_sets.labels, 0, len(classes) - 1)
            if not np.array_equal(self.label_sets.first(), labels):
                raise InvalidParameterError("label_sets do not fit labels: expected each label as the first of its set")
        for name, value in (
            ("files", files),
            ("labels", labels),
            ("classes", classes),
            ("roots", roots_given("roots", self.roots)),
            ("digests", digests),
            ("skipped", _of_type("skipped", self.skipped, tuple)),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def all_labels(self) -> LabelSets:
        """All labels of the n files, one or several of each."""
        return LabelSets.single(self.labels) if self.label_sets is None else self.label_sets

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """Select the images at these positions; `classes` stays the same.

        Raises:
            InvalidParameterError: a position is not from 0 to n - 1.
        """
        positions = integers_given("positions", positions, 0, len(self) - 1)
        return replace(
            self,
            files=tuple(self.files[i] for i in positions),
            labels=self.labels[positions],
            digests=None if self.digests is None else tuple(self.digests[i] for i in positions),
            label_sets=None if self.label_sets is None else self.label_sets[positions],
        )

    def sample(self, count: int, seed: int = 0) -> ImageSet:
        """Draw `count` images at random, balanced over the classes as far as their image counts allow.

        If there are at most `count` images, all of them are returned.

        Raises:
            InvalidParameterError: an argument is no integer of at least 0.
        """
        return self.subset(balanced_sample(self.labels, count, seed))

    def split(self, fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Hold out a fraction of the images of every class, drawn at random.

        Returns:
            The remaining images, and the images held out. The number held out from a class is rounded, but at least 1.

        Raises:
            InvalidParameterError: the fraction is not from 0 to 1, or the seed is no integer of at least 0.
        """
        held_out = self.held_out(fraction, seed)
        return self.subset(np.flatnonzero(~held_out)), self.subset(np.flatnonzero(held_out))

    def held_out(self, fraction: float, seed: int = 0) -> NDArray[np.bool_]:
        """Return which images `split` holds out: (n,) bool; errors as for `split`."""
        fraction, seed = number_given("fraction", fraction, 0, 1), integer_given("seed", seed, 0)
        rank = np.empty(len(self), np.int64)
        rng = np.random.default_rng(seed)
        held_out = np.zeros(len(self), bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            rank[members] = rng.permutation(len(members))
            held_out[members] = rank[members] < max(1, round(fraction * len(members)))
        return held_out

    def without(self, files: Iterable[str | os.PathLike[str]]) -> ImageSet:
        """Select all images except these files.

        Raises:
            DataError: `files` holds something else than paths.
        """
        excluded = set(files_given("files", files))
        return self.subset([i for i, file in enumerate(self.files) if file not in excluded])


def balanced_sample(labels: NDArray[np.integer[Any]], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Draw `count` of (n,) labels at random, balanced over the classes as far as their counts allow.

    Shuffles each class, then takes the first label of each class, then the second of each class, and so on.

    Returns:
        (min(count, n),) int64: sorted positions in `labels`.

    Raises:
        InvalidParameterError: a label, the count or the seed is no integer of at least 0.
    """
    labels = integers_given("labels", labels, 0, MAX_CLASSES - 1)
    count, seed = integer_given("count", count, 0), integer_given("seed", seed, 0)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    rank_in_class = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(rank_in_class, kind="stable")][:count])


def _of_type(name: str, values: Any, kind: type[_T]) -> tuple[_T, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, kind) for value in values):
        raise InvalidParameterError(f"{name} = {shown(values)}, expected a list of {kind.__name__}s")
    return tuple(values)


def load(source: str | os.PathLike[str]) -> ImageSet:
    """Find the images and classes of a labelled source, see `image_folders` for the rule, and `list_files`.

    Raises:
        DataError: the source does not exist, cannot be unpacked, or has fewer than two classes with files.
        InvalidParameterError: it is no path.
    """
    source = _local(possible_path_given("source", source))
    if is_list(source):
        return _labelled(read_list(source))
    place = source_folder(source)
    if place.labels is not None:
        listed = _labelled(replace(read_list(str(place.labels)), name=source))
        return replace(listed, roots=(str(place.root),))
    found = list_folder(place.root)
    classes = [name for name, members in found.classes.items() if members.files]
    only_parts = {name.lower() for name in classes} <= _PARTS
    if len(classes) < 2 or only_parts:
        inside = ", ".join(sorted(entry.name for entry in Path(found.root).iterdir())[:5]) or "nothing"
        advice = "give a folder that holds one folder of images per class"
        if classes and only_parts:
            advice = f"{', '.join(classes)} are parts of a data set, not classes: give {source}/{classes[0]}"
        raise DataError(
            f"{source} has {0 if only_parts else len(classes)} class folders with images, expected at least 2: "
            f"{advice} (this folder holds {inside})"
        )
    skipped = [
        *((members.path, "a folder without images, so it is no class") for members in found.classes.values()
          if not members.files),
        *((file, "it is in no class folder") for file in found.loose),
        *found.skipped,
    ]  # fmt: skip
    warn_of_folders_in_two_classes(found, stacklevel=2)
    files = [found.classes[name].files for name in classes]
    return ImageSet(
        tuple(file for members in files for file in members),
        np.repeat(np.arange(len(classes)), [len(members) for members in files]),
        tuple(classes),
        roots=(found.root,),
        skipped=tuple(skipped),
    )


def digits(part: Literal["train", "test"]) -> ImageSet:
    """Find the images of scikit-learn's digits; a folder of the user that is named `digits` is not looked at.

    Raises:
        DataError: the cache cannot be written to.
        InvalidParameterError: there is no such part.
    """
    if text_given("part", part) not in ("train", "test"):
        raise InvalidParameterError(f"part = {shown(part)}, expected train or test")
    return load(cached("digits-1", write_digits).absolute() / part)


def _labelled(found: ImageList) -> ImageSet:
    """Return the images of a list that have a label."""
    require_labels(found)
    classes = sorted({label for labels in found.labels for label in labels})
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{found.name} has labels of {len(classes):,} classes, expected 2 to {MAX_CLASSES:,}")
    label_of = {name: label for label, name in enumerate(classes)}
    pairs = list(zip(found.files, found.labels, strict=True))
    sets = LabelSets.of([[label_of[label] for label in labels] for _, labels in pairs if labels])
    return ImageSet(
        tuple(file for file, labels in pairs if labels),
        sets.first(),
        tuple(classes),
        roots=found.roots,
        skipped=(*((file, "it has no label") for file, labels in pairs if not labels), *found.skipped),
        label_sets=sets if (sets.counts > 1).any() else None,
    )


def _local(source: str) -> str:
    """Return a source on this machine: an address is fetched into the cache first."""
    return fetched(source) if is_remote(source) else source


def list_images(
    source: str | os.PathLike[str], attributes: Mapping[str, AttributeType] | None = None, *, ids: bool = False
) -> ImageFolder:
    """List the files of a source, with or without classes; those of a list are in no class.

    Args:
        source: the source.
        attributes: the attributes to read, with their types, if it is a list.
        ids: whether to read the ids of the files, if it is a list.

    Raises:
        DataError: as for `source_folder`, `list_folder` and `read_list`.
        InvalidParameterError: it is no path, or the attributes are no types by name.
    """
    types, source = attribute_types_given(attributes), _local(possible_path_given("source", source))
    if is_list(source):
        found = read_list(source, types, ids=flag_given("ids", ids))
        own = None if found.ids is None else found.ids.found()
        return ImageFolder(found.root, found.files, {}, found.skipped, [], found.listed.columns(), own)
    return list_folder(source_folder(source).root)
