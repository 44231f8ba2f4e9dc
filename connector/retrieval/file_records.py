"""Make the records of files: encode files with a network, or copy the encodings of records with the same content.

Records are committed in batches. If the process ends in between, the batches that were committed are in the index, and
what is known of their files fits them: see `indexed_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from semcut.connector.data.images import PassingReason
from semcut.connector.retrieval.file_changes import add_digests
from semcut.connector.retrieval.file_facts import FileFacts, Unreadable
from semcut.connector.retrieval.indexed_files import IndexedFiles, Observed, observed
from semcut.indexes import Encodings
from semcut.indexes.argument_checks import integer_given
from semcut.indexes.keys import ids_of
from semcut.indexes.progress import Progress

if TYPE_CHECKING:
    from semcut.connector.retrieval.encoder import Encoder

RECORDS_PER_COMMIT = 10_000
_VALUES_PER_COMMIT = 1 << 21
"""Probabilities and features that wait for a commit at most: 8 MiB, of which an index takes several times as much."""

Target = tuple[str, int]
"""The uri of a file, and the id of its record."""


def target_ids(files: IndexedFiles, uris: Sequence[str]) -> dict[str, int]:
    """Return the id of the record that each file has, or gets.

    New ids follow from the keys of the files, or else the largest id in the index.

    Raises:
        InvalidParameterError: there are no ids left.
    """
    ids = files.ids
    new = [uri for uri in uris if uri not in ids]
    if files.index.config.string_ids:
        fresh = ids_of([files.keys[uri] for uri in new]).tolist()
        return {uri: ids[uri] for uri in uris if uri in ids} | dict(zip(new, fresh, strict=True))
    free = files.index.next_id()
    integer_given("the next id", free, 0, 2**63 - max(1, len(new)))
    return {
        **{uri: ids[uri] for uri in uris if uri in ids},
        **dict(zip(new, range(free, free + len(new)), strict=True)),
    }


def encode_into(
    files: IndexedFiles,
    encoder: Encoder,
    targets: Sequence[Target],
    seen: dict[str, Observed | None],
    report: Progress,
) -> dict[str, str]:
    """Encode files, and add or replace their records.

    Args:
        files: the files of the index.
        encoder: the network of the index.
        targets: the files and the ids of their records, each once.
        seen: what was seen of each file.
        report: called with the number of files that were encoded or cannot be read.

    Returns:
        The reason why it cannot be read, for each file that cannot be, by uri. Its record stays as it is.
    """
    uris = [uri for uri, _ in targets]
    ids = np.array([record for _, record in targets], np.int64)
    learned = encoder.trained_on

    def trained(digest: str) -> bool | None:
        return None if learned is None else bytes.fromhex(digest) in learned

    # a file that was only just written can change while it is read and keep its time
    add_digests(files, [uri for uri in uris if (now := seen[uri]) is not None and not now.settled], seen)
    paths = {files.path_of(uri): uri for uri in uris}
    replaced = {record for uri, record in targets if files.ids.get(uri) == record}
    unreadable: dict[str, str] = {}
    config = files.index.config
    size = min(RECORDS_PER_COMMIT, _VALUES_PER_COMMIT // (config.classes + config.dim))
    pending: list[Encodings] = []
    done = 0
    for batch in encoder.encode_files(list(paths)):
        encoded = batch.encodings
        assert encoded.ids is not None  # their positions
        pending.append(replace(encoded, ids=ids[encoded.ids], uris=[uris[place] for place in encoded.ids]))
        unreadable |= {paths[path]: reason for path, reason in batch.skipped}
        done += len(encoded) + len(batch.skipped)
        if sum(map(len, pending)) >= size or done == len(targets):
            _put(files, Encodings.concatenate(pending), seen, replaced, trained)
            pending = []
        report(done, len(targets))
    return unreadable


def copy_into(files: IndexedFiles, copies: Sequence[tuple[Target, int]], seen: Mapping[str, Observed | None]) -> None:
    """Add or replace records of files with the encodings of other records, or of the same, which have their content.

    Args:
        files: the files of the index.
        copies: each file with the id of its record, and the id of the record that is copied.
        seen: what was seen of each file, with digest.
    """
    size = min(RECORDS_PER_COMMIT, files.index.config.batch_records())
    wanted = {now.digest for (uri, _), _ in copies if (now := seen[uri]) is not None}
    trained = {fact.digest: fact.trained for fact in files.known().facts.values() if fact.digest in wanted}
    for start in range(0, len(copies), size):
        part = copies[start : start + size]
        found = files.index.get(np.array([source for _, source in part], np.int64))
        ids = np.array([record for (_, record), _ in part], np.int64)
        uris = [uri for (uri, _), _ in part]
        replaced = {record for (uri, record), source in part if source == record or files.ids.get(uri) == record}
        _put(files, replace(found, ids=ids, uris=uris, any_mass=True), seen, replaced, trained.get)


def _put(
    files: IndexedFiles,
    encodings: Encodings,
    seen: Mapping[str, Observed | None],
    replaced: Collection[int],
    trained: Callable[[str], bool | None],
) -> None:
    uris = [str(uri) for uri in encodings.uris or ()]
    if uris:
        files.put(encodings, uris, [seen[uri] for uri in uris], replaced, trained)


def note_touched(files: IndexedFiles, uris: Sequence[str], seen: Mapping[str, Observed | None]) -> None:
    """Note the new times of files whose content is that of their records; the records stay as they are."""
    known = files.known().facts
    facts: dict[str, FileFacts] = {}
    for uri in uris:
        now, before = seen[uri], known.get(uri)
        if now is not None and before is not None:
            facts[uri] = before._replace(mtime_ns=now.mtime_ns if now.settled else None)
    files.note(facts, {})


def note_left_out(files: IndexedFiles, paths: Sequence[str], reason: str) -> None:
    """Note that files are left out for a reason, so that a sync leaves them out, too, until their content changes.

    Files that were only just written are noted, too: leaving out a picture that changes in the same moment does less
    harm than a training image that comes back.

    Raises:
        LockedError, StorageError: as for `IndexedFiles.begin`.
    """
    if paths:
        files.begin()
        seen = {files.uri_of(path): observed(path) for path in paths}
        found = {uri: Unreadable(now.size, now.mtime_ns, reason) for uri, now in seen.items() if now is not None}
        files.note({}, {uri: one for uri, one in found.items() if uri not in files.ids})


def note_unreadable(files: IndexedFiles, reasons: Mapping[str, str], seen: Mapping[str, Observed | None]) -> None:
    """Note which files without a record cannot be read, so that they need not be tried again until they change.

    A file of which no decoder has judged the bytes is tried again.
    """
    found = {
        uri: Unreadable(now.size, now.mtime_ns, reason)
        for uri, reason in reasons.items()
        if (now := seen[uri]) is not None and now.settled and uri not in files.ids
        if not isinstance(reason, PassingReason)
    }
    files.note({}, found)
