"""Copies of the classes of a source: how a few real classes become many.

`fitted` says what is kept. Every copy has an isometry of features and one of codes, drawn once. That of features turns
the mean feature to the first axis, permutes the others, changes the signs of half of them, and turns back: as different
as random rotations of features that use many axes, and a matrix product cheaper. Of the columns of the probabilities,
j C0 + m is copy j of class m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAIL = 0.01
"""About the probability below which a class is no longer confused with one copy but with all of them."""

_PATTERNS = 256  # ways in which tails are spread
_UNEVEN = 1.5  # standard deviation of the logarithm of shares
_ALIKE = 16  # bits that are permuted among each other


@dataclass(frozen=True, eq=False)
class ClassVariants:
    """Which classes there are and how the copies of them lie. The same for records and queries.

    Attributes:
        chosen: (c0,) int64; classes of the source.
        columns: (C,) int64; number j c0 + m of each class: copy j of chosen class m.
        mirror: (D,) float32 of length 1, or 0; the mirror that swaps the mean feature's direction with the first axis.
        axes: (J, D) int64 permutations of the axes, the first left where it is.
        signs: (J, D) float32, 1 or -1; 1 for the first axis.
        bit_orders: (J, bits) int64 permutations.
        tails: (patterns, J, c0) float32; shares of the copies of a class, summing to 1 over J.
    """

    chosen: NDArray[np.int64]
    columns: NDArray[np.int64]
    mirror: NDArray[np.float32]
    axes: NDArray[np.int64]
    signs: NDArray[np.float32]
    bit_orders: NDArray[np.int64]
    tails: NDArray[np.float32]

    @staticmethod
    def draw(
        classes: int,
        source_classes: int,
        mean_feature: NDArray[np.float32],
        bit_rates: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> ClassVariants:
        """A layout at random.

        Args:
            classes: C.
            source_classes: C0.
            mean_feature: (D,) of the source.
            bit_rates: (bits,) how often each bit is set in the source.
            rng: random numbers.
        """
        copies, dim = -(-classes // source_classes), len(mean_feature)
        part = rng.permutation(source_classes)[: classes - (copies - 1) * source_classes]
        chosen = np.sort(part) if copies == 1 else np.arange(source_classes)
        whole = np.arange((copies - 1) * source_classes)
        columns = np.arange(classes) if copies == 1 else np.concatenate([whole, len(whole) + np.sort(part)])
        shares = np.exp(_UNEVEN * rng.standard_normal((_PATTERNS, copies, len(chosen)), dtype=np.float32))
        return ClassVariants(
            chosen=chosen,
            columns=columns,
            mirror=_mirror(mean_feature),
            axes=np.stack([np.concatenate([[0], rng.permutation(np.arange(1, dim))]) for _ in range(copies)]),
            signs=np.hstack([np.ones((copies, 1)), rng.choice([-1.0, 1.0], (copies, dim - 1))]).astype(np.float32),
            bit_orders=np.stack([_bit_order(bit_rates, rng) for _ in range(copies)]),
            tails=shares / shares.sum(axis=1, keepdims=True),
        )

    @property
    def copies(self) -> int:
        """J."""
        return len(self.axes)

    def spread(
        self, probabilities: NDArray[np.float32], copies: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Probabilities of all classes.

        Args:
            probabilities: (n, c0) of the chosen classes of the source.
            copies: (n,) the copy that each record lies in.
            rng: random numbers.

        Returns:
            (n, C) float32.
        """
        if self.copies == 1:
            return probabilities
        rows = np.arange(len(copies))
        lost = probabilities * (1 - probabilities) * (TAIL / (probabilities + TAIL))
        spread = self.tails[rng.integers(0, _PATTERNS, len(copies))]
        spread *= lost[:, None, :]
        spread[rows, copies] += probabilities - lost
        flat = spread.reshape(len(copies), -1)
        if len(self.columns) == flat.shape[1]:
            return flat
        kept = flat[:, self.columns]
        return np.asarray(kept / kept.sum(axis=1, keepdims=True))

    def move(
        self, features: NDArray[np.float32], codes: NDArray[np.uint8], copies: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Features (n, D) and packed codes (n, bits / 8) of records that lie in these (n,) copies."""
        if self.copies == 1:
            return features, codes
        features, codes = self._mirrored(features), codes.copy()
        order = np.argsort(copies, kind="stable")
        ends = np.searchsorted(copies[order], np.arange(self.copies), side="right")
        for copy, rows in enumerate(np.split(order, ends[:-1])):
            features[rows] = features[rows[:, None], self.axes[copy]] * self.signs[copy]
            bits = np.unpackbits(codes[rows], axis=1)
            codes[rows] = np.packbits(bits[:, self.bit_orders[copy]], axis=1)
        return self._mirrored(features), codes

    def _mirrored(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        moved: NDArray[np.float32] = features - (2 * np.vecdot(features, self.mirror))[:, None] * self.mirror
        return moved


def _mirror(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """(D,) normal of the mirror that swaps a vector's direction with the first axis; 0 where they are the same."""
    length = np.linalg.norm(vector)
    normal = vector / length if length > 0 else np.zeros_like(vector)
    normal[0] -= length > 0
    size = np.linalg.norm(normal)
    return np.asarray(normal / size if size > 1e-6 else 0 * normal, np.float32)


def _bit_order(rates: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation that moves bits to places of bits that are set about as often."""
    order = np.arange(len(rates))
    by_rate = np.argsort(rates, kind="stable")
    for start in range(0, len(rates), _ALIKE):
        alike = by_rate[start : start + _ALIKE]
        order[alike] = rng.permutation(alike)
    return order
