"""Find the images of an index that its network was trained on, by the contents of their files.

Results for such images are better than for others: a network that has learned them by heart finds them again. The index
knows this of each record, see `file_facts`, so the network need not be at hand. Where the contents are not known
(records that another program added), or whether a network has seen them (an adopted network, an index of an earlier
version), nothing is counted.

Networks that do not record their training cannot leave anything out: that is an error, not an empty set.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from semcut.connector.data.training_digests import read_digests
from semcut.connector.retrieval.file_facts import FileFacts
from semcut.connector.retrieval.model_link import network_of, read_link
from semcut.indexes.errors import CheckpointError

LEFT_OUT = "the network was trained on it"
"""Why an image is left out of an index."""


class TrainedRecords(NamedTuple):
    """How many records of an index show images that its network was trained or validated on.

    Attributes:
        trained: number of these records.
        known: number of records of which it is known whether they do.
    """

    trained: int
    known: int


def trained_records(facts: Iterable[FileFacts], digests: Collection[bytes] | None = None) -> TrainedRecords:
    """Count the records of an index that a network was trained on.

    Args:
        facts: what is known of the file of each record.
        digests: digests of the images of the training, see `data.training_digests`; None for what the index knows.
    """
    if digests is None:
        flags = [fact.trained for fact in facts if fact.trained is not None]
        return TrainedRecords(sum(flags), len(flags))
    contents = {digest.hex() for digest in digests}
    found = [fact.digest in contents for fact in facts]
    return TrainedRecords(sum(found), len(found))


def training_of(network: Path) -> frozenset[bytes] | None:
    """Return the digests of the images that a network was trained and validated on; None if it does not record them."""
    try:
        return read_digests(network).all
    except CheckpointError:
        return None


def excluded_images(index: Path | None, model: Path | None = None) -> frozenset[bytes]:
    """Return the digests of the images that are left out of an index; empty unless training images are.

    Args:
        index: directory of the index; None for one in memory, of which nothing is left out.
        model: run directory of the network; None looks for it, see `network_of`.

    Raises:
        CheckpointError: the network does not record its training images, or is not there.
    """
    link = None if index is None else read_link(index)
    if index is None or link is None or not link.exclude_training:
        return frozenset()
    return read_digests(model or network_of(index, link)).all
