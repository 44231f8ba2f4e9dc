"""Compare files with the records of an index: which are new, which have changed, and whose content has a record.

A file whose size and time of modification are those that are known of it is unchanged, and is not opened. If only the
time differs, the digest of its content decides. No function here needs torch, and none changes anything.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from semcut.connector.data.image_contents import in_threads
from semcut.connector.retrieval.file_facts import KnownFiles
from semcut.connector.retrieval.indexed_files import IndexedFiles, Observed, observed, with_digest

THERE = "it is there"


@dataclass(frozen=True)
class FileChanges:
    """Files by what has become of them, as uris, each in the order given.

    Attributes:
        new: files without a record.
        changed: files with another content than their record, or of which nothing is known.
        touched: files with the content of their record, and another time.
        settled: files with the content of their record, whose time was not known yet.
        unchanged: the number of all other files with a record.
        unreadable: pairs (path, reason) of files that could not be read before, and have not changed since.
        missing: files that are listed, but not there, such as links that lead nowhere.
        refused: pairs (path, reason) of files with a record that the system does not show.
        seen: what was seen of each new, changed, touched or settled file; None of a new one that cannot be seen.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    unchanged: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[str, Observed | None] = field(default_factory=dict)


def compare(files: IndexedFiles, uris: Sequence[str], *, retry: bool = False) -> FileChanges:
    """Compare files with their records.

    Args:
        files: the files of the index.
        uris: different uris.
        retry: whether files that could not be read before are new, even if they have not changed.
    """
    ids = files.ids
    known = files.known(set(uris) - ids.keys())
    facts, unreadable, path_of = known.facts, known.unreadable, files.path_of
    found = FileChanges()
    seen = found.seen
    uncertain: list[str] = []
    unchanged = 0
    for uri in uris:
        now = observed(path_of(uri))
        fact = facts.get(uri)
        if now is None and uri in ids:
            why = why_missing(path_of(uri))
            if why is None:
                found.missing.append(uri)
            else:
                found.refused.append((path_of(uri), why))
            continue
        if fact is not None and now is not None and fact.size == now.size:
            if fact.mtime_ns == now.mtime_ns:
                unchanged += 1
                continue
            uncertain.append(uri)
        elif uri in ids:
            found.changed.append(uri)
        else:
            before = unreadable.get(uri)
            if not retry and before and now and (before.size, before.mtime_ns) == (now.size, now.mtime_ns):
                found.unreadable.append((path_of(uri), before.reason))
                continue
            found.new.append(uri)
        seen[uri] = now
    add_digests(files, uncertain, seen)
    for uri in uncertain:
        now, fact = seen[uri], facts[uri]
        if now is None or now.digest != fact.digest:
            found.changed.append(uri)
        elif fact.mtime_ns is not None:
            found.touched.append(uri)
        elif now.settled:
            found.settled.append(uri)
        else:
            unchanged += 1
    return replace(found, unchanged=unchanged)


def why_missing(path: str) -> str | None:
    """Return why the system does not show a file, `THERE` if it does; None if there is certainly no such file.

    A folder, or anything else that is no file, in its place is no file either.
    """
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return THERE


def add_digests(files: IndexedFiles, uris: Sequence[str], seen: dict[str, Observed | None]) -> None:
    """Compute the digests of files that have none; None in place of a file that cannot be read, or is just changing."""
    pairs = [(uri, now) for uri in uris if (now := seen[uri]) is not None and now.digest is None]
    found = in_threads(lambda pair: with_digest(files.path_of(pair[0]), pair[1]), pairs)
    for (uri, _), now in zip(pairs, found, strict=True):
        if now is not None:
            seen[uri] = now


def same_contents(
    files: IndexedFiles, known: KnownFiles, uris: Sequence[str], seen: dict[str, Observed | None]
) -> dict[str, list[str]]:
    """Find files whose content has a record, or is that of another of these files.

    Only files of a size that occurs more than once are read.

    Args:
        files: the files of the index.
        known: what is known of its files.
        uris: the files to look for.
        seen: what was seen of each; gets the digests that are computed.

    Returns:
        For each content, by its digest, the uris in order.
    """
    sizes = Counter(fact.size for fact in known.facts.values())
    sizes.update(now.size for uri in uris if (now := seen[uri]) is not None)
    add_digests(files, [uri for uri in uris if (now := seen[uri]) is not None and sizes[now.size] > 1], seen)
    found: dict[str, list[str]] = defaultdict(list)
    for uri in uris:
        now = seen[uri]
        if now is not None and now.digest is not None:
            found[now.digest].append(uri)
    return found


def records_by_content(known: KnownFiles, wanted: Collection[str]) -> dict[str, list[str]]:
    """Find the uris of records by the digests of their contents, of the contents that are wanted."""
    found: dict[str, list[str]] = defaultdict(list)
    for uri, fact in known.facts.items():
        if fact.digest in wanted:
            found[fact.digest].append(uri)
    return found
