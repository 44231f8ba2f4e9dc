"""The "faiss" scanner for the CPU: one FAISS `IndexBinaryIVF` with one inverted list per cell.

Lists are filled and searched by number. The quantizer, which normally chooses the lists, has as many dummy codes as
there are lists, and is never searched. FAISS fixes the number of lists when an index is created, so there are spare
lists, and their number is at least doubled when a cell has none.

FAISS selects the nearest codes by counting codes per Hamming distance, not with a heap, so the time hardly depends on
the depth. Counting takes 8 bytes per distance, result slot and query, so queries are searched in chunks.

Invariants that FAISS relies on and does not check:
- a list has a number below nlist: FAISS reads and writes at the place of any other (a cell without a list is skipped);
- every array passed by pointer is bound to a name for the whole call (`swig_ptr` does not keep it alive);
- nprobe in the search parameters is the width of the matrix of lists, at most the number of lists; each call has its
  own parameters, so that searches of different widths can run at the same time;
- selection by counting returns nothing unless the parameters limit the number of codes scanned (faiss issue 5555).

Source: faiss/IndexBinaryIVF.cpp (`add_core`, `search_preassigned`) and FAISS's own test of preassigned binary lists.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.faiss_library import faiss
from semcut.indexes.scanners.protocol import Nearest

_COUNTER_BYTES = 1 << 24
"""Bytes of FAISS's counters in one call, at most."""
_FIRST_LISTS = 256
"""Number of lists of a new scanner."""
_NO_LIMIT = 1 << 60


class IvfScanner:
    """The codes of an index in memory, in one inverted list per cell. See `protocol.Scanner`.

    Args:
        bits: length of a code.
    """

    deepest = _NO_LIMIT
    patience = math.inf
    fused = False

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._lists = _FIRST_LISTS  # as `nlist`, which takes a microsecond to read
        self._ivf = self._empty(_FIRST_LISTS)

    def _empty(self, lists: int) -> Any:
        quantizer = faiss.IndexBinaryFlat(self._bits)
        dummies = np.zeros((lists, self._bits // 8), np.uint8)
        quantizer.add(dummies)
        ivf = faiss.IndexBinaryIVF(quantizer, self._bits, lists)
        ivf.is_trained = True
        ivf.use_heap = False
        return ivf

    def add(self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Add n codes under their row numbers to the lists of their cells."""
        if not len(codes):
            return
        count = int(cells.max()) + 1
        if count > self._ivf.nlist:
            self._grow(max(count, 2 * self._ivf.nlist))
        _add(self._ivf, codes, rows, cells)

    def remove(self, rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> int:
        """Remove n codes from the lists of their cells, and return how many of them were there."""
        before, lists = self._ivf.ntotal, self._ivf.invlists
        known = cells < self._ivf.nlist
        rows, cells = rows[known], cells[known]
        if not len(rows):
            return 0
        order = np.argsort(cells, kind="stable")
        rows = rows[order]
        touched, starts = np.unique(cells[order], return_index=True)
        for cell, removed in zip(touched.tolist(), np.split(rows, starts[1:]), strict=True):
            size = lists.list_size(cell)
            if not size:
                continue
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
            codes = faiss.rev_swig_ptr(lists.get_codes(cell), size * self._bits // 8).reshape(size, -1)
            kept = np.flatnonzero(~np.isin(ids, removed))
            ids[: len(kept)], codes[: len(kept)] = ids[kept], codes[kept]
            lists.resize(cell, len(kept))
            self._ivf.ntotal -= size - len(kept)
        return int(before - self._ivf.ntotal)

    def _grow(self, lists: int) -> None:
        """Copy all codes to an index with more lists."""
        wider = self._empty(lists)
        old = self._ivf.invlists
        for cell in range(self._ivf.nlist):
            size = old.list_size(cell)
            if size:
                codes = faiss.rev_swig_ptr(old.get_codes(cell), size * self._bits // 8)
                rows = faiss.rev_swig_ptr(old.get_ids(cell), size)
                wider.invlists.add_entries(cell, size, faiss.swig_ptr(rows), faiss.swig_ptr(codes))
        wider.ntotal = self._ivf.ntotal
        self._ivf, self._lists = wider, lists

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Return the `depth` rows nearest to each query within its cells; see `Scanner.search`."""
        found = Nearest.empty(len(codes), depth)
        if cells.size and cells.max() >= self._lists:
            cells = np.where(cells < self._lists, cells, -1)
        chunk = max(1, _COUNTER_BYTES // (8 * depth * (self._bits + 1)))
        for start in range(0, len(codes), chunk):
            here = slice(start, start + chunk)
            self._search(codes[here], cells[here], found.rows[here], found.hamming[here])
        return found

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows in (m,) cells: (n,) int64 rows, and (n,) int64 positions of their cells in `cells`."""
        lists, count = self._ivf.invlists, self._ivf.nlist
        sizes = [lists.list_size(cell) if cell < count else 0 for cell in cells.tolist()]
        found = [
            faiss.rev_swig_ptr(lists.get_ids(cell), size)
            for cell, size in zip(cells.tolist(), sizes, strict=True)
            if size
        ]
        rows = np.concatenate(found) if found else np.empty(0, np.int64)  # a copy: FAISS owns the arrays in `found`
        return rows, np.repeat(np.arange(len(cells)), sizes)

    def _search(
        self, codes: NDArray[np.uint8], cells: NDArray[np.int64], rows: NDArray[np.int64], hamming: NDArray[np.int32]
    ) -> None:
        queries, width = cells.shape
        if not width:
            return
        unused = np.zeros(cells.shape, np.int32)  # distances to the centroids of the lists
        params = faiss.IVFSearchParameters()
        params.nprobe = width
        params.max_codes = _NO_LIMIT
        codes, cells = np.ascontiguousarray(codes), np.ascontiguousarray(cells)
        self._ivf.search_preassigned_c(
            queries, faiss.swig_ptr(codes), rows.shape[1], faiss.swig_ptr(cells), faiss.swig_ptr(unused),
            faiss.swig_ptr(hamming), faiss.swig_ptr(rows), False, params,
        )  # fmt: skip


def _add(ivf: Any, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
    codes, rows = np.ascontiguousarray(codes), np.ascontiguousarray(rows, np.int64)
    lists = np.ascontiguousarray(cells, np.int64)
    ivf.add_core(len(codes), faiss.swig_ptr(codes), faiss.swig_ptr(rows), faiss.swig_ptr(lists))
