"""Copy an index, with every record averaged with its nearest others: see `indexes.database_averages`.

The copy is made in a hidden directory beside its place, and gets its name when it is whole: a crash leaves no copy. It
has the link, the network and all other files of the index. Images that are added to it later are not averaged.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from semcut.connector.retrieval.empty_index import require_new_index
from semcut.indexes import FaissIndex, averaged_records
from semcut.indexes.argument_checks import callback_given, path_given
from semcut.indexes.errors import InvalidParameterError, StorageError
from semcut.indexes.progress import Progress, silent
from semcut.indexes.query_expansion import EXPANSION_POWER
from semcut.indexes.storage.rebuilding import rebuilt


def average_index(
    index: str | os.PathLike[str],
    target: str | os.PathLike[str],
    neighbours: int = 1,
    *,
    power: float = EXPANSION_POWER,
    progress: Progress | None = None,
) -> int:
    """Make a copy of a stored index with averaged records; return their number.

    Args:
        index: directory of the index, whose features have length 1.
        target: a new or empty directory.
        neighbours, power: as for `averaged_records`.
        progress: called with the number of records that were averaged.

    Raises:
        IndexExistsError: the target is not empty, or is a file.
        NotAnIndexError, DamagedIndexError: there is no index, or it is damaged.
        InvalidParameterError: an argument is of another type or out of range, or features have another length.
        StorageError: the copy cannot be written.
    """
    source, place = path_given("index", index), path_given("target", target)
    callback_given("progress", progress)
    with FaissIndex.open(source) as opened:
        parts = averaged_records(opened, neighbours, power=power, progress=progress or silent)
        if not opened.stats().normalised:
            raise InvalidParameterError("averaging records needs features of length 1, and those of the index are not")
        require_new_index(place)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name[:100]}-") as hidden:
                copy = Path(hidden) / "index"
                opened.backup(copy)
                with FaissIndex.open(copy, engine="faiss") as writer:
                    writer.begin()
                    with (
                        rebuilt(copy) as scratch,
                        FaissIndex.create(scratch, opened.config, durability="close", engine="faiss") as new,
                    ):
                        for part in parts:
                            new.add(part)
                os.rename(copy, place)
        except OSError as error:
            raise StorageError(f"cannot write {error.filename or place}: {error.strerror}") from None
        return len(opened)
