"""`Explanation`: what pruning keeps of each partition for a query, to show why a partition was skipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.pruning.cells import Cells

_MAX_BOUNDS = 1 << 22  # bounds of cells that are computed at once: 32 MB


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """The cells of each partition that pruning keeps for nq queries, and the bounds that decide it.

    Attributes:
        cells: (C,) int64; the number of cells of each partition that have records.
        bounds: (nq, C) float64; an upper bound of R for all records of the partition, 0 if it has no records.
        kept_cells: (nq, C) int64; the number of cells to scan, those whose bound is above the cutoff. A search may scan
            a few more cells, where computing a tighter bound would take longer than the scan.
        kept_codes: (nq, C) int64; the number of records in these cells. -1 where the index does not count them, see
            `Capabilities.counts_codes`.
    """

    cells: NDArray[np.int64]
    bounds: NDArray[np.float64]
    kept_cells: NDArray[np.int64]
    kept_codes: NDArray[np.int64]


def cells_per_partition(cells: Cells) -> NDArray[np.int64]:
    """Count the cells of each partition that have records: (C,) int64."""
    return np.bincount(cells.dominant()[cells.sizes > 0], minlength=cells.config.classes)


def explain(cells: Cells, weights: NDArray[np.float64], cutoff: float, counts_codes: bool) -> Explanation:
    """Compute the bounds and the kept cells of every partition for some queries.

    Args:
        cells: the cells of the index.
        weights: (nq, C) float64, s = S p of each query.
        cutoff: t of Eq. 2.
        counts_codes: whether `cells.sizes` counts records, see `Capabilities.counts_codes`.

    Raises:
        InvalidParameterError: there are too many queries to explain at once.
    """
    queries, classes = weights.shape
    most = _MAX_BOUNDS // max(classes, len(cells))
    if queries > most:
        raise InvalidParameterError(f"{queries} queries are too many to explain at once: at most {most}")
    dominant, present = cells.dominant(), cells.sizes > 0
    bounds = np.zeros((queries, classes))
    of_cells = np.where(present, cells.bounds(weights), 0)
    np.maximum.at(bounds.T, dominant, of_cells.T)
    query, cell = np.nonzero(of_cells > cutoff)
    kept_cells, kept_codes = np.zeros((2, queries, classes), np.int64)
    np.add.at(kept_cells, (query, dominant[cell]), 1)
    np.add.at(kept_codes, (query, dominant[cell]), cells.sizes[cell])
    return Explanation(
        cells=cells_per_partition(cells),
        bounds=bounds,
        kept_cells=kept_cells,
        kept_codes=kept_codes if counts_codes else np.full_like(kept_codes, -1),
    )
