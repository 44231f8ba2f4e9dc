"""The number of the cell that a record belongs to: a function of the record's largest probabilities alone.

A partition holds the records of one dominant class c = argmax p. With p1 and p2 a record's largest and second largest
probability, a partition is divided into these cells; a cell without records is not stored:

    kind                        records
    0                           sure:       p1 >= 0.95
    1                           confident:  p1 >= 0.8
    2 + W band                  vague:      other records with p2 < 0.15, whose other probabilities are all small
    2 + W band + 1 + r mod 2 G  torn:       all other records, by their runner-up class r

A band is an interval of p1: 0 for p1 >= 0.5, 1 for p1 >= 0.3, 2 below that. G is `IndexConfig.groups`, and
W = 1 + min(C, 2 G) is the number of kinds in a band. A record's cell is c (2 + 3 W) + kind, and there are at most
C (2 + 3 W) cells for any number of records.

Cells finer than partitions make the bounds of `cells` tight: grouping by runner-up keeps the second largest
probabilities of different classes apart, the kind `vague` keeps records without a notable second class out of all
groups, and bands make the first term of the bound, s_c M_L(c), tight.

Stored indexes contain these numbers, so a change of the table is a change of the format.

Source: the table is semcut's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.scoring.packed_rows import PackedRows

SURE, CONFIDENT, VAGUE, BANDS = 0.95, 0.8, 0.15, (0.5, 0.3)
EDGES = (SURE, CONFIDENT, *BANDS, BANDS[-1] / 2)
"""A fixed edge for each interval of p1: the lower end of the interval; for the last one, half of its upper end."""
_CHUNK = 1 << 14
"""Records that are numbered in one step."""


def cell_numbers(
    config: IndexConfig, probabilities: NDArray[np.float32] | PackedRows
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the number of each record's cell, and p1: (n, C) float32, or n packed rows, to (n,) int64, (n,) float32.

    If probabilities are equal, that of the lower class counts as the larger.
    """
    if isinstance(probabilities, PackedRows):
        dominant, p1 = probabilities.place(0)
        runner_up, p2 = probabilities.place(1) if probabilities.stored > 1 else (dominant, np.zeros_like(p1))
        return _numbers(config, dominant, p1, runner_up, p2), p1
    numbers = np.empty(len(probabilities), np.int64)
    confidence = np.empty(len(probabilities), np.float32)
    for start in range(0, len(probabilities), _CHUNK):
        here = slice(start, start + _CHUNK)
        part = probabilities[here].copy()
        row = np.arange(len(part))
        dominant = part.argmax(axis=1)
        p1 = part[row, dominant]
        part[row, dominant] = -1
        runner_up = part.argmax(axis=1)
        numbers[here] = _numbers(config, dominant, p1, runner_up, part[row, runner_up])
        confidence[here] = p1
    return numbers, confidence


def _numbers(
    config: IndexConfig,
    dominant: NDArray[np.int64],
    p1: NDArray[np.float32],
    runner_up: NDArray[np.int64],
    p2: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Return the numbers of cells of n records from the classes and the values of their two largest probabilities."""
    band = np.count_nonzero([p1 < edge for edge in BANDS], axis=0)
    group = np.where(p2 < VAGUE, 0, 1 + runner_up % (2 * config.groups))
    kind = np.select([p1 >= SURE, p1 >= CONFIDENT], [0, 1], 2 + _band_width(config) * band + group)
    numbers: NDArray[np.int64] = dominant * kinds_per_class(config) + kind
    return numbers


def edges_of(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the edge, out of `EDGES`, of each record's p1: (n, C) float32 to (n,) float64."""
    p1 = probabilities.max(axis=1)
    edges: NDArray[np.float64] = np.array(EDGES)[np.count_nonzero([p1 < edge for edge in EDGES[:-1]], axis=0)]
    return edges


def edges_of_cells(config: IndexConfig, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the edge, out of `EDGES`, of the interval of p1 of each cell: (cells,) int64 to (cells,) float64."""
    kind = numbers % kinds_per_class(config)
    edges: NDArray[np.float64] = np.array(EDGES)[np.where(kind < 2, kind, 2 + (kind - 2) // _band_width(config))]
    return edges


def cell_count(config: IndexConfig) -> int:
    """Return the largest possible number of cells."""
    return config.classes * kinds_per_class(config)


def kinds_per_class(config: IndexConfig) -> int:
    """Return 2 + 3 W, the number of cells in a partition."""
    return 2 + (len(BANDS) + 1) * _band_width(config)


def _band_width(config: IndexConfig) -> int:
    """Return W, the number of kinds in a band."""
    return 1 + min(config.classes, 2 * config.groups)
