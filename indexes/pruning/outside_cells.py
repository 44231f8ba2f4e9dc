"""Find records that are not where an index's cells say: in another cell, or beyond the bounds of their own.

An index whose files are intact has none. `verify` reports them, and a migration refuses them before it copies, since
cells bound the memory of a copy, and since a search would skip such records.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.probability_rows import row_masses
from semcut.indexes.pruning.cell_table import cell_numbers
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scoring.packed_rows import PackedRows

_ROWS = 1024
"""Rows whose envelopes are copied at a time."""


def outside_cells(
    cells: Cells, probabilities: NDArray[np.float32] | PackedRows, positions: NDArray[np.int32] | None = None
) -> NDArray[np.bool_]:
    """Find records that belong to another cell than theirs, or to none, or are beyond the bounds of theirs.

    Args:
        cells: the cells of an index.
        probabilities: those of some of its records, (n, C) or packed.
        positions: (n,) positions of the cells that the records are stored in. None: the cells that they belong to.

    Returns:
        (n,) bool.
    """
    numbers, confidence = cell_numbers(cells.config, probabilities)
    if not len(cells):
        return np.ones(len(numbers), bool)
    if positions is None:
        order = np.argsort(cells.numbers)
        places = np.searchsorted(cells.numbers, numbers, sorter=order)
        at = order[np.minimum(places, len(order) - 1)]
    else:
        at = positions.astype(np.int64)
    outside: NDArray[np.bool_] = cells.numbers[at] != numbers
    outside |= confidence < cells.lows[at]
    if isinstance(probabilities, PackedRows):
        outside |= probabilities.masses() > cells.masses[at]
        for place in range(probabilities.stored):
            classes, values = probabilities.place(place)
            outside |= values > cells.envelopes[at, classes]
        return outside
    outside |= row_masses(probabilities) > cells.masses[at]
    for start in range(0, len(at), _ROWS):
        here = slice(start, start + _ROWS)
        outside[here] |= (probabilities[here] > cells.envelopes[at[here]]).any(axis=1)
    return outside
