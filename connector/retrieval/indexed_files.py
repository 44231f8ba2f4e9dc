"""`IndexedFiles`: the files of an index: which record is of which file, and all changes of these records.

Whatever adds, replaces, moves or removes records of image files does it here, so that what `file_facts` knows of a file
is never wrong, at whichever moment the process ends. No function here needs torch.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.image_contents import digest_of, in_threads
from semcut.connector.data.image_uris import canonical_uri, path_of, paths_of, uri_of
from semcut.connector.retrieval.file_facts import FileFacts, KnownFiles, Unreadable
from semcut.connector.retrieval.given_attributes import GivenAttributes
from semcut.connector.retrieval.model_link import read_link
from semcut.connector.retrieval.records_by_uri import canonical_names, first_ids
from semcut.indexes import CheckpointError, Encodings, FaissIndex, SemanticIndex, StorageError

_SETTLED_NS = 2_000_000_000
"""File systems round times of modification to up to two seconds. A file that was modified less than this ago could
change again and keep its time."""


class Observed(NamedTuple):
    """A file as it was at one moment.

    Attributes:
        size, mtime_ns: from the file system.
        digest: digest of its content in hex; None if it was not computed.
        settled: whether a later change of the content would change `mtime_ns`.
    """

    size: int
    mtime_ns: int
    digest: str | None = None
    settled: bool = False


def observed(path: str) -> Observed | None:
    """Ask the file system about a file; None if there is no such file, or it cannot be asked."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a byte of zero
        return None
    return Observed(found.st_size, found.st_mtime_ns, None, found.st_mtime_ns < time.time_ns() - _SETTLED_NS)


def with_digest(path: str, before: Observed) -> Observed | None:
    """Compute the digest of a file; None if it cannot be read, or is not as it was before.

    A digest that was computed before is computed again, unless the file was settled by then, and must be the same.
    """
    text = before.digest if before.settled else None
    if text is None:
        digest = digest_of(path)
        if digest is None or before.digest not in (None, digest.hex()):
            return None
        text = digest.hex()
    after = observed(path)
    if after is None or (after.size, after.mtime_ns) != (before.size, before.mtime_ns):
        return None
    return after._replace(digest=text)


def _since(pair: tuple[str, Observed | None]) -> Observed | None:
    """Return a file with its digest, if its content is that which was read since it was observed."""
    path, before = pair
    if before is None or (before.digest is None and not before.settled):
        return None
    return with_digest(path, before)


