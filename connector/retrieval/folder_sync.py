"""Bring an index in step with a folder: `semcut sync`.

1. The folder is listed and compared with the records; if nothing has changed, that is all, and no network is loaded.
2. The index is marked as unfinished, see `indexes.unfinished`.
3. Files that were moved or copied get the encodings of the records that have their content.
4. The network encodes the files that are new or have changed.
5. Records whose file is gone, is no image any more, has become a training image that is left out, or has another
   record, are removed, after another look at the folder and the files.
6. The mark is deleted.

If the process ends in between, each record is that of its file before or after the change, and the next call does the
rest. No function here needs torch, unless the network has to encode something.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcut.connector.data.decoding_pool import Limits
from semcut.connector.data.image_contents import digest_of, in_threads
from semcut.connector.data.image_folders import Skipped
from semcut.connector.data.images import PassingReason, UnreadableImage, check_image
from semcut.connector.retrieval.file_changes import why_missing
from semcut.connector.retrieval.file_records import (
    copy_into,
    encode_into,
    note_left_out,
    note_touched,
    note_unreadable,
    target_ids,
)
from semcut.connector.retrieval.folder_changes import FolderChanges, folder_changes, require_listable
from semcut.connector.retrieval.given_keys import refuse_folder
from semcut.connector.retrieval.indexed_files import IndexedFiles
from semcut.connector.retrieval.model_link import add_root
from semcut.connector.retrieval.trained_records import TRAINED, contents_left_out
from semcut.indexes.progress import Progress
from semcut.indexes.unfinished import adding, is_marked, work_id

if TYPE_CHECKING:
    from semcut.connector.retrieval.encoder import Encoder


@dataclass(frozen=True)
class Synced:
    """The result of a sync: numbers of records, or of files.

    Attributes:
        folder: absolute path of the folder.
        added: records of new files.
        replaced: records of files whose content has changed, or of which nothing was known.
        moved: records whose file was moved or renamed.
        removed: records whose file is gone, is no image any more, became a training image that is left out, or has
            another record.
        touched: records whose file has another time of modification, and the same content.
        unchanged: records of other files in the folder.
        others: records of files that are not in the folder, or cannot be looked at; they are left alone.
        encoded: how many of the records were encoded by the network, and not copied.
        skipped: files and folders that were left out, with reasons.
        updated: records that got other attributes, and were not encoded again.
    """

    folder: str
    added: int = 0
    replaced: int = 0
    moved: int = 0
    removed: int = 0
    touched: int = 0
    unchanged: int = 0
    others: int = 0
    encoded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    updated: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all values, as JSON has them."""
        return asdict(self)


def sync_folder(
    files: IndexedFiles,
    place: Path | None,
    folder: str,
    encoder: Callable[[], Encoder],
    report: Progress,
    *,
    whole: bool,
    dry_run: bool = False,
    network: Path | None = None,
) -> Synced:
    """Bring an index in step with a folder.

    Args:
        files: the files of the index, with the attributes that files are given.
        place: directory of the index; None if it has none.
        folder: absolute path of the folder, from `folder_given`.
        encoder: loads the network of the index, if files have to be encoded.
        report: called with the number of files that were encoded or cannot be read.
        whole: whether the folder has all images of the index, so that a command that filled it need not go on.
        dry_run: whether nothing is changed.
        network: run directory of the network, if it is not where the link of the index says.

    Raises:
        DataError: as for `folder_changes`, or the folder vanished meanwhile; then no record is removed. Or the ids of
            the index are strings.
        LockedError, StorageError: the index cannot be changed, or was replaced meanwhile.
        CheckpointError: the network, or what it was trained on, cannot be read, or it did not make the index; nothing
            was changed.
    """
    refuse_folder(files.index)
    with files.changing:
        done = _sync(files, place, folder, encoder, report, whole, dry_run, network)
        return done if dry_run else replace(done, updated=files.update_attributes())


def _sync(
    files: IndexedFiles, place: Path | None, folder: str, encoder: Callable[[], Encoder], report: Progress,
    whole: bool, dry_run: bool, model: Path | None,
) -> Synced:  # fmt: skip
    left_out = partial(contents_left_out, place, model)
    plan = folder_changes(files, folder, left_out)
    if dry_run:
        unreadable = unreadable_files(files, plan.encoded)
        files.require_in_place()
        updated = files.update_attributes(plan.files.changed, dry_run=True)
        return replace(_result(files, plan, unreadable, no_images(files, unreadable)), updated=updated)
    if not plan.any and (place is None or not is_marked(place)):
        files.require_in_place()
        return _result(files, plan, {}, [])
    version = files.index.version
    files.begin()
    if files.index.version != version:  # another process has changed it since it was opened
        plan = folder_changes(files, folder, left_out)
    network = encoder() if plan.encoded else None
    if network is not None:
        files.require_made_by(network.checkpoint.digest)
    if place is None:
        return _apply(files, plan, network, report)
    work = sync_id(folder, files.root)
    outside = not whole and not f"{folder}/".startswith(f"{files.root}/")
    with adding(place, len(plan.files.new), len(files.index), whole=whole, of=work, outside=outside):
        add_root(place, folder)
        return _apply(files, plan, network, report)


