"""Find pairs of records that are near by code and by feature, without comparing every pair of features.

    sort        the records of a list are sorted by the first coordinate of their sketches, so that a record is compared
                only with those whose first coordinate differs by at most the radius
    code        pairs whose codes differ in too many bits are dropped
    sketch      pairs whose sketches are further apart than the radius are dropped

A sketch is the projection of a feature on a few orthogonal directions, along which features of a class differ most. A
projection shortens distances, never lengthens them, so no pair within the radius is dropped. The pairs that are left
are candidates: their exact distances decide. The compiled counterpart of `near_pairs` is `search.near_pairs_numba`.

Source: Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 2011 (the directions, by a power
iteration on a sample of features). Any orthogonal directions are correct; those are fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError

COORDINATES = 16
"""Largest number of coordinates of a sketch."""

_SAMPLE, _SAMPLE_VALUES = 1 << 14, 1 << 24
_BLOCK, _WIDTH = 256, 4096
"""Records of a list that are compared at once: rows and columns of the matrix of their Hamming distances."""


class Directions(NamedTuple):
    """Orthogonal directions, and the mean of features: (D, s) float64 and (D,) float64."""

    axes: NDArray[np.float64]
    mean: NDArray[np.float64]

    def sketches(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project (n, D) features: (n, s) float32."""
        with np.errstate(invalid="ignore", over="ignore"):  # of a forged index; see `damaged_features`
            projected: NDArray[np.float32] = ((features - self.mean) @ self.axes).astype(np.float32)
        return projected


def directions(
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]], classes: NDArray[np.int64], dim: int
) -> Directions:
    """Find the directions along which a sample of the features differs most from other features of the same class.

    Args:
        features: reads the features of (n,) records, by their numbers: (n, D) float32.
        classes: (records,) int64, the most probable class of each record; at least one record.
        dim: D.

    Raises:
        DamagedIndexError: a feature is not finite, which semcut never writes.
    """
    rows = len(classes)
    rng = np.random.default_rng(0)
    size = min(rows, _SAMPLE, max(COORDINATES, _SAMPLE_VALUES // dim))
    chosen = np.sort(rng.choice(rows, size, replace=False))
    sample = features(chosen).astype(np.float64)
    if not np.isfinite(sample).all():
        raise damaged_features()
    mean = sample.mean(axis=0)
    found, of_class = np.unique(classes[chosen], return_inverse=True)
    centres = np.zeros((len(found), dim))
    np.add.at(centres, of_class, sample)
    sample -= (centres / np.bincount(of_class)[:, None])[of_class]
    scale = np.abs(sample).max()
    sample /= scale if scale > 0 else 1
    axes = np.linalg.qr(rng.standard_normal((dim, min(COORDINATES, dim))))[0]
    for _ in range(3):
        axes = np.linalg.qr(sample.T @ (sample @ axes))[0]
    rotation = np.linalg.svd(sample @ axes, full_matrices=False)[2]
    return Directions(np.linalg.qr(axes @ rotation.T)[0], mean)


def damaged_features() -> DamagedIndexError:
    """Return the error for features that are not finite."""
    return DamagedIndexError("records have features that are no finite numbers: see `semcut verify`")


class Lists(NamedTuple):
    """Records in lists, each sorted by the first coordinate of the sketches; a list is a stretch of positions.

    Attributes:
        rows: (m,) int32, the number of the record at each position.
        codes: (m, words) uint64, its code.
        sketches: (m, s) float32, its sketch.
    """

    rows: NDArray[np.int32]
    codes: NDArray[np.uint64]
    sketches: NDArray[np.float32]


class Radius(NamedTuple):
    """Which pairs are candidates.

    Attributes:
        bits: the largest Hamming distance.
        sketch: the largest distance of sketches, which allows for their rounding.
    """

    bits: int
    sketch: float


def near_pairs(
    records: Lists,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    lists: Lists,
    labels: NDArray[np.int32],
    radius: Radius,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Find the candidates among pairs of a record and those of a stretch of a list.

    Args:
        records: n records.
        starts, ends: (n,) int64, the stretch of each record in `lists`. Records of the same list are neighbours.
        lists: the lists.
        labels: by number of record; pairs with the same label are left out.
        radius: which pairs are candidates.

    Returns:
        Two arrays of the numbers of the records of each candidate: (p,) int32.
    """
    found_a, found_b = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    borders = np.flatnonzero(np.diff(ends)) + 1
    for own in np.split(np.arange(len(ends)), borders):
        for first in range(0, len(own), _BLOCK):
            here = own[first : first + _BLOCK]
            x = records.sketches[here, 0]
            start, end = int(starts[here].min()), int(ends[here[0]])
            keys = lists.sketches[start:end, 0]
            low = start + int(np.searchsorted(keys, x.min() - np.float32(radius.sketch), "left"))
            high = start + int(np.searchsorted(keys, x.max() + np.float32(radius.sketch), "right"))
            for left in range(low, high, _WIDTH):
                there = np.arange(left, min(left + _WIDTH, high))
                different = np.bitwise_count(records.codes[here, None] ^ lists.codes[None, there])
                near = different.sum(axis=2, dtype=np.int32) <= radius.bits
                near &= there >= starts[here, None]
                a, b = np.nonzero(near)
                a, b = here[a], there[b]
                apart = records.sketches[a] - lists.sketches[b]
                close = np.vecdot(apart, apart) <= np.float32(radius.sketch) ** 2
                row_a, row_b = records.rows[a[close]], lists.rows[b[close]]
                other = labels[row_a] != labels[row_b]
                found_a.append(row_a[other])
                found_b.append(row_b[other])
    return np.concatenate(found_a), np.concatenate(found_b)
