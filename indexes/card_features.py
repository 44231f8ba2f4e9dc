"""Features in the memory of a card, where they fit: candidates are compared there before the few that matter are exact.

Sums are of float32, as `compare` makes them, and its error bound is theirs too. It needs torch, and is imported only
where an index is on a card.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from indexes.views import Columns

_SHARE = 0.5  # of the memory that is free; what is left is for codes that come later, and for searches
_ROWS = 1 << 18  # read at a time
_ELEMENTS = 1 << 27  # compared at a time
_SPARE = 1.25  # how many more rows there is room for when it has to be made anew


class CardFeatures:
    """Features of an index by row number. Rows are added; those that are there stay as they are.

    Args:
        device: one of torch's names.
        dim: D.
    """

    def __init__(self, device: str, dim: int) -> None:
        self._held = torch.empty((0, dim), dtype=torch.float32, device=device)
        self._rows = 0

    def extend(self, columns: Columns) -> bool:
        """Have the features of all rows of these columns, which begin with the rows that are here.

        Returns:
            False if there is no room for them: what was here before is here still.

        Raises:
            DamagedIndexError: a row is damaged.
        """
        rows = len(columns)
        if rows > len(self._held):
            held = self._room(rows if not self._rows else int(rows * _SPARE))
            if held is None:
                return False
            held[: self._rows] = self._held[: self._rows]
            self._held = held
        for start in range(self._rows, rows, _ROWS):
            wanted = np.arange(start, min(start + _ROWS, rows))
            features, at = columns.features(wanted)
            self._held[start : start + len(wanted)] = torch.from_numpy(features[at]).to(self._held.device)
            columns.relax(rest=1)
        self._rows = rows
        return True

    def _room(self, rows: int) -> torch.Tensor | None:
        """Memory for so many rows, if there is enough."""
        device, dim = self._held.device, self._held.shape[1]
        if device.type == "cuda" and rows * dim * 4 > _SHARE * torch.cuda.mem_get_info(device)[0]:
            return None
        try:
            return torch.empty((rows, dim), dtype=torch.float32, device=device)
        except torch.OutOfMemoryError:
            return None

    def squared_distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """||q - x||^2 of each query and its rows: (nq, D), (nq, m) to (nq, m) float32; inf where a row is -1."""
        held, device = self._held, self._held.device
        values = np.full(rows.shape, np.inf, np.float32)
        query, place = np.nonzero(rows >= 0)
        wanted = torch.from_numpy(rows[query, place])
        asked, of = torch.from_numpy(queries).to(device), torch.from_numpy(query)
        step = max(1, _ELEMENTS // held.shape[1])
        for start in range(0, len(query), step):
            here = slice(start, start + step)
            apart = held[wanted[here].to(device)].sub_(asked[of[here].to(device)])
            values[query[here], place[here]] = apart.square_().sum(dim=1).cpu().numpy()
        return values
