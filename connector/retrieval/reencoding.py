"""Encode all images of an index again, with another network: `semcut sync INDEX --reencode --model NETWORK`.

The new index is built beside the index, and replaces it in one step, see `indexes.storage.rebuilding`: until the last
image is encoded, every search answers with the former network, and after an interruption the same command begins again.
Records of files that are still there, or were moved, keep their ids. Nothing is lost in silence: records that FOLDER
does not account for, and images that cannot be read at the moment, end the command. A record is removed only if its
file was gone before the first image was encoded and still is, or is certainly no image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from semcut.connector.data.image_contents import digest_of, in_threads
from semcut.connector.data.image_uris import uri_of
from semcut.connector.data.training_digests import read_digests
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.file_changes import why_missing
from semcut.connector.retrieval.file_records import Target, encode_into, note_unreadable
from semcut.connector.retrieval.folder_changes import FolderChanges, folder_changes, require_listable
from semcut.connector.retrieval.folder_sync import Synced, is_no_image, unreadable_files
from semcut.connector.retrieval.given_attributes import GivenAttributes
from semcut.connector.retrieval.given_keys import refuse_folder
from semcut.connector.retrieval.indexed_files import IndexedFiles, observed
from semcut.connector.retrieval.model_link import (
    ModelLink,
    add_root,
    change_link,
    relative_place,
    required_link,
    write_link,
)
from semcut.connector.retrieval.relinking import require_finished
from semcut.connector.retrieval.search_defaults_of import ADOPTED, STANDARD
from semcut.connector.retrieval.trained_records import TRAINED
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.rebuilding import config_with_classes, rebuilt


class _Plan(NamedTuple):
    """What is done: the files to encode with the ids of their records, and training images that are left out."""

    changes: FolderChanges
    targets: list[Target]
    new: set[str]
    learned: dict[str, str]


def reencode_folder(
    index: FaissIndex,
    place: Path,
    folder: str,
    encoder: Callable[[], Encoder],
    report: Progress,
    *,
    given: GivenAttributes | None = None,
    dry_run: bool = False,
) -> Synced:
    """Encode all images of a folder again, and replace the index by one of their records.

    Args:
        index: the index, which is the writer from now on; afterwards it is the previous one, to be closed.
        place: directory of the index, not a link.
        folder: absolute path of the folder, from `folder_given`, which has the files of all records.
        encoder: loads the other network, whose codes and features have the same lengths.
        report: called with the number of files that were encoded or cannot be read.
        given: new attributes of files; the records of all others keep theirs.
        dry_run: whether nothing is changed.

    Raises:
        DataError: the ids of the index are strings, the folder cannot be listed or vanished meanwhile, records are of
            files that are not in it or came back meanwhile, images with a record cannot be read at the moment, or none
            can; the index is as it was, as after every other error.
        CheckpointError: codes or features of the network have other lengths, or training images are left out of the
            index and the network does not record its own.
        LockedError, StorageError, IndexExistsError: the index is being changed, is unfinished, or cannot be replaced.
        InvalidParameterError: the index has weights of its classes, and the network has more or fewer.
    """
    refuse_folder(index)
    if not dry_run:
        index.begin()
    require_finished(place)
    link, network = required_link(place), encoder()
    config = _config(index.config, network)
    files = IndexedFiles(index, place, link.root)
    plan = _planned(files, folder, link, network)
    seen = {uri: observed(files.path_of(uri)) for uri, _ in plan.targets}
    if dry_run:
        unreadable = unreadable_files(files, [uri for uri, _ in plan.targets])
        _require_readable(files, plan, unreadable)
        files.require_in_place()
        return _result(files, plan, plan.learned | unreadable)
    with rebuilt(place) as scratch, FaissIndex.create(scratch, config, engine="faiss") as new:
        _write_link(scratch, place, folder, link, network)
        written = IndexedFiles(new, scratch, link.root)
        written.given, written.former = given or GivenAttributes(), index  # records keep their ids, and attributes
        unreadable = encode_into(written, network, plan.targets, seen, report)
        _require_gone(files, plan.changes)
        _require_readable(files, plan, unreadable)
        if not len(new):
            raise DataError(f"none of the {len(plan.targets):,} images in {folder} can be encoded")
        learned = {uri: observed(files.path_of(uri)) for uri in plan.learned}
        note_unreadable(written, plan.learned | unreadable, seen | learned)
    return _result(files, plan, plan.learned | unreadable)


def _config(before: IndexConfig, network: Encoder) -> IndexConfig:
    found = network.index_config()
    if (found.bits, found.dim) != (before.bits, before.dim):
        raise CheckpointError(
            f"the network in {network.checkpoint.path} has codes of {found.bits} bits and features of {found.dim} "
            f"values, the index has {before.bits} and {before.dim}: make a new index with `semcut index`"
        )
    return config_with_classes(before, found.classes)


def _planned(files: IndexedFiles, folder: str, link: ModelLink, network: Encoder) -> _Plan:
    changes = folder_changes(files, folder)
    moved_ids = {record for _, record in changes.moved}
    moved = {uri for uri, _ in changes.moved}
    left = {uri: record for uri, record in files.ids.items() if record not in changes.gone and record not in moved_ids}
    outside = [files.path_of(uri) for uri in left if not files.path_of(uri).startswith(f"{folder}/")]
    outside += [str(uri) for uri, record in files.other_records if record not in changes.gone | changes.doubles]
    if outside:
        raise DataError(
            f"the index has {len(outside):,} records of files that are not in {folder}, such as {outside[0]}, and all "
            "records have to be encoded again: give a FOLDER that has all files, or remove these with `semcut remove`"
        )
    again = [uri_of(path, link.root) for path, _ in changes.files.unreadable]
    new = [uri for uri in (*changes.files.new, *again) if uri not in moved]
    targets = sorted(((uri, record) for uri, record in (*left.items(), *changes.moved)), key=lambda pair: pair[1])
    free = files.index.next_id()
    targets += [(uri, free + place) for place, uri in enumerate(new)]
    learned: dict[str, str] = {}
    if link.exclude_training:
        digests = read_digests(network.checkpoint.path).all
        found = in_threads(digest_of, [files.path_of(uri) for uri, _ in targets])
        learned = {uri: TRAINED for (uri, _), digest in zip(targets, found, strict=True) if digest in digests}
    return _Plan(changes, [pair for pair in targets if pair[0] not in learned], set(new), learned)


def _write_link(scratch: Path, place: Path, folder: str, link: ModelLink, network: Encoder) -> None:
    checkpoint = network.checkpoint
    write_link(
        scratch,
        model=checkpoint.path,
        sha256=checkpoint.digest,
        head=checkpoint.net.architecture.head,
        binarisation=checkpoint.net.binarisation,
        roots=link.roots,
        root=link.root,
        exclude_training=link.exclude_training,
        **(ADOPTED if isinstance(checkpoint.net, AdoptedNet) else STANDARD).content(),
    )
    change_link(scratch, beside=relative_place(os.path.abspath(checkpoint.path), place))
    add_root(scratch, folder)


def _require_gone(files: IndexedFiles, changes: FolderChanges) -> None:
    """Raise `DataError` if the folder vanished since it was listed, or files that were gone then may be there now."""
    require_listable(changes.folder, filled=True)
    paths = [files.path_of(uri) for uri in changes.gone.values()]
    if back := [path for path in paths if why_missing(path) is not None]:
        raise DataError(
            f"{len(back):,} files with a record were gone when the command began, and may be back, such as {back[0]}; "
            "nothing was changed: begin again"
        )


def _require_readable(files: IndexedFiles, plan: _Plan, unreadable: dict[str, str]) -> None:
    """Raise `DataError` if an image with a record, also of a moved file, cannot be read, and may still be an image."""
    kept = [uri for uri in unreadable if uri not in plan.new]
    if lost := [uri for uri in kept if not is_no_image(files.path_of(uri), unreadable[uri])]:
        raise DataError(
            f"{len(lost):,} images with a record cannot be read at the moment, such as {files.path_of(lost[0])}: "
            f"{unreadable[lost[0]]}; nothing was changed"
        )


def _result(files: IndexedFiles, plan: _Plan, unreadable: dict[str, str]) -> Synced:
    encoded = {uri for uri, _ in plan.targets if uri not in unreadable}
    moved = sum(uri in encoded for uri, _ in plan.changes.moved)
    added = len(encoded & plan.new)
    replaced = len(encoded) - added - moved
    return Synced(
        plan.changes.folder,
        added=added,
        replaced=replaced,
        moved=moved,
        removed=len(files.index) - replaced - moved,
        encoded=len(encoded),
        skipped=[
            *(pair for pair in plan.changes.skipped if pair not in plan.changes.files.unreadable),
            *((files.path_of(uri), why) for uri, why in unreadable.items()),
        ],
    )
