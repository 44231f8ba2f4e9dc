"""Find the images of an index that its network was trained on, by the contents of their files.

Results for such images are better than for others: a network that has learned them by heart finds them again. The index
knows this of each record, see `file_facts`, so the network need not be at hand. Where the contents are not known
(records that another program added), or whether a network has seen them (an adopted network, an index of an earlier
version), nothing is counted.

Networks that do not record their training cannot leave anything out: that is an error, not an empty set.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semcut.connector.data.training_digests import read_digests
from semcut.connector.retrieval.file_facts import MOST_STRANGE, FileFacts, stored_lines
from semcut.connector.retrieval.model_link import network_of, read_link, require_network
from semcut.connector.retrieval.records_by_uri import canonical_names
from semcut.indexes.errors import CheckpointError
from semcut.indexes.storage.directory import FACTS
from semcut.indexes.storage.snapshot import Snapshot

TRAINED = "the network was trained on it"
"""Why a file is left out of an index."""
_AT_ONCE = 10_000


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


def recorded_training(index: Path, snapshot: Snapshot, root: str | None) -> TrainedRecords:
    """Count the records of a stored index that its network was trained on, by what the index knows, see `file_facts`.

    Takes about 30 bytes of memory and 3 us a record, so that `semcut info` can count those of large indexes.

    Args:
        index: directory of the index.
        snapshot: its records.
        root: folder to which uris are relative.

    Raises:
        DamagedIndexError: the uris of the records cannot be read.
    """
    if not os.path.lexists(index / FACTS):
        return TrainedRecords(0, 0)
    ids = snapshot.columns.reading(lambda: snapshot.columns.ids[snapshot.live])
    order = np.argsort(ids)
    ids, rows = ids[order], snapshot.live[order]
    uris = np.empty(len(ids), np.int64)  # their hashes
    for start in range(0, len(ids), _AT_ONCE):
        names = canonical_names(snapshot.columns.uris(rows[start : start + _AT_ONCE]), root)
        uris[start : start + len(names)] = list(map(hash, names))
    flags, strange = np.full(len(ids), -1, np.int8), 0
    lines = stored_lines(index / FACTS)
    while part := list(islice(lines, _AT_ONCE)):
        strange += part.count(None)
        if strange > MOST_STRANGE or not len(ids):
            return TrainedRecords(0, 0)
        those = [line for line in part if line is not None and line[1] >= 0 and line[0] <= snapshot.committed.version]
        named = np.array([line[1] for line in those], np.int64)
        said = np.array([line[6] if len(line) == 7 else -1 for line in those], np.int8)
        at = np.minimum(np.searchsorted(ids, named), len(ids) - 1)
        same = (ids[at] == named) & (uris[at] == np.array([hash(line[2]) for line in those], np.int64))
        flags[at[same]] = said[same]  # of several lines of a record, the last one stays
    return TrainedRecords(int(np.count_nonzero(flags == 1)), int(np.count_nonzero(flags >= 0)))


def training_of(network: Path) -> frozenset[bytes] | None:
    """Return the digests of the images that a network was trained and validated on; None if it does not record them."""
    try:
        return read_digests(network).all
    except CheckpointError:
        return None


def contents_left_out(index: Path | None, network: Path | None = None) -> frozenset[str]:
    """Return the digests, in hex, of the images that `semcut sync` leaves out: see `exclude_training` of a link.

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
