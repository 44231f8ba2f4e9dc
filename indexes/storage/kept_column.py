"""A column file of which this process keeps a copy in memory, since positions are computed from its rows.

The cells of records and the rows of removed records say where scanners write, and how large the buffers of kernels must
be. Any program that can write to the directory can change a mapped file at any moment, also to other valid numbers, and
can keep the checksums (a CRC-32 is easily forged). So every row of these columns is read from the file once, is
compared in the memory of this process, and stays there: 4 bytes per record, and 8 bytes per removed record. The sizes
of cells and the lists of a scanner are computed from the same rows, and never contradict each other.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.column_specs import Spec

KEPT = ("cells", "removed")
"""The columns that are kept in memory."""
_ROWS_PER_READ = 1 << 20


class KeptColumn(Column):
    """A column file whose rows are kept in memory, and read there. Arguments and errors as for `Column`."""

    def __init__(self, path: Path, spec: Spec, *, create: bool = False, writable: bool = True) -> None:
        super().__init__(path, spec, create=create, writable=writable)
        self._rows: NDArray[Any] = np.empty((0, *spec.shape), spec.dtype)  # with spare capacity after rows were added

    def append(self, extent: Extent, values: NDArray[Any]) -> Extent:
        """Append rows to the file and to the copy, see `Column.append`."""
        self._reserve(extent.rows + len(values))
        after = super().append(extent, values)
        self._rows[extent.rows : after.rows] = values
        return after

    def mark_unverified(self, extent: Extent, first_row: int = 0) -> None:
        """Adopt an extent that another process wrote: read its rows, and compare them with their checksums.

        Rows before `first_row` are not read again: earlier snapshots use them.

        Raises:
            DamagedIndexError: the file is too short, cannot be read, or does not match its checksums.
        """
        super().mark_unverified(extent, first_row)
        self.require(extent.rows)  # before memory is taken
        self._reserve(extent.rows)
        for start in range(first_row, extent.rows, _ROWS_PER_READ):
            stop = min(start + _ROWS_PER_READ, extent.rows)
            self._rows[start:stop] = self.stretch(start, stop - start)
        size = self.block
        for block in range(first_row // size, len(extent.crcs)):
            rows = self._rows[block * size : min((block + 1) * size, extent.rows)]
            if zlib.crc32(rows.data) != extent.crcs[block]:
                self.check(extent)  # names the rows that do not match
                raise DamagedIndexError(
                    f"{self.path} was changed by another program while it was read: restore the index with "
                    "`semcut restore`, then open it again"
                )
        self.compared[first_row // size :] = True

    def _reserve(self, rows: int) -> None:
        """Make room for this number of rows; views of the previous memory stay valid."""
        if rows > len(self._rows):
            spare = len(self._rows) // 4  # so that many small additions copy each row a few times only
            larger = np.empty((rows + spare, *self.spec.shape), self.spec.dtype)
            larger[: len(self._rows)] = self._rows
            self._rows = larger

    def view(self, rows: int) -> NDArray[Any]:
        """Return the first rows of the copy, read-only. Later appends leave the view as it is.

        Raises:
            DamagedIndexError: the file has become too short.
        """
        self.require(rows)
        array = self._rows[:rows]
        array.flags.writeable = False
        return array
