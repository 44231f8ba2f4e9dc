"""From the outputs of a head to packed codes: Eq. 3, or signs.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.connector.models.heads.head import Binarisation


def binarise(outputs: torch.Tensor, binarisation: Binarisation) -> torch.Tensor:
    """The bits that a head's outputs stand for.

    Args:
        outputs: (n, bits) x.
        binarisation: "mean" is Eq. 3: H_i = 1 if sigmoid(x_i) - mean_j sigmoid(x_j) > 0, the mean taken over the bits
            of the same image; "sign": H_i = 1 if x_i > 0.

    Returns:
        (n, bits) bool.
    """
    if binarisation == "sign":
        return outputs > 0
    activations = torch.sigmoid(outputs.double())
    return activations - activations.mean(dim=1, keepdim=True) > 0


def pack(bits: torch.Tensor) -> NDArray[np.uint8]:
    """(n, bits) bool to (n, bits / 8) uint8, the first bit highest (`numpy.packbits`)."""
    return np.packbits(bits.cpu().numpy(), axis=1)
