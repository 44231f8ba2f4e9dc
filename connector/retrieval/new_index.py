"""Check that an index can be created in a directory, before anything slow is done for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semcut.indexes import IndexExistsError, StorageError
from semcut.indexes.storage.directory import require_free
from semcut.indexes.storage.store import Store
from semcut.indexes.unfinished import unfinished

_AGAIN = "if no command is at work there, run the same command again, or open it and call add_files with resume=True"


def require_new_index(path: str | os.PathLike[str]) -> None:
    """Raise an error unless `Connector.create` can create an index there.

    Raises:
        IndexExistsError: the path exists and is not an empty directory; the message says whether an unfinished index is
            there, and what to do then.
    """
    with unfinished_named(path):
        if os.path.isdir(path):
            require_free(Path(path))
        elif os.path.lexists(path):
            raise IndexExistsError(f"{path} exists already and is no directory: choose another path")


@contextmanager
def unfinished_named(path: str | os.PathLike[str] | None) -> Iterator[None]:
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
