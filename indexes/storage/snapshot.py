"""What an index is after one change: what its catalogue says and the arrays that go with it, immutable.

Sizes of cells are not stored: they are counted here, from the columns `cells` and `removed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.description import IndexStats
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage.catalogue import Committed
from semcut.indexes.storage.column_files import NAMES, specs
from semcut.indexes.storage.mapped_columns import Columns

COPY_BYTES = 1 << 25
"""How much is copied at a time."""

Progress = Callable[[int, int], None]
"""Told how many records, of how many, have been dealt with."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An index after one change: what counts, and the arrays. It stays readable whatever happens afterwards."""

    committed: Committed
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns) - len(self.columns.removed)

    @property
    def cells(self) -> Cells:
        """The cells, with their sizes."""
        return self.committed.cells

    @property
    def normalised(self) -> bool:
        """Whether the feature of every record has length 1."""
        return self.committed.loose == 0

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """(records,) rows of the records that are not removed, in order of arrival."""
        if not len(self.columns.removed):
            return np.arange(len(self.columns))
        alive = np.ones(len(self.columns), bool)
        alive[self.columns.removed] = False
        return np.flatnonzero(alive)

    def stats(self) -> IndexStats:
        """Count what the index holds."""
        return IndexStats(
            records=len(self),
            removed=len(self.columns.removed),
            partitions=self.cells.partition_sizes().tolist(),
            cells=int(np.count_nonzero(self.cells.sizes)),
            normalised=self.normalised,
            column_bytes={name: view.nbytes for name, view in self.columns.raw().items()},
        )

    def parts(self, progress: Progress | None) -> Iterator[NDArray[np.int64]]:
        """Rows of all records in order of arrival, as many at a time as make a good copy."""
        size = max(1, COPY_BYTES // sum(spec.row_bytes for spec in specs(self.cells.config).values()))
        for start in range(0, len(self), size):
            yield self.live[start : start + size]
            if progress is not None:
                progress(min(start + size, len(self)), len(self))


def counted(committed: Committed, columns: Columns, before: Snapshot | None) -> Snapshot:
    """The state, after filling in the sizes of cells: from scratch, or from those of a state before it."""
    if before is not None and (
        any(committed.extents[name].rows < before.columns.extents[name].rows for name in NAMES)
        or not np.array_equal(committed.cells.numbers[: len(before.cells)], before.cells.numbers)
    ):
        raise DamagedIndexError("the index has lost records that were there: restore it from a backup")
    old = 0 if before is None else len(before.columns)
    gone = 0 if before is None else len(before.columns.removed)
    cells, removed = committed.cells, columns.removed
    added = columns.cells[old:]
    inside = not len(added) or (added.min() >= 0 and added.max() < len(cells))
    known = not len(removed) or (removed.min() >= 0 and removed.max() < len(columns))
    if not inside or not known or len(np.unique(removed)) != len(removed):  # FAISS does not check numbers of lists
        raise DamagedIndexError(
            "the columns cells and removed contradict the catalogue: restore the index from a backup"
        )
    sizes = np.zeros(len(cells), np.int64)
    if before is not None:
        sizes[: len(before.cells)] = before.cells.sizes
    sizes += np.bincount(added, minlength=len(cells))
    sizes -= np.bincount(columns.cells[removed[gone:]], minlength=len(cells))
    return Snapshot(committed._replace(cells=replace(cells, sizes=sizes)), columns)
