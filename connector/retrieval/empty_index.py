"""Create the empty index of a connector; the error for a directory with an unfinished index says what to do."""

from __future__ import annotations

import os
from pathlib import Path

from semcut.indexes import FaissIndex, IndexConfig, IndexExistsError, StorageError
from semcut.indexes.storage.store import Store
from semcut.indexes.unfinished import unfinished

_AGAIN = "if no command is at work there, run the same command again, or open it and call add_files with resume=True"


def create_empty(path: str | os.PathLike[str] | None, config: IndexConfig) -> FaissIndex:
    """Create an empty index.

    Args:
        path: a new or empty directory; None for an index in memory.
        config: the shape of the index.

    Raises:
        IndexExistsError: the directory is not empty; the message says whether an unfinished index is there.
        StorageError: the directory cannot be created.
    """
    try:
        return FaissIndex.create(path, config)
    except IndexExistsError as error:
        missing = None if path is None else _unfinished_there(Path(path))
        raise (error if missing is None else IndexExistsError(f"{missing}: {_AGAIN}")) from None


def _unfinished_there(path: Path) -> str | None:
    try:
        store = Store.open(path)
    except StorageError:
        return None
    records = len(store.snapshot)
    store.close()
    return unfinished(path, records)