def sync_id(folder: str, root: str | None) -> str:
    """Return what identifies the sync with a folder for a mark: the same after the folder was moved with its root."""
    below = root is not None and f"{folder}/".startswith(f"{root}/")
    return work_id("sync", [os.path.relpath(folder, root) if below else folder])


def _apply(files: IndexedFiles, plan: FolderChanges, encoder: Encoder | None, report: Progress) -> Synced:
    seen = plan.files.seen
    copy_into(files, [(target, target[1]) for target in plan.moved], seen)
    ids = target_ids(files, [*(uri for uri, _ in plan.copied), *plan.encoded])
    copy_into(files, [((uri, ids[uri]), source) for uri, source in plan.copied], seen)
    unreadable: dict[str, str] = {}
    if encoder is not None:
        unreadable = encode_into(files, encoder, [(uri, ids[uri]) for uri in plan.encoded], seen, report)
    no_image = no_images(files, unreadable)
    gone = {record: uri for record, uri in plan.gone.items() if why_missing(files.path_of(uri)) is None}
    doubles = _doubles(plan, unreadable, no_image)
    removed = gone | plan.learned | doubles | {files.ids[uri]: uri for uri in no_image}
    if removed:
        require_listable(plan.folder, filled=True)
        files.remove(removed)
    note_unreadable(files, unreadable, seen)
    note_left_out(files, [files.path_of(uri) for uri in plan.trained], TRAINED)
    note_touched(files, [*plan.files.touched, *plan.files.settled], seen)
    return _result(files, replace(plan, gone=gone), unreadable, no_image)


def no_images(files: IndexedFiles, unreadable: dict[str, str]) -> list[str]:
    """Return which of the files that cannot be read have a record, and are certainly no images, or are gone.

    A file of which no decoder has judged the bytes, or that cannot be read now, may still be an image.
    """
    return [
        uri
        for uri, reason in unreadable.items()
        if uri in files.ids
        if why_missing(path := files.path_of(uri)) is None or is_no_image(path, reason)
    ]


def is_no_image(path: str, reason: str) -> bool:
    """Return whether a file is there and is certainly no image: a decoder gave the reason, by its bytes."""
    return not isinstance(reason, PassingReason) and digest_of(path) is not None


def _doubles(plan: FolderChanges, unreadable: Collection[str], no_image: Collection[str]) -> dict[int, str]:
    """Return the other records to remove; that of a file that could not be encoded now may be the true one."""
    return {record: uri for record, uri in plan.doubles.items() if uri not in unreadable or uri in no_image}


def unreadable_files(files: IndexedFiles, uris: list[str]) -> dict[str, str]:
    """Decode files, only to see which cannot be read, and why."""
    limits = Limits.for_callers(2)

    def reason(uri: str) -> str:
        try:
            check_image(files.path_of(uri), limits)
        except UnreadableImage as why:
            return why.reason
        return ""

    return {uri: why for uri, why in zip(uris, in_threads(reason, uris), strict=True) if why}


def _result(files: IndexedFiles, plan: FolderChanges, unreadable: dict[str, str], no_image: list[str]) -> Synced:
    found, changed = plan.files, set(plan.files.changed)
    not_replaced = sum(uri in changed for uri in unreadable)
    doubles = len(_doubles(plan, unreadable, no_image))
    return Synced(
        plan.folder,
        added=len(found.new) - len(plan.moved) - (len(unreadable) - not_replaced),
        replaced=len(found.changed) - not_replaced,
        moved=len(plan.moved),
        removed=len(plan.gone) + len(plan.learned) + doubles + len(no_image),
        touched=len(found.touched),
        unchanged=found.unchanged + len(found.settled),
        others=plan.others + not_replaced - len(no_image) + len(plan.doubles) - doubles,
        encoded=len(plan.encoded) - len(unreadable),
        skipped=[*plan.skipped, *((files.path_of(uri), why) for uri, why in unreadable.items())],
    )
