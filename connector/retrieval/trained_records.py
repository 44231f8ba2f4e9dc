"""Count the records of an index whose images its network was trained on, by the contents of their files.

Results for such images are better than for others: a network that has learned them by heart finds them again. Where the
contents are not known (an index of an earlier version, records that another program added), nothing is counted.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from semcut.connector.data.training_digests import read_digests
from semcut.connector.retrieval.indexed_files import IndexedFiles
from semcut.connector.retrieval.model_link import network_of, read_link, require_network
from semcut.indexes.errors import CheckpointError

TRAINED = "the network was trained on it"
"""Why a file is left out."""


class TrainedRecords(NamedTuple):
    """How many records of an index show images that its network was trained or validated on.

    Attributes:
        trained: number of these records.
        known: number of records whose contents are known, of which these are counted.
    """

    trained: int
    known: int


def trained_records(files: IndexedFiles, digests: Collection[bytes]) -> TrainedRecords:
    """Count the records of an index that a network was trained on.

    Args:
        files: the files of the index.
        digests: digests of the images of the training, see `data.training_digests`.
    """
    facts = files.known().facts.values()
    contents = {digest.hex() for digest in digests}
    return TrainedRecords(sum(fact.digest in contents for fact in facts), len(facts))


def training_of(network: Path) -> frozenset[bytes] | None:
    """Return the digests of the images that a network was trained and validated on; None if it does not record them."""
    try:
        return read_digests(network).all
    except CheckpointError:
        return None


def contents_left_out(index: Path | None, network: Path | None = None) -> frozenset[str]:
    """Return the digests, in hex, of the images that `semcut sync` does not add: see `exclude_training` of a link.

    Args:
        index: directory of the index; None if it has none.
        network: run directory of its network; None if it is where the link says.

    Raises:
        CheckpointError: there are such images, and the network, or what it was trained on, cannot be read.
    """
    link = None if index is None else read_link(index)
    if index is None or link is None or not link.exclude_training:
        return frozenset()
    place = network or network_of(index, link)
    require_network(place, link.sha256)
    return frozenset(digest.hex() for digest in read_digests(place).all)
