"""`Snapshot`: an index after one change, immutable. It has the content of the catalogue and the arrays of the columns.

The sizes of cells are not stored: `load_snapshot` counts them from the columns `cells` and `removed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_table import AttributeTable
from semcut.indexes.description import IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage.catalogue_format import Committed
from semcut.indexes.storage.column_specs import names_of, specs
from semcut.indexes.storage.mapped_columns import Columns
from semcut.indexes.storage.stored_attributes import attribute_table
from semcut.indexes.storage.stored_rows import StoredRows
from semcut.indexes.storage.stored_texts import overlap, text_kinds, text_size

_Batch = TypeVar("_Batch", Encodings, StoredRows)

COPY_BYTES = 1 << 25
"""Bytes per read and write where columns are copied."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """An index after one change. While the index is open, the snapshot stays readable, even after later changes.

    Attributes:
        committed: the content of the catalogue, or its content once the change is committed; the cells have sizes.
        columns: the arrays, including the rows of removed records.
        selected: (n,) int64, ascending: the rows of some records, to which the snapshot is limited; None for all.
    """

    committed: Committed
    columns: Columns
    selected: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        if self.selected is not None:
            return len(self.selected)
        return len(self.columns) - self.columns.extents["removed"].rows

    @property
    def cells(self) -> Cells:
        """The cells, with their sizes."""
        return self.committed.cells

    @property
    def normalised(self) -> bool:
        """Whether the feature of every record has length 1."""
        return self.committed.unnormalised == 0

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """(records,) int64: rows of the records that were not removed, ascending."""
        if self.selected is not None:
            return self.selected
        if not len(self.columns.removed):
            return np.arange(len(self.columns))
        alive = np.ones(len(self.columns), bool)
        alive[self.columns.removed] = False
        return np.flatnonzero(alive)

    @cached_property
    def attributes(self) -> AttributeTable:
        """The attributes of all rows, for filters."""
        return attribute_table(self.columns)

    def limited_to(self, rows: NDArray[np.int64]) -> Snapshot:
        """Return the same snapshot with some of its records alone: their rows, ascending.

        Its cells keep their bounds, which hold for fewer records too, and have other sizes. So a search skips a cell
        that has none of these records.
        """
        sizes = np.bincount(self.columns.cells[rows], minlength=len(self.cells))
        return replace(self, committed=self.committed._replace(cells=self.cells.limited_to(sizes)), selected=rows)

    def stats(self) -> IndexStats:
        """Count the records, partitions, cells and bytes of the index."""
        return IndexStats(
            records=len(self),
            removed=len(self.columns.removed),
            partitions=self.cells.partition_sizes().tolist(),
            cells=int(np.count_nonzero(self.cells.sizes)),
            normalised=self.normalised,
            column_bytes={name: array.nbytes for name, array in self.columns.raw().items()},
        )

    def row_batches(self, progress: Progress | None) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of all records in order of cells, in batches of about `COPY_BYTES`.

        Args:
            progress: called after each batch with the number of records so far, and the total number of records.
        """
        size = max(1, COPY_BYTES // sum(spec.row_bytes for spec in specs(self.cells.config).values()))
        rows = self._rows_by_cell()
        for start in range(0, len(self), size):
            yield rows[start : start + size]
            if progress is not None:
                progress(min(start + size, len(self)), len(self))

    def rows_by_id(self, after: int) -> NDArray[np.int64]:
        """Return the rows of all records with larger ids than `after`, in order of ids: (n,) int64."""
        columns, live = self.columns, self.live
        ids = columns.reading(lambda: columns.ids[live])
        wanted = np.flatnonzero(ids > after)
        return live[wanted[np.argsort(ids[wanted])]]

    def _rows_by_cell(self) -> NDArray[np.int64]:
        """Return the rows of all records sorted by the numbers of their cells, and by row within a cell."""
        places = np.empty(len(self.cells), np.int64)
        places[np.argsort(self.cells.numbers)] = np.arange(len(self.cells))
        keys = places[self.columns.cells[self.live]]
        keys *= len(self.columns)
        keys += self.live
        keys.sort()  # several times as fast as a stable argsort
        keys %= max(1, len(self.columns))
        return keys

    def batches(self, rows: Iterable[NDArray[np.int64]]) -> Iterator[Encodings]:
        """Yield the records of each array of rows; no row may occur twice.

        Raises:
            DamagedIndexError: a row does not match its checksum, or cannot be read; or uris of different batches share
                bytes, so that a copy of the index could be far larger than the index.
        """
        return self._batches(rows, self.columns.records)

    def stored_batches(self, rows: Iterable[NDArray[np.int64]]) -> Iterator[StoredRows]:
        """Yield the records of each array of rows as they are stored; as for `batches`."""
        return self._batches(rows, partial(StoredRows.read, self.columns))

    def _batches(
        self, rows: Iterable[NDArray[np.int64]], read: Callable[[NDArray[np.int64]], _Batch]
    ) -> Iterator[_Batch]:
        columns = self.columns
        left = {kind: columns.extents[f"{kind}_bytes"].rows for kind in text_kinds(columns)}
        for part in rows:
            batch = read(part)
            for kind in left:
                left[kind] -= columns.reading(partial(text_size, columns, kind, part))
                if left[kind] < 0:
                    raise overlap(kind)
            yield batch


def load_snapshot(committed: Committed, columns: Columns, before: Snapshot | None) -> Snapshot:
    """Count the sizes of cells and return the snapshot.

    Args:
        committed: the content of the catalogue, where all sizes are 0.
        columns: the arrays.
        before: an earlier snapshot of the same generation, so that only later rows are counted; None to count all rows.

    Raises:
        DamagedIndexError: the catalogue, the columns `cells` and `removed`, or `before` contradict each other, or a
            file was cut meanwhile.
    """
    if before is not None and (
        any(
            committed.extents[name].rows < before.columns.extents[name].rows
            for name in names_of(committed.cells.config)
        )
        or not np.array_equal(committed.cells.numbers[: len(before.cells)], before.cells.numbers)
    ):
        raise DamagedIndexError("the index has lost records or cells that it had: restore it from a backup")
    known_rows = 0 if before is None else len(before.columns)
    known_removed = 0 if before is None else len(before.columns.removed)
    cells, removed = committed.cells, columns.removed
    rows_exist = not len(removed) or (removed.min() >= 0 and removed.max() < len(columns))
    added = columns.cells[known_rows:]
    of_removed = columns.cells[removed[known_removed:]] if rows_exist else added[:0]
    cells_exist = all(not len(some) or (some.min() >= 0 and some.max() < len(cells)) for some in (added, of_removed))
    columns.require_uncut()
    if not cells_exist or not rows_exist or len(np.unique(removed)) != len(removed):
        raise DamagedIndexError(
            "the columns cells and removed contradict the catalogue: restore the index from a backup"
        )
    sizes = np.zeros(len(cells), np.int64)
    if before is not None:
        sizes[: len(before.cells)] = before.cells.sizes
    sizes += np.bincount(added, minlength=len(cells))
    sizes -= np.bincount(of_removed, minlength=len(cells))
    if (sizes < 0).any():
        raise DamagedIndexError("more records were removed from a cell than it had: restore the index from a backup")
    return Snapshot(committed._replace(cells=replace(cells, sizes=sizes)), columns)
