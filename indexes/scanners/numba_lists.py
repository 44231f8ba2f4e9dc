"""The compiled CPU engine: codes side by side, cell by cell, scanned by `compiled.scan`.

The codes of a cell lie in one stretch of an array, with room to grow behind them. A cell that outgrows its stretch
moves to the end of the array, to one half as large again; when there is no room at the end either, everything moves to
a new array. So adding costs, over time, a constant per record.

Source: the seam is that of `hamming`; selection by counting as in FAISS (faiss/utils/hamming.h, `HCounterState`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import StorageError
from semcut.indexes.faiss_library import faiss
from semcut.indexes.kernels.jit import frozen
from semcut.indexes.scanners import lists_kernel as kernels
from semcut.indexes.scanners.protocol import Nearest
from semcut.indexes.scanners.scan_kernel import CodeLists

_SPLIT = 64  # queries from which on threads share them
_PART = 128  # queries at a time at most,
_PARTS = 4  # and per thread so many parts, if there are few
_ROWS = 2**31 - 1


class NumbaScanner:
    """Codes of an index in memory, cell by cell.

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
        nothing = np.empty(0, np.int64)
        self.lists = CodeLists(np.empty((0, -(-bits // 64)), np.uint64), np.empty(0, np.int32), nothing, nothing)
        self._room = nothing  # of each cell, in codes
        self._end = 0  # behind the last of them

    def words(self, codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Packed (n, bits / 8) codes as (n, words), padded with zeros."""
        width = 8 * self.lists.codes.shape[1]
        if codes.shape[1] != width:
            codes = np.pad(codes, ((0, 0), (0, width - codes.shape[1])))
        return frozen(np.ascontiguousarray(codes).view(np.uint64))

    def add(self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Add n codes under their row numbers to the lists of their cells.

        Raises:
            StorageError: a row number is too large for this engine.
        """
        if not len(codes):
            return
        if rows.max() > _ROWS:
            raise StorageError(f'row {rows.max()} is beyond what the compiled engine counts: open with engine="faiss"')
        lists, old = self.lists, len(self.lists.starts)
        count = max(old, int(cells.max()) + 1)
        starts, sizes, room = (_longer(array, count) for array in (lists.starts, lists.sizes, self._room))
        after = sizes + np.bincount(cells, minlength=count)
        moved = np.flatnonzero(after > room)
        targets, room[moved] = starts.copy(), after[moved] + after[moved] // 2
        need = int(room[moved].sum())
        if self._end + need <= len(lists.rows):
            targets[moved] = self._end + np.cumsum(room[moved]) - room[moved]
            end, fresh = self._end + need, lists
        else:
            room = after + after // 8 if old else after  # what is loaded at once lies without gaps
            moved, end = np.arange(count), int(room.sum())
            targets, capacity = np.cumsum(room) - room, end + end // 4 if old else end
            fresh = lists._replace(
                codes=np.empty((capacity, lists.codes.shape[1]), np.uint64), rows=np.empty(capacity, np.int32)
            )
        kernels.move(lists, starts, sizes, fresh, targets, moved)
        fresh = fresh._replace(starts=targets, sizes=sizes)
        kernels.append(fresh, self.words(codes), _whole(rows), _whole(cells))
        self.lists, self._room, self._end = fresh, room, end

    def remove(self, rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Take n codes out of the lists of their cells."""
        if not len(rows):
            return
        order = np.lexsort((rows, cells))
        touched, first = np.unique(cells[order], return_index=True)
        kernels.remove(self.lists, touched.astype(np.int64), np.append(first, len(rows)), _whole(rows[order]))

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """The `depth` rows nearest to each query within its cells, nearest first.

        Records at the same Hamming distance come in any order, and any of them may be left out at the end.
        """
        found = Nearest.nothing(len(codes), depth)
        words, cells = self.words(codes), _whole(cells)
        threads = faiss.omp_get_max_threads() if len(codes) >= _SPLIT else 1

        def search(part: slice) -> None:
            kernels.search(words[part], cells[part], self.lists, self._bits, found.rows[part], found.hamming[part])

        in_threads(search, len(codes), threads)
        return found

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows in (m,) cells: (n,) int64, and (n,) int64 positions in `cells`, one per row."""
        sizes, starts = self.lists.sizes[cells], self.lists.starts[cells]
        which = np.repeat(np.arange(len(cells)), sizes)
        at = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[which]
        return self.lists.rows[at].astype(np.int64), which


def in_threads(search: Callable[[slice], None], queries: int, threads: int) -> None:
    """Call a function with parts of so many queries, in so many threads at once, one of which is this one."""
    size = max(1, min(_PART, -(-queries // (threads * _PARTS)))) if threads > 1 else _PART
    parts = [slice(start, start + size) for start in range(0, queries, size)]
    if threads == 1 or len(parts) == 1:
        for part in parts:
            search(part)
        return
    left = iter(parts)  # whoever is done takes the next one

    def work() -> None:
        for part in left:
            search(part)

    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()


def _whole(numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    return frozen(np.ascontiguousarray(numbers, np.int64))


def _longer(array: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return np.concatenate([array, np.zeros(count - len(array), np.int64)])