class IndexedFiles:
    """The files of an index.

    Args:
        index: the index; it is not closed here.
        place: directory of the index; None if it has none. Then what is known of files is lost with this object.
        root: folder to which uris are relative, see `data.image_uris`.

    Attributes:
        index, root: the arguments.
        given: the attributes that the caller of a change gives for files; the records of other files keep theirs.
        keys: the keys that the caller of a change gives for files, by uri; the records of other files keep theirs.
        former: the index whose records have the attributes to keep: another one while all images are encoded again.
        changing: held while files are added or synced, so that two threads do it one after the other.
    """

    def __init__(self, index: SemanticIndex, place: Path | None, root: str | None) -> None:
        self.index, self.root, self._place = index, root, place
        self.given, self.keys, self.former = GivenAttributes(), dict[str, str](), index
        self._version: int | str | None = None
        self._ids: dict[str, int] = {}
        self._others: list[tuple[str | None, int]] = []
        self._known: KnownFiles | None = None
        self._lock = threading.RLock()  # held while what is above changes together with the index
        self.changing = threading.RLock()

    def path_of(self, uri: str) -> str:
        """Return the path of the file with a uri."""
        return str(path_of(uri, self.root))

    def uri_of(self, path: str) -> str:
        """Return the uri of a file."""
        return uri_of(path, self.root)

    def paths(self, ids: NDArray[np.int64]) -> list[str | None]:
        """Return the paths of the files of records."""
        return paths_of(self.index.uris(ids), self.root)

    @property
    def ids(self) -> dict[str, int]:
        """The id of the record of each uri: the lowest, if several records have it. It is read once per version."""
        with self._lock:
            if self._version != self.index.version:
                version, ids = self.index.version, self.index.ids().tolist()
                names = canonical_names(self.index.uris(ids), self.root)
                found = first_ids(ids, names)
                pairs = zip(names, ids, strict=True) if len(found) < len(ids) else ()
                self._others = [(name, record) for name, record in pairs if name is None or found[name] != record]
                self._ids, self._version, self._known = found, version, None
            return self._ids

    @property
    def other_records(self) -> list[tuple[str | None, int]]:
        """Uri and id of each record that `ids` does not have: without a uri, or with that of another record."""
        _ = self.ids
        return self._others

    def ids_of(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Return the id of the record of each file, -1 where there is none: (n,) int64."""
        ids = self.ids
        return np.array([ids.get(self.uri_of(path), -1) for path in paths], np.int64)

    def known(self, others: Collection[str] = ()) -> KnownFiles:
        """Return what is known of the files; `others` as for `KnownFiles`, with which the file is read again."""
        with self._lock:
            ids = self.ids
            if self._known is None or (others and self._place is not None):
                self._known = KnownFiles(self._place, self._number, ids, others)
            return self._known

    @property
    def _number(self) -> int:
        """The version of the index; 0 for an index without a directory, for which nothing is stored."""
        return int(self.index.version) if self._place is not None else 0

    def begin(self) -> None:
        """Become the writer of the index, with the last change of any writer, and drop what is known no more.

        Raises:
            LockedError, StorageError: as for `SemanticIndex.add`; or the images have another folder by now.
        """
        if isinstance(self.index, FaissIndex):
            self.index.begin()
        link = None if self._place is None else read_link(self._place)
        if link is not None and link.root != self.root:
            raise StorageError(
                f"the folder of the images of {self._place} was {self.root}, and is {link.root} by now: open it again"
            )
        self.known().prepare(self._number)

    def require_made_by(self, sha256: str) -> None:
        """Check, after `begin`, that a network is the one that made the index.

        Args:
            sha256: digest of the network that is to encode images.

        Raises:
            CheckpointError: the link of the index, which nobody else can change now, has another one.
        """
        link = None if self._place is None else read_link(self._place)
        if link is not None and link.sha256 not in (None, sha256):
            raise CheckpointError(
                f"{self._place} was made by another network than the one that is to encode its images: open it again"
            )

    def require_in_place(self) -> None:
        """Check, after files beside the index were read, that they were those of this index.

        Raises:
            StorageError: another index has replaced it, or it was deleted.
        """
        if self._place is not None and isinstance(self.index, FaissIndex) and not self.index.in_place:
            raise StorageError(f"{self._place} was replaced or deleted meanwhile: open it again")

    def put(
        self,
        encodings: Encodings,
        uris: Sequence[str],
        seen: Sequence[Observed | None],
        replaced: Collection[int] = (),
        trained: Callable[[str], bool | None] = lambda digest: None,
    ) -> None:
        """Add records of files, and replace records, in one change.

        Args:
            encodings: n records with ids.
            uris: n uris.
            seen: each file before its content was read; None if nothing may be known of it.
            replaced: the ids that records may have already.
            trained: says of a digest whether the network was trained on this content, None if that is not known.

        Raises:
            DuplicateIdError: records have other ids already.
            LockedError, StorageError: as for `SemanticIndex.add`.
        """
        assert encodings.ids is not None
        given = encodings.ids.tolist()
        with self._lock:
            ids, known = self.ids, self.known()
            old = encodings.ids[self.index.contains(encodings.ids)]
            names = [canonical_uri(uri or "", self.root) for uri in self.index.uris(old)]
            before = [uri for uri, record in zip(names, old.tolist(), strict=True) if ids.get(uri) == record]
            known.void(self._number + 1, before)
            attributes = self.given.of_records(self.former, encodings.ids, uris)
            keys = self._keys_of(encodings.ids, uris) if self.index.config.string_ids else None
            batch = replace(encodings, uris=list(uris), attributes=attributes, keys=keys, any_mass=True)
            change = self.index.upsert if len(old) and set(old.tolist()) <= set(replaced) else self.index.add
            change(batch)
            for uri in before:
                del ids[uri]
            ids.update(zip(uris, given, strict=True))
            self._version = self.index.version
        pairs = [(self.path_of(uri), found) for uri, found in zip(uris, seen, strict=True)]
        facts = {
            uri: FileFacts(record, found.size, found.mtime_ns if found.settled else None, digest, trained(digest))
            for uri, record, found in zip(uris, given, in_threads(_since, pairs), strict=True)
            if found is not None and (digest := found.digest) is not None
        }
        known.note(self._number, facts, {})

    def _keys_of(self, ids: NDArray[np.int64], uris: Sequence[str]) -> list[str]:
        """Return the keys of records that are written: the given ones, or those that they have."""
        kept = [row for row, uri in enumerate(uris) if uri not in self.keys]
        stored = iter(self.index.keys(ids[kept]))
        return [self.keys[uri] if uri in self.keys else next(stored) for uri in uris]

    def update_attributes(self, left_out: Collection[str] = (), *, dry_run: bool = False) -> int:
        """Give records the attributes of `given`, where they have others, and return the number of these records.

        Args:
            left_out: uris of records that stay as they are.
            dry_run: whether nothing is changed.

        Raises:
            LockedError, StorageError: as for `SemanticIndex.upsert`.
        """
        with self._lock:
            changes = self._other_attributes(left_out)
            if changes and not dry_run:
                version = self.index.version
                self.begin()
                if self.index.version != version:  # another process has changed the records since they were compared
                    changes = self._other_attributes(left_out)
            for changed in changes if not dry_run else ():
                found = self.index.get(np.array([record for _, record in changed], np.int64))
                attributes = self.given.of_records(self.index, found.ids, [uri for uri, _ in changed])
                self.index.upsert(replace(found, attributes=attributes, any_mass=True))
                self._version = self.index.version  # what is known of the files is as true as before
            return sum(map(len, changes))

    def _other_attributes(self, left_out: Collection[str]) -> list[list[tuple[str, int]]]:
        """Return uri and id of the records whose attributes are not the given ones, in batches."""
        ids, size = self.ids, self.index.config.batch_records()
        targets = [(uri, ids[uri]) for uri in self.given if uri in ids and uri not in left_out]
        batches = (targets[start : start + size] for start in range(0, len(targets), size))
        return [changed for batch in batches if (changed := self.given.changed(self.index, batch))]

    def note(self, facts: Mapping[str, FileFacts], unreadable: Mapping[str, Unreadable]) -> None:
        """Note what is known of files whose records stay as they are, or that cannot be read; see `KnownFiles.note`."""
        self.known().note(self._number, facts, unreadable)

    def remove(self, removed: Mapping[int, str | None]) -> None:
        """Remove records in one change.

        Args:
            removed: the uri of each record, by id.

        Raises:
            LockedError, StorageError: as for `SemanticIndex.remove`.
        """
        if not removed:
            return
        with self._lock:
            ids, known = self.ids, self.known()
            of_files = [uri for record, uri in removed.items() if uri is not None and ids.get(uri) == record]
            known.void(self._number + 1, of_files)
            self.index.remove(np.array(list(removed), np.int64))
            for uri in of_files:
                del ids[uri]
            self._others = [(uri, record) for uri, record in self._others if record not in removed]
            self._version = self.index.version
