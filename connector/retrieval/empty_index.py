"""Create the empty index of a connector, together with the files that say which network it is for.

The network, if the index keeps it, and `connector.json` are written before the catalogue gets its name. So a crash
leaves a complete index, or what counts as no index: the next creation there deletes it. The error for a directory with
an unfinished index says what to do.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from semcut.connector.models.checkpoint import NETWORK_FILES, delete_network
from semcut.connector.retrieval.model_link import LINK
from semcut.indexes import FaissIndex, IndexConfig, IndexExistsError, StorageError
from semcut.indexes.engine_switch import engine_given
from semcut.indexes.scanners.choose import device_names
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.storage.directory import CATALOGUE, UNFINISHED, belongs_to_index, delete_index, require_free
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.writer_lock import WriterLock
from semcut.indexes.unfinished import unfinished

_AGAIN = "if no command is at work there, run the same command again, or open it and call add_files with resume=True"
_OF_CONNECTOR = re.compile(rf"({'|'.join(map(re.escape, (LINK, *NETWORK_FILES)))})(\.[0-9a-f]{{16}}\.new)?")
"""Files of a connector, and their scratch files."""


def create_empty(path: Path | None, config: IndexConfig, engine: EngineName, fill: Callable[[], None]) -> FaissIndex:
    """Create an empty index. After an error, the directory is as it was, or not there.

    Args:
        path: a new or empty directory; None for an index in memory.
        config: the shape of the index.
        engine: engine that scans the index, see `FaissIndex.create`.
        fill: writes the network and the link into the directory; not called for an index in memory.

    Raises:
        IndexExistsError: the directory is not empty; the message says whether an unfinished index is there.
        StorageError: the directory cannot be created.
    """
    if path is None:
        return FaissIndex.create(None, config, engine=engine)
    device_names(engine_given(engine, "cpu"), "cpu")  # raises before the directory is created
    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        fill()

    try:
        with _unfinished_named(path):
            _delete_remains(path)
            Store.create(path, config, fill=begin).close()
        return FaissIndex.open(path, engine=engine)
    except BaseException:
        if begun:
            delete_network(path)
            (path / LINK).unlink(missing_ok=True)
            delete_index(path)
        raise


def require_new_index(path: str | os.PathLike[str]) -> None:
    """Raise an error unless `create_empty` can create an index there, before anything slow is done for it.

    Raises:
        IndexExistsError: as for `create_empty`.
    """
    with _unfinished_named(path):
        if os.path.isdir(path):
            _delete_remains(Path(path))
            require_free(Path(path))
        elif os.path.lexists(path):
            raise IndexExistsError(f"{path} exists already and is no directory: choose another path")


def _delete_remains(path: Path) -> None:
    """Delete the files of a connector that an interrupted creation left, if no other files are there."""
    try:
        if not _remains(path):
            return
        lock = WriterLock(path)
        lock.acquire()  # another process may be creating an index there
        try:
            for file in _remains(path):
                file.unlink()
        finally:
            lock.release()
    except OSError as error:
        raise StorageError(f"cannot use the directory {path}: {error.strerror}") from None


def _remains(path: Path) -> list[Path]:
    """List the files of a connector beside a catalogue that was not completed; none if other files are there, too."""
    if not (path / UNFINISHED).is_file() or (path / CATALOGUE).exists():
        return []
    files = list(path.iterdir())
    own = [file for file in files if _OF_CONNECTOR.fullmatch(file.name) and stat.S_ISREG(os.lstat(file).st_mode)]
    return own if all(file in own or belongs_to_index(file) for file in files) else []


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
