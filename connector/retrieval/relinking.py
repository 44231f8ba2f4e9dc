"""Link an index to a later network of the same features and codes, such as one with more classes: `semcut relink`.

No image is encoded again. The records keep their codes, features and probabilities, and get probabilities of 0 for the
classes that are new: an image of a new class that is in the index already is found by its old classes, until it is
encoded again. Images that are added from now on are encoded by the later network.

The index is built anew beside itself, and replaced in one step, see `indexes.storage.rebuilding`: its number of classes
and the link to its network change together, or not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from semcut.connector.data.model_file import MODEL
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.encoding_parts import different_part
from semcut.connector.models.network import SemanticHashNet
from semcut.connector.retrieval.model_link import (
    ModelLink,
    change_link,
    network_of,
    relative_place,
    required_link,
)
from semcut.connector.retrieval.records_by_uri import known_of_snapshot
from semcut.connector.retrieval.trained_records import training_of
from semcut.indexes.argument_checks import callback_given, path_given
from semcut.indexes.errors import CheckpointError, StorageError
from semcut.indexes.open_with import open_with
from semcut.indexes.progress import Progress
from semcut.indexes.storage.rebuilding import config_with_classes, rebuilt, write_with_more_classes
from semcut.indexes.storage.store import Store
from semcut.indexes.unfinished import is_marked

_KEEPS: dict[type, str] = {
    SemanticHashNet: "`semcut train --freeze-codes`",
    AdoptedNet: "`semcut adopt` with further vectors of classes, the same images and the same seed",
}
"""What makes a later network with the same features and codes, by the kind of the former one."""


@dataclass(frozen=True)
class Relinked:
    """The result of `relink`: the names of the new classes, and the number of records of the index."""

    new_classes: tuple[str, ...]
    records: int


def relink(
    index: str | os.PathLike[str], model: str | os.PathLike[str], *, progress: Progress | None = None
) -> Relinked:
    """Link a stored index to a later network, whose features and codes are the same.

    Args:
        index: directory of the index.
        model: run directory of the later network.
        progress: called with the number of records written so far, and the total number of records.

    Raises:
        CheckpointError: a network cannot be loaded, the later one computes other features or codes or does not begin
            with the classes of the former, or it is a function that was adopted, whose code cannot be compared.
        NotAnIndexError: there is no index of images.
        LockedError, StorageError, IndexExistsError: the index is being changed, is unfinished, or cannot be replaced;
            it is as it was.
        DamagedIndexError: a record is damaged; the index is as it was.
        InvalidParameterError: an argument is of another type, or the index has weights of its classes.
    """
    place, network = Path(os.path.realpath(path_given("index", index))), path_given("model", model)
    callback_given("progress", progress)
    store, link = open_with(lambda: Store.open(place), lambda _: required_link(place))
    try:
        later = Checkpoint.load(network)
        if later.digest == link.sha256:
            return Relinked((), len(store.snapshot))
        new = _new_classes(later, former_network(place, link), place)
        store.begin()
        require_finished(place)
        config = config_with_classes(store.config, len(later.net.architecture.classes))
        snapshot = store.snapshot
        with rebuilt(place) as scratch:
            write_with_more_classes(snapshot, place, scratch, config, progress)
            values = {"model": os.path.abspath(network), "beside": relative_place(network, place)}
            change_link(scratch, **values, sha256=later.digest)
            digests = training_of(later.path)
            contents = None if digests is None else {digest.hex() for digest in digests}
            root = required_link(scratch).root
            known_of_snapshot(scratch, snapshot, root).mark_trained(snapshot.committed.version + 1, contents)
        return Relinked(new, len(snapshot))
    finally:
        store.close()


def former_network(index: Path, link: ModelLink) -> Checkpoint:
    """Load the network that made an index.

    Raises:
        CheckpointError: it is not there, or is another one by now.
    """
    place = network_of(index, link)
    if not (place / MODEL).exists():
        raise CheckpointError(
            f"{place} holds no model any more, which made the index {index} and has to be compared: give its new place "
            "with `semcut relocate --model DIRECTORY`"
        )
    found = Checkpoint.load(place)
    if found.digest != link.sha256:
        raise CheckpointError(
            f"the network in {place} did not make the index {index}, and the one that did has to be compared: give "
            "its place with `semcut relocate --model DIRECTORY`"
        )
    return found


def require_finished(index: Path) -> None:
    """Raise `StorageError` if an index is marked as unfinished: no later network ends the work that was begun."""
    if is_marked(index):
        raise StorageError(f"{index} is unfinished: end what was begun there first, with the network that it has")


def _new_classes(later: Checkpoint, former: Checkpoint, index: Path) -> tuple[str, ...]:
    """Check that a network may follow another one, and return the names of its further classes."""
    again = f"encode the images again with `semcut sync {index} --reencode --model {later.path}`"
    if isinstance(later.net, AdoptedNet) and later.net.architecture.source == "python":
        raise CheckpointError(f"the code of a function cannot be compared with that of an earlier one: {again}")
    before, after = former.net.architecture.classes, later.net.architecture.classes
    if after[: len(before)] != before:
        raise CheckpointError(
            f"the classes of {later.path} do not begin with those of the network that made {index}: only "
            f"{_KEEPS[type(former.net)]} adds classes to it, or {again}"
        )
    part = different_part(former.net, later.net)
    if part is not None:
        raise CheckpointError(
            f"{later.path} computes other features or codes than the network that made {index} ({part} differs; only "
            f"{_KEEPS[type(former.net)]} keeps them): {again}"
        )
    return after[len(before) :]
