"""Create the empty index of a connector; the error for a directory with an unfinished index says what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semcut.indexes import FaissIndex, IndexConfig, IndexExistsError, StorageError
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.storage.directory import require_free
from semcut.indexes.storage.store import Store
from semcut.indexes.unfinished import unfinished

_AGAIN = "if no command is at work there, run the same command again, or open it and call add_files with resume=True"


def create_empty(path: str | os.PathLike[str] | None, config: IndexConfig, engine: EngineName = "auto") -> FaissIndex:
    """Create an empty index.

    Args:
        path: a new or empty directory; None for an index in memory.
        config: the shape of the index.
        engine: engine that scans the index, see `FaissIndex.create`.

    Raises:
        IndexExistsError: the directory is not empty; the message says whether an unfinished index is there.
        StorageError: the directory cannot be created.
    """
    with _unfinished_named(path):
        return FaissIndex.create(path, config, engine=engine)


def require_new_index(path: str | os.PathLike[str]) -> None:
    """Raise an error unless `create_empty` can create an index there, before anything slow is done for it.

    Raises:
        IndexExistsError: as for `create_empty`.
    """
    with _unfinished_named(path):
        if os.path.isdir(path):
            require_free(Path(path))
        elif os.path.lexists(path):
            raise IndexExistsError(f"{path} exists already and is no directory: choose another path")


@contextmanager
def _unfinished_named(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Say in the error for a path that exists whether an unfinished index is there."""
    try:
        yield
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
