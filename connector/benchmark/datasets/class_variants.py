"""Generate many classes from the few classes of a source: every class gets several variants.

`fitted_records` says what a variant preserves. Every variant has one isometry of features and one of codes, drawn once.
The isometry of features reflects the mean feature onto the first axis, permutes the other axes, changes the signs of
half of them, and reflects back. If features use many axes, the features of two variants differ as much as after random
rotations; this isometry needs no matrix product. Column j C0 + m of the probabilities belongs to variant j of class m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAIL = 0.01
"""Below about this probability, a class is confused with its counterparts in all variants, not in one variant only."""

_TAIL_PATTERNS = 256  # number of ways to distribute a tail over the variants
_LOG_SHARE_DEVIATION = 1.5  # standard deviation of the logarithm of a variant's share of a tail
_BITS_PER_GROUP = 16  # bits that are set about as often; a permutation exchanges bits within such a group


@dataclass(frozen=True, eq=False)
class ClassVariants:
    """The classes of a generated data set and the isometry of each variant. Records and queries share it.

    Attributes:
        chosen: (c0,) int64; the classes of the source that are used.
        columns: (C,) int64; for each class the number j c0 + m: variant j of chosen class m.
        mirror: (D,) float32 of length 1, or 0; normal of the mirror that exchanges the direction of the mean feature
            and the first axis.
        axes: (J, D) int64 permutations of the axes; the first axis stays in place.
        signs: (J, D) float32, 1 or -1; 1 for the first axis.
        bit_orders: (J, bits) int64 permutations.
        tails: (patterns, J, c0) float32; shares of the variants of a class, with sum 1 over J.
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
        """Draw classes and isometries at random.

        Args:
            classes: C.
            source_classes: C0.
            mean_feature: (D,) mean feature of the source.
            bit_rates: (bits,) share of the source's codes that set each bit.
            rng: source of random numbers.
        """
        variants, dim = -(-classes // source_classes), len(mean_feature)
        part = rng.permutation(source_classes)[: classes - (variants - 1) * source_classes]
        chosen = np.sort(part) if variants == 1 else np.arange(source_classes)
        complete = np.arange((variants - 1) * source_classes)
        columns = np.arange(classes) if variants == 1 else np.concatenate([complete, len(complete) + np.sort(part)])
        shares = np.exp(
            _LOG_SHARE_DEVIATION * rng.standard_normal((_TAIL_PATTERNS, variants, len(chosen)), dtype=np.float32)
        )
        return ClassVariants(
            chosen=chosen,
            columns=columns,
            mirror=_mirror(mean_feature),
            axes=np.stack([np.concatenate([[0], rng.permutation(np.arange(1, dim))]) for _ in range(variants)]),
            signs=np.hstack([np.ones((variants, 1)), rng.choice([-1.0, 1.0], (variants, dim - 1))]).astype(np.float32),
            bit_orders=np.stack([_bit_order(bit_rates, rng) for _ in range(variants)]),
            tails=shares / shares.sum(axis=1, keepdims=True),
        )

    @property
    def count(self) -> int:
        """J, the number of variants of each class."""
        return len(self.axes)

    def spread_probabilities(
        self, probabilities: NDArray[np.float32], variants: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Distribute the probabilities of the chosen source classes over all variants.

        Args:
            probabilities: (n, c0) probabilities of the chosen classes.
            variants: (n,) the variant that each record belongs to.
            rng: source of random numbers.

        Returns:
            (n, C) float32.
        """
        if self.count == 1:
            return probabilities
        rows = np.arange(len(variants))
        tail = probabilities * (1 - probabilities) * (TAIL / (probabilities + TAIL))
        spread = self.tails[rng.integers(0, _TAIL_PATTERNS, len(variants))]
        spread *= tail[:, None, :]
        spread[rows, variants] += probabilities - tail
        flat = spread.reshape(len(variants), -1)
        if len(self.columns) == flat.shape[1]:
            return flat
        kept = flat[:, self.columns]
        return np.asarray(kept / kept.sum(axis=1, keepdims=True))

    def move(
        self, features: NDArray[np.float32], codes: NDArray[np.uint8], variants: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Apply the isometry of each record's variant.

        Args:
            features: (n, D) float32.
            codes: (n, bits / 8) uint8, packed.
            variants: (n,) the variant that each record belongs to.

        Returns:
            New features and codes of the same shapes.
        """
        if self.count == 1:
            return features, codes
        features, codes = self._reflected(features), codes.copy()
        order = np.argsort(variants, kind="stable")
        ends = np.searchsorted(variants[order], np.arange(self.count), side="right")
        for variant, rows in enumerate(np.split(order, ends[:-1])):
            features[rows] = features[rows[:, None], self.axes[variant]] * self.signs[variant]
            bits = np.unpackbits(codes[rows], axis=1)
            codes[rows] = np.packbits(bits[:, self.bit_orders[variant]], axis=1)
        return self._reflected(features), codes

    def _reflected(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        reflected: NDArray[np.float32] = features - (2 * np.vecdot(features, self.mirror))[:, None] * self.mirror
        return reflected


def _mirror(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (D,) normal of the mirror that exchanges a vector's direction and the first axis; 0 if they agree."""
    length = np.linalg.norm(vector)
    normal = vector / length if length > 0 else np.zeros_like(vector)
    normal[0] -= length > 0
    size = np.linalg.norm(normal)
    return np.asarray(normal / size if size > 1e-6 else 0 * normal, np.float32)


def _bit_order(rates: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw a permutation that only exchanges bits that are set about as often."""
    order = np.arange(len(rates))
    by_rate = np.argsort(rates, kind="stable")
    for start in range(0, len(rates), _BITS_PER_GROUP):
        group = by_rate[start : start + _BITS_PER_GROUP]
        order[group] = rng.permutation(group)
    return order
