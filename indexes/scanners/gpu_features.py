"""Features in the memory of a card, where they fit: candidates are compared there before the few that matter are exact.

Sums are of float32, as `compare` makes them, and its error bound is theirs too. Features come in blocks of rows, so
that more of them need no copy of those that are there. Where there is no room, or a row is damaged, the processor goes
on with the features that are stored, of which it reads what a search needs.

It needs torch, and is imported only where an index is on a card.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.storage.mapped_columns import Columns

_BLOCK_BYTES = 1 << 28
_ELEMENTS = 1 << 25  # compared at a time
_RESERVE = 0.25  # of the memory of a card: for codes that come later, and for searches


class GpuFeatures:
    """Features of an index by row number. Rows are added; those that are there stay as they are.

    Args:
        device: one of torch's names.
        dim: D.
    """

    def __init__(self, device: str, dim: int) -> None:
        self._device, self._dim = torch.device(device), dim
        self._block = max(1, _BLOCK_BYTES // (4 * dim))
        self._blocks: list[torch.Tensor] = []
        self._rows = 0
        self._given_up = False
        self._using = threading.Lock()  # what is compared at a time takes memory

    def extend(self, columns: Columns) -> bool:
        """Have the features of all rows of these columns, which begin with the rows that are here.

        Returns:
            Whether they are here. If not, none are from now on.
        """
        rows, start = len(columns), self._rows
        while start < rows and not self._given_up:
            block, first = divmod(start, self._block)
            end = min(rows, start - first + self._block)
            try:
                if block == len(self._blocks):
                    self._blocks.append(self._empty(self._block))
                features, at = columns.features(np.arange(start, end))
                self._blocks[block][first : first + end - start] = torch.from_numpy(features[at]).to(self._device)
            except (torch.OutOfMemoryError, DamagedIndexError):
                self._given_up = True
            columns.release_pages(min_interval=1)
            start = end
        if self._given_up:
            self._blocks = []
        else:
            self._rows = start
        return not self._given_up

    def _empty(self, rows: int) -> torch.Tensor:
        """Memory for so many rows.

        Raises:
            torch.OutOfMemoryError: too little would be left.
        """
        if self._device.type == "cuda":
            free, whole = torch.cuda.mem_get_info(self._device)
            if free - rows * self._dim * 4 < _RESERVE * whole:
                raise torch.OutOfMemoryError
        return torch.empty((rows, self._dim), dtype=torch.float32, device=self._device)

    def squared_distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """||q - x||^2 of each query and its rows: (nq, D), (nq, m) to (nq, m) float32; inf where a row is -1.

        Returns:
            None if the card has no room to compare them.
        """
        values = np.full(rows.shape, np.inf, np.float32)
        query, place = np.nonzero(rows >= 0)
        block, within = np.divmod(rows[query, place], self._block)
        blocks, step = self._blocks, max(1, _ELEMENTS // self._dim)
        try:
            with self._using:
                asked = torch.from_numpy(np.ascontiguousarray(queries)).to(self._device)
                for number in np.unique(block).tolist():
                    pairs = np.flatnonzero(block == number)
                    for start in range(0, len(pairs), step):
                        some = pairs[start : start + step]
                        at, of = (torch.from_numpy(one[some]).to(self._device) for one in (within, query))
                        apart = blocks[number][at].sub_(asked[of])
                        values[query[some], place[some]] = apart.square_().sum(dim=1).cpu().numpy()
        except torch.OutOfMemoryError:
            return None
        return values
