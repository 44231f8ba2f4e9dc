"""Copies of the classes of a source: how a few real classes become many.

`fitted` says what is kept. Copy 0 is the source itself; every other has an isometry of features and one of codes, drawn
once. Of the columns of the probabilities, j C0 + m is copy j of class m.
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
class Layout:
    """Which classes there are and how the copies of them lie. The same for records and queries.

    Attributes:
        chosen: (c0,) int64; classes of the source.
        columns: (C,) int64; number j c0 + m of each class: copy j of chosen class m.
        rotations: (J, D, D) float32 orthogonal matrices to multiply features with.
        bit_orders: (J, bits) int64 permutations.
        tails: (patterns, J, c0) float32; shares of the copies of a class, summing to 1 over J.
    """

    chosen: NDArray[np.int64]
    columns: NDArray[np.int64]
    rotations: NDArray[np.float32]
    bit_orders: NDArray[np.int64]
    tails: NDArray[np.float32]

    @staticmethod
    def draw(
        classes: int,
        source_classes: int,
        mean_feature: NDArray[np.float32],
        bit_rates: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> Layout:
        """A layout at random.

        Args:
            classes: C.
            source_classes: C0.
            mean_feature: (D,) of the source.
            bit_rates: (bits,) how often each bit is set in the source.
            rng: random numbers.
        """
        copies = -(-classes // source_classes)
        part = rng.permutation(source_classes)[: classes - (copies - 1) * source_classes]
        chosen = np.sort(part) if copies == 1 else np.arange(source_classes)
        whole = np.arange((copies - 1) * source_classes)
        columns = np.arange(classes) if copies == 1 else np.concatenate([whole, len(whole) + np.sort(part)])
        shares = np.exp(_UNEVEN * rng.standard_normal((_PATTERNS, copies, len(chosen)), dtype=np.float32))
        return Layout(
            chosen=chosen,
            columns=columns,
            rotations=np.stack([_rotation(mean_feature, rng if copy else None) for copy in range(copies)]),
            bit_orders=np.stack([_bit_order(bit_rates, rng if copy else None) for copy in range(copies)]),
            tails=shares / shares.sum(axis=1, keepdims=True),
        )

    @property
    def copies(self) -> int:
        """J."""
        return len(self.rotations)

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
        lost = probabilities * (TAIL / (probabilities + TAIL))
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
        features, codes = features.copy(), codes.copy()
        order = np.argsort(copies, kind="stable")
        ends = np.searchsorted(copies[order], np.arange(self.copies), side="right")
        for copy in range(1, self.copies):
            rows = order[ends[copy - 1] : ends[copy]]
            features[rows] = features[rows] @ self.rotations[copy]
            bits = np.unpackbits(codes[rows], axis=1)
            codes[rows] = np.packbits(bits[:, self.bit_orders[copy]], axis=1)
        return features, codes


def _rotation(fixed: NDArray[np.float32], rng: np.random.Generator | None) -> NDArray[np.float32]:
    """A random (D, D) orthogonal matrix that leaves a (D,) vector where it is; the identity without random numbers."""
    dim, length = len(fixed), float(np.linalg.norm(fixed))
    if rng is None:
        return np.eye(dim, dtype=np.float32)
    inner = np.eye(dim)
    inner[1:, 1:] = np.linalg.qr(rng.standard_normal((dim - 1, dim - 1)))[0]
    normal = fixed.astype(np.float64) / (length or 1.0)
    normal[0] -= 1  # of the mirror that swaps the vector's direction with the first axis
    square = float(normal @ normal)
    mirror = np.eye(dim) - (2 / square) * np.outer(normal, normal) if length and square > 1e-12 else np.eye(dim)
    return np.asarray(mirror @ inner @ mirror, np.float32)


def _bit_order(rates: NDArray[np.float64], rng: np.random.Generator | None) -> NDArray[np.int64]:
    """A random permutation that moves bits to places of bits that are set about as often, or the identity."""
    order = np.arange(len(rates))
    if rng is not None:
        by_rate = np.argsort(rates, kind="stable")
        for start in range(0, len(rates), _ALIKE):
            alike = by_rate[start : start + _ALIKE]
            order[alike] = rng.permutation(alike)
    return order
