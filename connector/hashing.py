"""Eq. 3: from hash-layer outputs to packed codes.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def binarise(outputs: torch.Tensor) -> torch.Tensor:
    """Eq. 3: H_i = 1 if sigmoid(x_i) - mean_j sigmoid(x_j) > 0, the mean taken over the bits of the same image.

    Args:
        outputs: (n, bits) hash-layer outputs x.

    Returns:
        (n, bits) bool.
    """
    activations = torch.sigmoid(outputs.double())
    return activations - activations.mean(dim=1, keepdim=True) > 0


def pack(bits: torch.Tensor) -> NDArray[np.uint8]:
    """(n, bits) bool to (n, bits / 8) uint8, the first bit highest (`numpy.packbits`)."""
    return np.packbits(bits.cpu().numpy(), axis=1)
