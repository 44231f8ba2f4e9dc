"""Real encodings by label and in strata of like ones, the form that records are generated from: see `fitted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes import Encodings
from semcut.indexes.errors import DataError

FLOOR = 1e-8
"""Smaller probabilities count as this: what a network says below it is no more than rounding."""

_STRATA, _LEAST = 64, 20  # of a label at most, encodings in one at least

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Source:
    """Real encodings in order of their labels, in these of their dominant classes, in these of their certainty.

    Attributes:
        logits: (n, C0) float32, log p less its mean over the classes.
        features: (n, D) float32.
        codes: (n, bits / 8) uint8.
        starts: (C0 + 1,) int64; where the records of each label begin, and their number at the end.
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
            encodings: n of them.
            labels: (n,) integers, from 0 to C0 - 1.
            what: to call them in errors.

        Raises:
            DataError: labels that do not fit, or a label of less than two encodings.
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
        """Positions of all records of these labels, label by label."""
        return np.concatenate([np.arange(self.starts[c], self.starts[c + 1]) for c in classes])


def cut(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where strata of equal size begin, and their end, in records of (classes,) these numbers, class after class."""
    starts, parts = np.cumsum(sizes) - sizes, np.clip(sizes // _LEAST, 1, _STRATA)
    edges = [start + np.arange(n) * size // n for start, size, n in zip(starts, sizes, parts, strict=True)]
    return np.append(np.concatenate(edges), sizes.sum())


def apart(encodings: Encodings, labels: Labels, seed: int) -> NDArray[np.bool_]:
    """(n,) bool: a random quarter of the encodings of every label, and at least two.

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
    """(C0,) encodings of each label."""
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
            f"class {sizes.argmin()} has {sizes.min()} of the {n} {what}, expected at least 2 of each class: nothing "
            "can be fitted to fewer"
        )
    return sizes
