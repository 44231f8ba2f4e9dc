"""Replace a stored index by another that is built beside it, in one step.

Some changes give an index another configuration, and its files another form, such as more classes. Readers that have
the index open could not follow them, and several files change together. So the new index is built in a directory beside
the index, with everything that belongs to it, while the caller holds the writer's lock of the index; then the two
directories are exchanged (`directory_exchange`), and the previous one is deleted. Processes that have it open still
read the previous state, until they open the index again.

A crash leaves the previous index or the new one at the path, and perhaps the other one beside it, under the name
`NAME.rebuilding`, which the next rebuilding deletes, or, between two renames, the previous one as `NAME.replaced`.
An own index of the user with such a name is not deleted, see `marked_scratch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import IndexExistsError, InvalidParameterError, StorageError, shown
from semcut.indexes.progress import Progress
from semcut.indexes.storage.compaction import write_records
from semcut.indexes.storage.copied_files import copy_file
from semcut.indexes.storage.directory import (
    FACTS,
    MARK,
    belongs_to_index,
    lock_new_directory,
    new_index,
    sync_path,
)
from semcut.indexes.storage.directory_exchange import exchange_directories
from semcut.indexes.storage.files_beside import Beside, other_files
from semcut.indexes.storage.marked_scratch import created, is_left, unmark
from semcut.indexes.storage.snapshot import Snapshot


@contextmanager
def rebuilt(index: Path) -> Iterator[Path]:
    """Yield a directory beside an index for the new one; when the block ends without an error, it replaces the index.

    The block creates the index there, and forces all of it to the disk. Nobody else can read it before it has the modes
    of the former. Files of the user beside the index that the block
    has not copied are copied then. An error leaves the index as it was.

    Args:
        index: directory of the index, not a link; the caller holds its writer's lock.

    Raises:
        IndexExistsError: the directory has what belongs to no index and would be deleted; or there is something at
            `NAME.rebuilding` that an interrupted rebuilding did not leave.
        LockedError: another command still deletes what it has replaced.
        StorageError: the disk refuses.
    """
    scratch = index.with_name(f"{index.name}.rebuilding")
    try:
        unmark(index)  # a crash may have left it there
        if others := _lost(index, index):
            raise IndexExistsError(
                f"{index} has what belongs to no index and would be deleted, such as {shown(others[0])}: move it away"
            )
        if os.path.lexists(scratch) and (not is_left(scratch) or _lost(scratch, index)):
            raise IndexExistsError(f"{scratch} is not what an interrupted command leaves: move it away")
        with created(scratch) as marks:
            yield scratch
            _copy_own_files(index, scratch)
            if others := _lost(index, scratch):  # again, because building takes a while
                raise IndexExistsError(f"{index} has {shown(others[0])}, which came meanwhile: move it away")
            with marks.marked(index):
                exchange_directories(index, scratch)
    except OSError as error:
        raise StorageError(f"cannot replace {error.filename or index}: {error.strerror}") from None


def _lost(folder: Path, kept: Path) -> list[str]:
    """Name what is in a directory, belongs to no index, and is not a file that is also among those in another."""
    names = {file.name for file in other_files(kept)}
    files = (file for file in folder.iterdir() if not belongs_to_index(file))
    return sorted(file.name for file in files if file.is_symlink() or not file.is_file() or file.name not in names)


def _copy_own_files(index: Path, scratch: Path) -> None:
    """Copy the files of the user beside an index to the new one, which has the link, the mark and the facts of its own.

    Raises:
        OSError: a file cannot be read or written, or is sparse.
        StorageError: the disk refuses.
    """
    for file in other_files(index):
        if file.name not in (MARK, FACTS) and not (scratch / file.name).exists():
            copy_file(file, scratch / file.name)
            sync_path(scratch / file.name)
    sync_path(scratch)


def config_with_classes(config: IndexConfig, classes: int) -> IndexConfig:
    """Return the configuration of an index with another number of classes.

    An index that stores all probabilities of a record still does, since packed ones would be rounded.

    Raises:
        InvalidParameterError: it has weights of its classes, and the number changes.
    """
    if classes == config.classes:
        return config
    if config.prior is not None or config.similarity is not None:
        raise InvalidParameterError(
            "the index has a prior or a similarity of its classes, and none of new ones: make a new index"
        )
    values = config.model_dump()
    usual = IndexConfig(classes=config.classes, bits=config.bits, dim=config.dim).groups
    stored = config.stored_probabilities
    values["stored_probabilities"] = classes if stored == config.classes else min(stored, classes)
    values["groups"] = 0 if config.groups == usual else config.groups
    return IndexConfig(**{**values, "classes": classes})


def write_with_more_classes(
    snapshot: Snapshot, source: Path, target: Path, config: IndexConfig, progress: Progress | None = None
) -> None:
    """Write the records of an index to a new one with more classes, whose probabilities are 0 in all records.

    Everything else is as it is stored; the version is the next one. Files beside the index are copied.

    Args:
        snapshot: the last snapshot of the index.
        source: directory of the index, whose writer's lock the caller holds.
        target: directory of the new index.
        config: from `config_with_classes`, with at least as many classes.
        progress: called with the number of records written so far, and the total number of records.

    Raises:
        DamagedIndexError: a record is damaged.
        StorageError: the disk refuses.
    """
    before, beside = snapshot.committed, Beside.read(source)
    lock = lock_new_directory(target, source)
    try:
        with new_index(target, config, before.generation, source, before.version, beside) as (catalogue, files):
            after = write_records(snapshot, before.generation, files, progress, config)
            catalogue.commit(catalogue.read(), after, np.arange(len(after.cells)))
    finally:
        lock.release()
