"""Codes that need no training, of the features that a network gives: what its own codes have to beat.

    LSH    signs of random rotations, each bit split at its median
    ITQ    principal components, rotated to be near the corners of a cube; centred

Both as FAISS has them. Sources: Charikar, "Similarity Estimation Techniques from Rounding Algorithms" (STOC 2002);
Gong and Lazebnik, "Iterative Quantization: A Procrustean Approach to Learning Binary Codes" (CVPR 2011).
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

BaselineName = Literal["LSH", "ITQ"]

_TRAINING = 20_000


def baseline_codes(
    records: NDArray[np.float32], queries: NDArray[np.float32], bits: int
) -> dict[BaselineName, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Packed codes of records and of queries by each of the methods.

    Args:
        records: (n, dim) features; 20,000 of them at most are learned from.
        queries: (nq, dim) features.
        bits: of a code; ITQ is left out where there are more than dimensions, or than records to learn from.
    """
    dim = records.shape[1]
    chosen = np.random.default_rng(0).permutation(len(records))[:_TRAINING]
    sample = np.ascontiguousarray(records[np.sort(chosen)])
    lsh = faiss.IndexLSH(dim, bits, True, True)
    lsh.train(sample)
    found: dict[BaselineName, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {
        "LSH": (lsh.sa_encode(records), lsh.sa_encode(queries))
    }
    if bits <= min(dim, len(sample)):
        itq = faiss.ITQTransform(dim, bits, True)
        itq.train(sample)
        found["ITQ"] = tuple(np.packbits(itq.apply(x) > 0, axis=1) for x in (records, queries))  # type: ignore[assignment]
    return found
