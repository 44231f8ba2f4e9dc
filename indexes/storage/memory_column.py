"""One column of an index in memory, which replaces a column file.

Such a column has neither a file nor checksums. It reserves 256 times the addresses that its rows need, at most as many
as the machine has memory, and uses memory only as rows are appended. So it mostly grows in place. Where it does not, at
16 MiB and at 4 GiB, its rows are copied to a larger range, and NumPy views of the previous range stay valid. A process
has 128 TiB of addresses: reserving them by the size of the machine would limit the number of indexes. Large columns
request huge pages, which make reading scattered rows faster.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import StorageError
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.column_specs import Spec

_HUGE_PAGES_FROM = 1 << 22  # columns of more bytes request huge pages; requests are aligned to this number of bytes
_SMALLEST, _GROWTH = 1 << 24, 256  # bytes of addresses of an empty column, and addresses per byte of a larger one
_MAP_NORESERVE = 0x4000  # Linux; Python's mmap names this flag from 3.13 on


class MemoryColumn:
    """One column in memory, with the methods of `Column` that do not concern a file.

    Args:
        spec: dtype and shape of its rows.

    Raises:
        StorageError: the system refuses to reserve the addresses.
    """

    block = 1 << 62
    """Rows per block: all rows are in one block."""
    compared: NDArray[np.bool_] = np.ones(1, bool)
    """No block needs to be compared with a checksum; see `Column.compared`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._largest = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self._reserve(_SMALLEST)

    def _reserve(self, capacity: int) -> None:
        """Use a new range of addresses, of this number of bytes or as large as the machine's memory."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        capacity = min(capacity, self._largest)
        try:
            self._map = mmap.mmap(-1, capacity, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(
                f"cannot reserve {capacity / 2**30:.3g} GiB of addresses for an index in memory ({error}): "
                "lift the limit on virtual memory (ulimit -v), or store the index in a directory"
            ) from None
        self._capacity = capacity
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._advised = 0  # bytes for which huge pages were requested

    def append(self, extent: Extent, values: NDArray[Any]) -> Extent:
        """Write rows after the valid rows and return the new extent.

        Raises:
            StorageError: the machine has not enough memory for the column.
        """
        data = np.ascontiguousarray(values, self.spec.dtype).reshape(-1).view(np.uint8)
        start = extent.rows * self.spec.row_bytes
        end = start + len(data)
        if end > self._largest:
            raise StorageError(f"a column of {end >> 30} GiB does not fit in memory: store the index in a directory")
        before = self._bytes[:0]
        if end > self._capacity:
            before = self._bytes[:start]
            self._reserve(_GROWTH * end)
        if end > max(self._advised, _HUGE_PAGES_FROM) and hasattr(mmap, "MADV_HUGEPAGE"):
            # The request must come before the memory is written to, so it covers two pages more than are needed now.
            ahead = min(end - end % _HUGE_PAGES_FROM + 2 * _HUGE_PAGES_FROM, self._capacity)
            with suppress(OSError):  # a kernel without huge pages works too, but reads more slowly
                self._map.madvise(mmap.MADV_HUGEPAGE, self._advised, ahead - self._advised)
            self._advised = ahead
        self._bytes[: len(before)] = before
        self._bytes[start:end] = data
        return Extent(extent.rows + len(values))

    def mark_unverified(self, extent: Extent, first_row: int = 0) -> None:
        """Do nothing: no other process writes to this memory."""

    def check(self, extent: Extent, rows: NDArray[np.int64] | None = None) -> None:
        """Do nothing: there are no checksums."""

    def compare_around(self, extent: Extent, rows: NDArray[np.int64], around: int) -> None:
        """Do nothing: there are no checksums."""

    def sync(self) -> None:
        """Do nothing: there is no disk."""

    def view(self, rows: int) -> NDArray[Any]:
        """Return the first rows of the column, read-only. Later appends leave the view as it is."""
        array = self._bytes[: rows * self.spec.row_bytes].view(self.spec.dtype).reshape(rows, *self.spec.shape)
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """Do nothing: the memory is released with the last view."""
