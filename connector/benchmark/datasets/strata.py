"""Sort encodings by label and cut each label into strata of similar records: the form that `fitted_records` draws from.

Within a label, records are sorted by dominant class and then by certainty, the largest probability. A stratum is a run
of consecutive records in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes import Encodings
from semcut.indexes.errors import DataError

FLOOR = 1e-8
"""Smaller probabilities are raised to this value: below it, a network's outputs are only rounding errors."""

_MOST_STRATA = 64  # maximum number of strata of one label
_LEAST_SIZE = 20  # minimum number of records in a stratum, if the label has as many

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Source:
    """Encodings sorted by label, then by dominant class, then by certainty (the largest probability).

    Attributes:
        logits: (n, C0) float32, log p minus its mean over the classes.
        features: (n, D) float32.
        codes: (n, bits / 8) uint8.
        starts: (C0 + 1,) int64; first record of each label, and n at the end.
        normalised: whether features are L2-normalised.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32]
    codes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    normalised: bool

    @staticmethod
    def of(encodings: Encodings, labels: Labels, what: str = "records") -> Source:
        """Sort encodings.

        Args:
            encodings: n encodings.
            labels: (n,) integers from 0 to C0 - 1.
            what: the word for the encodings in error messages.

        Raises:
            DataError: labels have a wrong shape, type or value, or a label has fewer than two encodings.
        """
        classes = encodings.probabilities.shape[1]
        _sizes(encodings, labels, what)
        certainty, dominant = encodings.probabilities.max(axis=1), encodings.probabilities.argmax(axis=1)
        order = np.lexsort((certainty, dominant, labels))
        logits = np.log(np.maximum(encodings.probabilities[order], np.float32(FLOOR)))
        logits -= logits.mean(axis=1, keepdims=True)
        return Source(
            logits=logits,
            features=encodings.features[order],
            codes=encodings.codes[order],
            starts=np.searchsorted(labels[order], np.arange(classes + 1)),
            normalised=encodings.normalised(),
        )

    def rows(self, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of all records of these labels, label by label."""
        return np.concatenate([np.arange(self.starts[c], self.starts[c + 1]) for c in classes])


def stratum_edges(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cut each label into strata of equal size.

    Args:
        sizes: (classes,) int64, the number of records of each label; records are in order of labels.

    Returns:
        (strata + 1,) int64: the first record of each stratum, and the number of records at the end.
    """
    starts, parts = np.cumsum(sizes) - sizes, np.clip(sizes // _LEAST_SIZE, 1, _MOST_STRATA)
    edges = [start + np.arange(n) * size // n for start, size, n in zip(starts, sizes, parts, strict=True)]
    return np.append(np.concatenate(edges), sizes.sum())


def choose_queries(encodings: Encodings, labels: Labels, seed: int) -> NDArray[np.bool_]:
    """Draw the encodings that queries are generated from: a random quarter of each label, and at least two.

    Returns:
        (n,) bool.

    Raises:
        DataError: as for `Source.of`.
    """
    sizes = _sizes(encodings, labels, "encodings")
    chosen = np.zeros(len(labels), bool)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    for label, size in enumerate(sizes):
        chosen[shuffled[labels[shuffled] == label][: max(2, size // 4)]] = True
    return chosen


def _sizes(encodings: Encodings, labels: Labels, what: str) -> NDArray[np.int64]:
    """Count the (C,) encodings of each label, after checking the labels."""
    n, classes = encodings.probabilities.shape
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(f"labels of the {what} are {labels.dtype} of shape {labels.shape}, expected ({n},) integers")
    if n and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"labels of the {what} go from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}, one for each "
            "of the probabilities"
        )
    sizes = np.bincount(labels, minlength=classes)
    if sizes.min() < 2:
        raise DataError(
            f"class {sizes.argmin()} has {sizes.min()} of the {n} {what}, expected at least 2 of each class: fewer "
            "cannot be fitted"
        )
    return sizes
