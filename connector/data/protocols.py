"""Protocols of published results, by name: which images are trained on, searched, and asked for.

    name         queries            training images     database
    cifar10      1,000 test images  5,000               the other 54,000
    cifar10-1    1,000 test images  5,000               the other 59,000, training images among them
    cifar10-2    all test images    all                 the training images
    tin200       all val images     all                 the training images

The data is a folder or archive with one folder of class folders for training images and one for others: `train` and
`test`, or `train` and `val`. What is drawn is drawn at random by the seed, evenly over the classes. Validation images,
which choose the epoch, are a part of the training images (`training`): queries are never looked at before they are
asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from semcut.connector.data.sources import ImageSet, load
from semcut.connector.models.names import ProtocolName
from semcut.indexes.errors import DataError


class Parts(NamedTuple):
    """The images of a protocol. Queries are in none of the other parts."""

    training: ImageSet
    database: ImageSet
    queries: ImageSet


@dataclass(frozen=True)
class Protocol:
    """How images are divided.

    Attributes:
        queries_from: the folder of the queries.
        queries, training: how many; None for all.
        database: "training": the training images; "others": all but queries and training images; "rest": all but
            queries.
        k: places that mAP@k counts.
        published_k: places that published results count; None for all.
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


def parts(name: ProtocolName, source: str, seed: int = 0) -> Parts:
    """The images of a protocol.

    Args:
        name: of the protocol.
        source: folder or archive with the folders `train` and `test` or `val`, see `data`.
        seed: of what is drawn.

    Raises:
        DataError: a folder is missing, they have different classes, or there are too few images.
    """
    protocol = PROTOCOLS[name]
    train, others = load(f"{source}/train"), load(f"{source}/{protocol.queries_from}")
    if train.classes != others.classes:
        raise DataError(
            f"{source}: the folders train and {protocol.queries_from} have different classes "
            f"({len(train.classes)} and {len(others.classes)}): {name} needs the same in both"
        )
    training = _drawn(train, protocol.training, f"{source}/train", name, seed)
    queries = _drawn(others, protocol.queries, f"{source}/{protocol.queries_from}", name, seed)
    if protocol.database == "training":
        return Parts(training, training, queries)
    every = ImageSet(train.files + others.files, np.concatenate([train.labels, others.labels]), train.classes)
    rest = every.without(queries.files)
    return Parts(training, rest if protocol.database == "rest" else rest.without(training.files), queries)


def check(name: ProtocolName, expected: Parts, trained: Iterable[str], indexed: Iterable[str | None]) -> None:
    """See that a network was trained, and an index made, as a protocol says, so that no query has been seen.

    Args:
        name: of the protocol.
        expected: its parts.
        trained: files that the network was trained and validated on.
        indexed: uris of all records.

    Raises:
        DataError: they were not.
    """
    for what, given, part, command in (
        ("the network was trained on", set(trained), expected.training, "train"),
        ("the index holds", set(indexed), expected.database, "index"),
    ):
        wrong, missing = given - set(part.files), set(part.files) - given
        if wrong or missing:
            raise DataError(
                f"{what} {len(given):,} images, of which {len(wrong):,} are none of the {len(part):,} that {name} "
                f"says, and {len(missing):,} of these are missing: give `semcut {command}` the same --protocol, "
                "--seed and data"
            )


def _drawn(images: ImageSet, count: int | None, where: str, name: str, seed: int) -> ImageSet:
    if count is None:
        return images
    if len(images) < count:
        raise DataError(f"{where} has {len(images)} images, but {name} draws {count} of them")
    return images.sample(count, seed)
