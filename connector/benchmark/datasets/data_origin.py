"""Say what a data set was made of, and compare this with what the user gives now.

A directory of a run knows a data set by its name, and many indexes can have that name: those of another year, or the
same index after a change. So the description of a data set, and that of its results, has a digest of the two indexes
that it was made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from semcut.connector.retrieval.model_link import read_link
from semcut.indexes.errors import DataError
from semcut.indexes.open_with import open_with
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.store import Store

_WORDS = {"origin": "data"}


def origin_of(index: Path, queries: Path) -> str:
    """Describe two stored indexes: the number of their records, and a digest of all that they store.

    The checksums of the columns go into a digest, not the columns, so this takes no time. A copy of an index has the
    same digest; one that was changed or compacted has another.

    Args:
        index: index of the records.
        queries: index of the queries.

    Raises:
        StorageError: one of the two directories holds no index that can be opened.
    """
    return _together(map(_described_in, (index, queries)))


def origin_of_snapshots(paths: tuple[Path, Path], both: tuple[Snapshot, Snapshot]) -> str:
    """Describe two indexes that are open, as `origin_of` does; the caller checks that they are still in place."""
    return _together(map(_described, paths, both))


def _together(both: Iterable[str]) -> str:
    records, queries = both
    return f"{records} records, {queries} queries"


def _described_in(path: Path) -> str:
    store, found = open_with(lambda: Store.open(path), lambda opened: _described(path, opened.snapshot))
    store.close()
    return found


def with_bits(origin: str, bits: int | None) -> str:
    """Add to a description how many first bits of the codes are used; None means all."""
    return origin if bits is None else f"{origin}, first {bits} bits"


def _described(path: Path, snapshot: Snapshot) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(snapshot.cells.config.written().encode())
    for name, extent in sorted(snapshot.committed.extents.items()):
        digest.update(f" {name} {extent.rows} ".encode())
        digest.update(extent.crcs.astype("<u4").tobytes())
    link = read_link(path)
    for root in () if link is None else link.roots:  # they say which folders are classes
        digest.update(root.encode("utf-8", "surrogatepass") + b"\0")
    return f"{len(snapshot):,} ({digest.hexdigest()})"


def require_same(place: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `DataError` if a data set, or its results, are of other data than the user gives.

    Args:
        place: its directory.
        found: its description.
        wanted: what the description has to have.
    """
    changes = "; ".join(
        f"{_WORDS.get(name, name)} = {'not recorded' if found[name] is None else found[name]}, not {value}"
        for name, value in wanted.items()
        if found[name] != value
    )
    if changes:
        raise DataError(
            f"{place} was made with {changes}: give the same indexes and options again, or another directory for the "
            "run"
        )
