"""Distances of features on a GPU: candidates are ranked on the GPU, and the few best are re-scored exactly on the CPU.

Sums run in float32, with the error bound of `scoring/rounding`. Features are stored in blocks of rows, so that rows are
added without copying the others. If the GPU has too little memory, or a stored row is damaged, searches compute
distances on the CPU, which reads only the features that it needs.

This module needs torch, and is imported only where an index is on a GPU.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.storage.mapped_columns import Columns

_BLOCK_BYTES = 1 << 28
"""Size of one block of features."""
_ELEMENTS = 1 << 25
"""Number of feature values that are compared in one step."""
_RESERVE = 0.25
"""Share of the GPU's memory that stays free, for later codes and for searches."""


class GpuFeatures:
    """The features of an index on a GPU, by row number. Rows are added and never change.

    Args:
        device: torch's name of the device.
        dim: D, the length of a feature.
    """

    def __init__(self, device: str, dim: int) -> None:
        self._device, self._dim = torch.device(device), dim
        self._block = max(1, _BLOCK_BYTES // (4 * dim))
        self._blocks: list[torch.Tensor] = []
        self._rows = 0
        self._given_up = False
        self._comparing = threading.Lock()  # comparisons run one after the other, since each takes memory of the GPU

    def extend(self, columns: Columns) -> bool:
        """Copy the features of all rows that are not on the GPU yet.

        Args:
            columns: the columns of the index; the rows that were copied before come first.

        Returns:
            Whether all features are on the GPU. If not, all of them are dropped, and later calls copy none.
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
        """Allocate memory for the features of some rows.

        Raises:
            torch.OutOfMemoryError: less than the share `_RESERVE` of the memory would stay free.
        """
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            if free - rows * self._dim * 4 < _RESERVE * total:
                raise torch.OutOfMemoryError
        return torch.empty((rows, self._dim), dtype=torch.float32, device=self._device)

    def squared_distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Compute ||q - x||^2 of each query and its rows: (nq, D), (nq, m) to (nq, m) float32; inf for row -1.

        Returns:
            The distances, or None if the GPU has too little memory to compute them.
        """
        values = np.full(rows.shape, np.inf, np.float32)
        query, place = np.nonzero(rows >= 0)
        block, within = np.divmod(rows[query, place], self._block)
        blocks, step = self._blocks, max(1, _ELEMENTS // self._dim)
        try:
            with self._comparing:
                features = torch.from_numpy(np.ascontiguousarray(queries)).to(self._device)
                for number in np.unique(block).tolist():
                    pairs = np.flatnonzero(block == number)
                    for start in range(0, len(pairs), step):
                        some = pairs[start : start + step]
                        at, of = (torch.from_numpy(one[some]).to(self._device) for one in (within, query))
                        difference = blocks[number][at].sub_(features[of])
                        values[query[some], place[some]] = difference.square_().sum(dim=1).cpu().numpy()
        except torch.OutOfMemoryError:
            return None
        return values
