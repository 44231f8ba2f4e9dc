"""Compute hash codes that need no training from the features of a network, for comparison with its own codes.

    LSH    randomly rotated features, each dimension thresholded at its median
    ITQ    signs of principal components, centred and rotated to be near the corners of a cube

FAISS implements both. Sources: Charikar, "Similarity Estimation Techniques from Rounding Algorithms" (STOC 2002); Gong
and Lazebnik, "Iterative Quantization: A Procrustean Approach to Learning Binary Codes" (CVPR 2011).
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

BaselineName = Literal["LSH", "ITQ"]

_TRAINING_RECORDS = 20_000


def baseline_codes(
    records: NDArray[np.float32], queries: NDArray[np.float32], bits: int
) -> dict[BaselineName, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Compute the packed codes of records and of queries by each method.

    Args:
        records: (n, dim) features; the methods are fitted to at most 20,000 of them.
        queries: (nq, dim) features.
        bits: length of a code. ITQ is left out if `bits` is larger than `dim` or than the number of records to fit to.
    """
    dim = records.shape[1]
    chosen = np.random.default_rng(0).permutation(len(records))[:_TRAINING_RECORDS]
    sample = np.ascontiguousarray(records[np.sort(chosen)])
    lsh = faiss.IndexLSH(dim, bits, True, True)
    lsh.train(sample)
    codes: dict[BaselineName, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {
        "LSH": (lsh.sa_encode(records), lsh.sa_encode(queries))
    }
    if bits <= min(dim, len(sample)):
        itq = faiss.ITQTransform(dim, bits, True)
        itq.train(sample)
        codes["ITQ"] = (
            np.packbits(itq.apply(records) > 0, axis=1),
            np.packbits(itq.apply(queries) > 0, axis=1),
        )
    return codes
