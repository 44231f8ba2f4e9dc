"""Protocols of published results: which images are for training, which are indexed, which are queries.

    name         queries            training images     database
    cifar10      1,000 test images  5,000               the other 54,000
    cifar10-1    1,000 test images  5,000               the other 59,000, including the training images
    cifar10-2    all test images    all                 the training images
    tin200       all val images     all                 the training images

The data is a folder or an archive with two folders of class folders: `train`, and `test` or `val`. Where a protocol
takes only some of the images, they are drawn at random with the given seed, the same number from each class. The
validation images, by which training chooses the epoch, are taken from the training images (see `training`), so queries
are not used before the evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from semcut.connector.data import ProtocolName
from semcut.connector.data.image_contents import digests_of
from semcut.connector.data.sources import ImageSet, load
from semcut.indexes.argument_checks import instance_given, integer_given, possible_path_given
from semcut.indexes.errors import DataError, InvalidParameterError, shown


class ProtocolSplit(NamedTuple):
    """The images of a data set, divided by a protocol. No query is a training image or in the database."""

    training: ImageSet
    database: ImageSet
    queries: ImageSet


@dataclass(frozen=True)
class Protocol:
    """A protocol: how it divides a data set, and how results are reported.

    Attributes:
        queries_from: the folder that queries are drawn from.
        queries: number of queries; None for all images of the folder.
        training: number of training images; None for all images of `train`.
        database: "training": the training images; "others": all images except queries and training images; "rest": all
            images except queries.
        k: the k of mAP@k.
        published_k: the k of the mAP@k in published results; None if they report mAP@all.
    """

    queries_from: str
    queries: int | None
    training: int | None
    database: Literal["training", "others", "rest"]
    k: int
    published_k: int | None = None


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "cifar10": Protocol("test", 1000, 5000, "others", 100),
    "cifar10-1": Protocol("test", 1000, 5000, "rest", 100),
    "cifar10-2": Protocol("test", None, None, "training", 100),
    "tin200": Protocol("val", None, None, "training", 1000, 1000),
}


def protocol_split(name: ProtocolName, source: str | os.PathLike[str], seed: int = 0) -> ProtocolSplit:
    """Divide a data set into training images, database and queries by a protocol.

    Args:
        name: name of the protocol.
        source: folder or archive with the folders `train` and `test` or `val`; see `sources`.
        seed: seed of the random choice of training images and queries.

    Raises:
        DataError: a folder is missing, the two folders have different classes, or there are too few images.
        InvalidParameterError: no protocol has this name, or another argument is of another type.
    """
    protocol = PROTOCOLS[_known(name)]
    source, seed = possible_path_given("source", source), integer_given("seed", seed, 0)
    train, others = load(f"{source}/train"), load(f"{source}/{protocol.queries_from}")
    if train.classes != others.classes:
        raise DataError(
            f"{source}: the folders train and {protocol.queries_from} have different classes "
            f"({len(train.classes)} and {len(others.classes)}): {name} needs the same classes in both"
        )
    training = _draw(train, protocol.training, f"{source}/train", name, seed)
    queries = _draw(others, protocol.queries, f"{source}/{protocol.queries_from}", name, seed)
    if protocol.database == "training":
        return ProtocolSplit(training, training, queries)
    all_images = ImageSet(
        train.files + others.files,
        np.concatenate([train.labels, others.labels]),
        train.classes,
        roots=train.roots + others.roots,
        skipped=train.skipped + others.skipped,
    )
    rest = all_images.without(queries.files)
    return ProtocolSplit(training, rest if protocol.database == "rest" else rest.without(training.files), queries)


def check_protocol(
    name: ProtocolName, expected: ProtocolSplit, trained: Collection[bytes], indexed: Sequence[str | None]
) -> None:
    """Check that a network was trained, and an index was built, on exactly the images of a protocol.

    With other images, an evaluation by the protocol is not valid: the network may have been trained on queries. Images
    are compared by their contents, so the data may have been moved.

    Args:
        name: name of the protocol.
        expected: the images of the protocol.
        trained: digests of the images that the network was trained and validated on.
        indexed: uris of all records of the index.

    Raises:
        DataError: the network or the index has other images.
        InvalidParameterError: no protocol has this name, or another argument is of another type.
    """
    _known(name)
    instance_given("expected", expected, ProtocolSplit, "protocol_split makes one")
    for what, values, kinds in (("trained", trained, (bytes,)), ("indexed", indexed, (str, type(None)))):
        if not isinstance(values, list | tuple | set | frozenset) or not all(isinstance(one, kinds) for one in values):
            raise InvalidParameterError(f"{what} = {shown(values)}, expected a list of digests or of uris")
    same_files = set(indexed) == set(expected.database.files)
    contents = set(trained), set() if same_files else set(digests_of([uri or "" for uri in indexed]))
    for what, given, part, command in (
        ("the network was trained on", contents[0], expected.training, "train"),
        ("the index holds", contents[1], expected.database, "index"),
    ):
        if command == "index" and same_files:
            continue
        selected = set(digests_of(part.files))
        wrong, missing = given - selected, selected - given
        if wrong or missing:
            raise DataError(
                f"{what} {len(given):,} images; {len(wrong):,} of them are not among the {len(part):,} "
                f"images that {name} selects, and {len(missing):,} selected images are missing: give "
                f"`semcut {command}` the same --protocol, --seed and data"
            )


def _known(name: ProtocolName) -> ProtocolName:
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise InvalidParameterError(f"name = {shown(name)}, expected {', '.join(PROTOCOLS)}")
    return name


def _draw(images: ImageSet, count: int | None, folder: str, name: str, seed: int) -> ImageSet:
    if count is None:
        return images
    if len(images) < count:
        raise DataError(f"{folder} has {len(images)} images, but {name} draws {count} of them")
    return images.sample(count, seed)
