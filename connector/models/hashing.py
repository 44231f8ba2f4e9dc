"""Turn the outputs of a head into packed hash codes: by Eq. 3, or by their signs.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.connector.models.heads.head import Binarisation


def binarise(outputs: torch.Tensor, binarisation: Binarisation) -> torch.Tensor:
    """Threshold the outputs of a head to bits.

    Args:
        outputs: (n, bits) outputs x of the head.
        binarisation: "mean" is Eq. 3: H_i = 1 if sigmoid(x_i) - mean_j sigmoid(x_j) > 0, else 0, where the mean is over
            the bits of the same image; "sign": H_i = 1 if x_i > 0, else 0.

    Returns:
        (n, bits) bool.
    """
    if binarisation == "sign":
        return outputs > 0
    activations = torch.sigmoid(outputs.double())
    return activations - activations.mean(dim=1, keepdim=True) > 0


def pack(bits: torch.Tensor) -> NDArray[np.uint8]:
    """Pack bits (n, bits) bool into bytes (n, bits / 8) uint8; the first bit is the highest of its byte.

    Source: `numpy.packbits`.
    """
    return np.packbits(bits.cpu().numpy(), axis=1)
