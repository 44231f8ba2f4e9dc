"""Fixed codewords, one for each class, as far from each other as they can easily be.

Rows of a Hadamard matrix differ in exactly half of their bits, and from each other's negatives too: where the number of
bits is a power of two, they serve up to twice as many classes as there are bits. Else, codewords with as many ones as
zeros are drawn, each the farthest from those before of a few that are drawn.

Source: Hadamard centres as in Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval"
(CVPR 2020), who draw the others from Bernoulli(1/2).
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray

_DRAWN = 100


def codewords(classes: int, bits: int) -> torch.Tensor:
    """(classes, bits) float32 of 1 and -1; the same for the same numbers."""
    power = bits & (bits - 1) == 0
    if power and classes < bits:
        words = _hadamard(bits)[1 : classes + 1]  # the first row is all ones, which says nothing
    elif power and classes <= 2 * bits:
        words = np.vstack([_hadamard(bits), -_hadamard(bits)])[:classes]
    else:
        words = _drawn(classes, bits)
    return torch.from_numpy(words.astype(np.float32))


def _hadamard(size: int) -> NDArray[np.int64]:
    """Sylvester's matrix for a power of two. SciPy has it too, and takes longer to load than a small network."""
    return reduce(np.kron, [np.array([[1, 1], [1, -1]])] * (size.bit_length() - 1), np.array([[1]]))


def _drawn(classes: int, bits: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    half = np.where(np.arange(bits) < bits // 2, 1.0, -1.0)
    words = np.empty((classes, bits))
    nearest = np.full(_DRAWN, -np.inf)
    for place in range(classes):
        candidates = rng.permuted(np.tile(half, (_DRAWN, 1)), axis=1)
        nearest = (candidates @ words[:place].T).max(axis=1, initial=-bits)
        words[place] = candidates[nearest.argmin()]
    return words
