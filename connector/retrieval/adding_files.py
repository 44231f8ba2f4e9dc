"""Add files to an index: `semcut add`, `semcut index` and `Connector.add_files`.

A file whose path has a record already is skipped, or encoded anew if its content has changed. On request, a file with
the content of another one is skipped, too. No function here needs torch, unless the network has to encode something.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from semcut.connector.data.image_folders import Skipped
from semcut.connector.retrieval.file_changes import FileChanges, compare, same_contents, why_missing
from semcut.connector.retrieval.file_facts import FileFacts
from semcut.connector.retrieval.file_records import encode_into, note_touched, note_unreadable, target_ids
from semcut.connector.retrieval.folder_changes import require_listable
from semcut.connector.retrieval.given_attributes import GivenAttributes
from semcut.connector.retrieval.given_keys import require_keys
from semcut.connector.retrieval.indexed_files import IndexedFiles, observed, with_digest
from semcut.connector.retrieval.model_link import add_root, read_link
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress
from semcut.indexes.unfinished import adding, is_marked, work_id

if TYPE_CHECKING:
    from semcut.connector.retrieval.encoder import Encoder

_NO_FILE = "no such file"


@dataclass(frozen=True)
class Indexed:
    """The result of adding files.

    Attributes:
        added: number of records that were added.
        skipped: a pair (file, reason) for each file that cannot be read.
        replaced: number of records that were encoded anew, because the content of their file has changed.
        known: number of files that were left out, because they have a record, were given twice, or, on request, have
            the content of another file.
        updated: number of these records that got other attributes; they were not encoded again.
    """

    added: int
    skipped: list[Skipped]
    replaced: int = 0
    known: int = 0
    updated: int = 0


def add_paths(
    files: IndexedFiles,
    place: Path | None,
    paths: Sequence[str],
    encoder: Callable[[], Encoder],
    report: Progress,
    *,
    resume: bool = False,
    copies: bool = True,
    roots: Iterable[str] = (),
    work: Iterable[str] | None = None,
    given: GivenAttributes | None = None,
    keys: dict[str, str] | None = None,
    dry_run: bool = False,
    finish: Callable[[], None] | None = None,
) -> Indexed:
    """Add files to an index, and replace the records of those that have changed.

    Args:
        files: the files of the index.
        place: directory of the index; None if it has none.
        paths: the files.
        encoder: loads the network of the index, if files have to be encoded.
        report: called with the number of files that were encoded or cannot be read.
        resume: whether to leave out all files that have a record, and go on with the making of the index.
        copies: whether to add files with the content of another file.
        roots: folders whose folders are the classes of the files; they are recorded in the link of the index.
        work: what the files were found by, so that the same call is known again; None for the files themselves.
        given: attributes of the files; None for none. A record that is replaced keeps its others.
        keys: keys of the files by uri, see `keys_by_uri`; None for none.
        dry_run: whether nothing is changed; whether files can be read is not known then.
        finish: called when all files are there, before the index counts as finished; None for nothing.

    Raises:
        LockedError, ClosedIndexError: another writer is at work, or the index was closed; it is as it was before.
        StorageError: the index cannot be written, or was replaced meanwhile.
        CheckpointError: the network cannot be loaded, or did not make the index; nothing was changed.
        DataError, InvalidEncodingsError, DuplicateIdError: as for `require_keys`; nothing was changed.
    """
    with files.changing:
        files.given, files.keys = given or GivenAttributes(), keys or {}
        try:
            return _add(files, place, paths, encoder, report, resume, copies, roots, work, dry_run, finish)
        finally:
            files.given, files.keys = GivenAttributes(), {}


def _add(
    files: IndexedFiles, place: Path | None, paths: Sequence[str], encoder: Callable[[], Encoder], report: Progress,
    resume: bool, copies: bool, roots: Iterable[str], work: Iterable[str] | None, dry_run: bool,
    finish: Callable[[], None] | None,
) -> Indexed:  # fmt: skip
    files.index.next_id()  # checks that the index is open
    if not paths and not (place is not None and is_marked(place)):
        return Indexed(0, [])
    if not dry_run:
        files.begin()
    uris = list(dict.fromkeys(map(files.uri_of, paths)))
    found = _without_records(files, uris) if resume else compare(files, uris, retry=True)
    wanted = [*found.new, *found.changed]
    if not copies:
        link = None if place is None else read_link(place)
        wanted = _different(files, found, [] if link is None else [link.root or "", *link.roots])
    require_keys(files, [uri for uri in wanted if uri not in files.ids])
    skipped = [*((files.path_of(uri), _NO_FILE) for uri in found.missing), *found.refused]
    changed = set(found.changed)
    replaced = sum(uri in changed for uri in wanted)
    if dry_run:
        files.require_in_place()
        updated = files.update_attributes(changed, dry_run=True)
        return Indexed(len(wanted) - replaced, skipped, replaced, len(paths) - len(wanted) - len(skipped), updated)
    targets = list(target_ids(files, wanted).items())
    network = encoder() if targets else None
    if network is not None:
        files.require_made_by(network.checkpoint.digest)

    def change() -> tuple[dict[str, str], int]:
        unreadable = {} if network is None else encode_into(files, network, targets, found.seen, report)
        note_unreadable(files, unreadable, found.seen)
        note_touched(files, [*found.touched, *found.settled], found.seen)
        return unreadable, files.update_attributes()

    if place is None:
        unreadable, updated = change()
    else:
        outside = files.root is not None and any(uri.startswith("/") for uri in uris)
        of = work_id("add", uris if work is None else work)
        new = files.index.version == 0
        with adding(place, len(targets), len(files.index), makes=resume, new=new, of=of, outside=outside):
            for root in roots:
                add_root(place, root)
            unreadable, updated = change()
            if finish is not None:
                finish()
    skipped += [(files.path_of(uri), reason) for uri, reason in unreadable.items()]
    replaced -= sum(uri in changed for uri in unreadable)
    added = len(targets) - len(unreadable) - replaced
    return Indexed(added, skipped, replaced, len(paths) - added - replaced - len(skipped), updated)


def _without_records(files: IndexedFiles, uris: Sequence[str]) -> FileChanges:
    """Select the files without a record, without a look at the others."""
    ids = files.ids
    new = [uri for uri in uris if uri not in ids]
    return FileChanges(new, unchanged=len(uris) - len(new), seen={uri: observed(files.path_of(uri)) for uri in new})


def _different(files: IndexedFiles, found: FileChanges, roots: Sequence[str]) -> list[str]:
    """Select the new and changed files, without new ones whose content has a record, or is that of an earlier one."""
    known = files.known()
    contents = same_contents(files, known, found.new, found.seen)
    changed, is_there = set(found.changed), cache(_is_there)

    def is_mounted(path: str) -> bool:
        return is_there(_root_of(path, roots))

    recorded = {
        fact.digest
        for uri, fact in known.facts.items()
        if fact.digest in contents and uri not in changed and _has_still(files.path_of(uri), fact, is_mounted)
    }
    left_out = {uri for digest, uris in contents.items() for uri in (uris if digest in recorded else uris[1:])}
    return [*(uri for uri in found.new if uri not in left_out), *found.changed]


def _root_of(path: str, roots: Sequence[str]) -> str:
    """Return the deepest of these folders that has a file at any depth, or else its own folder."""
    folders = [root for root in roots if root and path.startswith(f"{root.rstrip('/')}/")]
    return max(folders, key=len, default=os.path.dirname(path))


def _is_there(folder: str) -> bool:
    """Return whether a folder can be listed and is not empty, as one that is not mounted is."""
    try:
        require_listable(folder, filled=True)
    except DataError:
        return False
    return True


def _has_still(path: str, fact: FileFacts, is_mounted: Callable[[str], bool]) -> bool:
    """Return whether a file has the content of its record; otherwise a sync would remove the record.

    A file that the system does not show, or whose folder may not be mounted, is taken to have it.
    """
    now = observed(path)
    if now is None:
        return why_missing(path) is not None or not is_mounted(path)
    if now.size != fact.size or now.mtime_ns == fact.mtime_ns:
        return now.size == fact.size
    found = with_digest(path, now)
    return found is not None and found.digest == fact.digest
