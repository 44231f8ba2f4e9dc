"""The "compiled" scanner for the CPU: codes in one array, cell by cell, scanned by the kernels in `lists_numba`.

The codes of a cell are contiguous, with spare capacity behind them. A cell that needs more than its capacity is moved
to the end of the array, with a capacity of 1.5 times its size. When the array is full, all cells are copied to a new
array. So adding n codes takes O(n) in all.

Source: selection by counting as in FAISS (faiss/utils/hamming.h, `HCounterState`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import StorageError
from semcut.indexes.faiss_library import split_over_threads, thread_count
from semcut.indexes.kernels.jit import read_only
from semcut.indexes.scanners import lists_numba as kernels
from semcut.indexes.scanners.protocol import Nearest
from semcut.indexes.scanners.scan_numba import CodeLists
from semcut.indexes.search_tuning import TUNING

_MAX_ROW = 2**31 - 1
"""The largest row number: kernels store rows as int32."""


class NumbaScanner:
    """The codes of an index in memory, cell by cell. See `protocol.Scanner`.

    Args:
        bits: length of a code.

    Attributes:
        lists: the codes.
    """

    deepest = 1 << 60
    patience = math.inf
    fused = True

    def __init__(self, bits: int) -> None:
        self._bits = bits
        none = np.empty(0, np.int64)
        self.lists = CodeLists(np.empty((0, -(-bits // 64)), np.uint64), np.empty(0, np.int32), none, none)
        self._capacities = none  # of each cell, in codes
        self._end = 0  # the position behind the capacity of the last cell

    def words(self, codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Convert packed codes to 64-bit words, padded with zeros: (n, bits / 8) uint8 to (n, words) uint64."""
        width = 8 * self.lists.codes.shape[1]
        if codes.shape[1] != width:
            codes = np.pad(codes, ((0, 0), (0, width - codes.shape[1])))
        return read_only(np.ascontiguousarray(codes).view(np.uint64))

    def add(self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Add n codes under their row numbers to their cells.

        Raises:
            StorageError: a row number is too large for this scanner.
        """
        if not len(codes):
            return
        if rows.max() > _MAX_ROW:
            raise StorageError(f'row {rows.max()} is too large for the compiled engine: open with engine="faiss"')
        lists, old = self.lists, len(self.lists.starts)
        count = max(old, int(cells.max()) + 1)
        starts, sizes, capacities = (_extended(array, count) for array in (lists.starts, lists.sizes, self._capacities))
        after = sizes + np.bincount(cells, minlength=count)
        moved = np.flatnonzero(after > capacities)
        targets, capacities[moved] = starts.copy(), after[moved] + after[moved] // 2
        need = int(capacities[moved].sum())
        if self._end + need <= len(lists.rows):
            targets[moved] = self._end + np.cumsum(capacities[moved]) - capacities[moved]
            end, fresh = self._end + need, lists
        else:
            capacities = after + after // 8 if old else after  # the first batch is stored without gaps
            moved, end = np.arange(count), int(capacities.sum())
            targets, size = np.cumsum(capacities) - capacities, end + end // 4 if old else end
            fresh = lists._replace(
                codes=np.empty((size, lists.codes.shape[1]), np.uint64), rows=np.empty(size, np.int32)
            )
        kernels.move(lists, starts, sizes, fresh, targets, moved)
        fresh = fresh._replace(starts=targets, sizes=sizes)
        kernels.append(fresh, self.words(codes), _int64(rows), _int64(cells))
        self.lists, self._capacities, self._end = fresh, capacities, end

    def remove(self, rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> int:
        """Remove n codes from their cells, and return how many of them were there."""
        sizes = self.lists.sizes
        known = cells < len(sizes)  # kernels do not compare positions with the length of an array
        rows, cells = rows[known], cells[known]
        if not len(rows):
            return 0
        order = np.lexsort((rows, cells))
        touched, first = np.unique(cells[order], return_index=True)
        before = int(sizes[touched].sum())
        kernels.remove(self.lists, touched.astype(np.int64), np.append(first, len(rows)), _int64(rows[order]))
        return before - int(sizes[touched].sum())

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Return the `depth` rows nearest to each query within its cells; see `Scanner.search`."""
        found = Nearest.empty(len(codes), depth)
        words, cells = self.words(codes), _int64(cells)
        threads = thread_count() if len(codes) >= TUNING.split_scan else 1

        def search(part: slice) -> None:
            kernels.search(words[part], cells[part], self.lists, self._bits, found.rows[part], found.hamming[part])

        split_over_threads(search, len(codes), threads)
        return found

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows in (m,) cells: (n,) int64 rows, and (n,) int64 positions of their cells in `cells`."""
        known = np.flatnonzero(cells < len(self.lists.sizes))
        sizes, starts = self.lists.sizes[cells[known]], self.lists.starts[cells[known]]
        which = np.repeat(np.arange(len(known)), sizes)
        at = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[which]
        return self.lists.rows[at].astype(np.int64), known[which]


def _int64(numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return integers in the type and layout that kernels are compiled for: contiguous, read-only int64."""
    return read_only(np.ascontiguousarray(numbers, np.int64))


def _extended(array: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return an array extended with zeros to a length."""
    return np.concatenate([array, np.zeros(count - len(array), np.int64)])
