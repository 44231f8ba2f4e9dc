"""Which record has each uri, and what is known of its file, also for a stored index that is not opened for searches.

No module that is imported here needs Pillow or torch, so `semcut info` counts records that were seen in training where
no image can be read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semcut.connector.data.image_uris import canonical_uri
from semcut.connector.retrieval.file_facts import KnownFiles
from semcut.indexes.storage.snapshot import Snapshot


def known_of_snapshot(place: Path, snapshot: Snapshot, root: str | None) -> KnownFiles:
    """Return what is known of the files of a stored index, which needs no search engine.

    Args:
        place: directory of the index.
        snapshot: its records.
        root: folder to which uris are relative.

    Raises:
        DamagedIndexError: the uris of the records cannot be read.
    """
    ids = snapshot.columns.reading(lambda: snapshot.columns.ids[snapshot.live])
    order = np.argsort(ids)
    names = canonical_names(snapshot.columns.uris(snapshot.live[order]), root)
    return KnownFiles(place, snapshot.committed.version, first_ids(ids[order].tolist(), names))


def canonical_names(uris: list[str | None], root: str | None) -> list[str | None]:
    """Return each uri as it is written relative to a root; None for a record without one."""
    return uris if root is None else [uri and canonical_uri(uri, root) for uri in uris]


def first_ids(ids: list[int], names: list[str | None]) -> dict[str, int]:
    """Return the id of the record of each uri: the lowest, if several records have it."""
    found = dict(zip(reversed(names), reversed(ids), strict=True))
    found.pop(None, None)
    return found  # type: ignore[return-value]
