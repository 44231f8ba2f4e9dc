"""Choose fixed codewords, one for each class, that differ in many bits.

Two rows of a Hadamard matrix differ in exactly half of their bits, and so do a row and the negative of another row.
If the number of bits is a power of two, and there are at most twice as many classes as bits, the codewords are rows and
negatives of rows. Otherwise codewords with as many ones as minus ones are drawn at random: 100 candidates for each
class; the candidate whose nearest earlier codeword is farthest away is kept.

Source: Hadamard centres as in Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval"
(CVPR 2020), who draw the other centres from Bernoulli(1/2).
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_CANDIDATES = 100


def codewords(classes: int, bits: int) -> torch.Tensor:
    """Choose codewords: (classes, bits) float32 of 1 and -1. The same arguments always give the same codewords.

    In an outline of a network, see `SemanticHashNet.outline`, they have a shape and no content.
    """
    if torch.get_default_device().type == "meta":
        return torch.empty(classes, bits)
    power_of_two = bits & (bits - 1) == 0
    if power_of_two and classes < bits:
        words: NDArray[Any] = _hadamard(bits)[1 : classes + 1]  # without the first row, whose bits are all equal
    elif power_of_two and classes <= 2 * bits:
        words = np.vstack([_hadamard(bits), -_hadamard(bits)])[:classes]
    else:
        words = _draw(classes, bits)
    return torch.from_numpy(words.astype(np.float32))


def further_codewords(words: torch.Tensor, classes: int) -> torch.Tensor:
    """Add codewords to those of a network, (n, bits), which stay the first ones: (classes, bits) float32."""
    before = words.cpu().numpy()
    bits = before.shape[1]
    chosen = codewords(classes, bits)
    if torch.equal(chosen[: len(words)], words.cpu().float()):
        return chosen
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        rows = np.vstack([_hadamard(bits), -_hadamard(bits)])
        unused = rows[(rows @ before.T < bits).all(axis=1)]
        return torch.from_numpy(np.vstack([before, unused[: classes - len(before)]]).astype(np.float32))
    return torch.from_numpy(_draw(classes, bits, before).astype(np.float32))


def _hadamard(size: int) -> NDArray[np.int64]:
    """Build Sylvester's Hadamard matrix (size, size); the size is a power of two.

    SciPy has this function too, but importing SciPy takes longer than loading a small network.
    """
    return reduce(np.kron, [np.array([[1, 1], [1, -1]])] * (size.bit_length() - 1), np.array([[1]]))


def _draw(classes: int, bits: int, before: NDArray[np.floating[Any]] | None = None) -> NDArray[np.float64]:
    """Draw codewords (classes, bits) of 1 and -1 one after the other, each far from the codewords before.

    The first ones can be given: (n, bits).
    """
    first = 0 if before is None else len(before)
    rng = np.random.default_rng(0)
    half = np.where(np.arange(bits) < bits // 2, 1.0, -1.0)
    words = np.empty((classes, bits))
    words[:first] = before if before is not None else 0
    for row in range(first, classes):
        candidates = rng.permuted(np.tile(half, (_CANDIDATES, 1)), axis=1)
        largest_product = (candidates @ words[:row].T).max(axis=1, initial=-bits)  # with the nearest earlier codeword
        words[row] = candidates[largest_product.argmin()]
    return words
