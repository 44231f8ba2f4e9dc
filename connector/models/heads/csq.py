"""Central similarity quantisation: the loss pulls every bit towards the bit of its class's centre.

Source: Yuan et al., "Central Similarity Quantization for Efficient Image and Video Retrieval" (CVPR 2020): with h in
[0, 1] the continuous code and c in {0, 1} the centre,

    L_C = mean over bits of binary cross-entropy(h, c)
    L_Q = mean over bits of log cosh(|2 h - 1| - 1)                  L = L_C + 0.0001 L_Q
"""

from __future__ import annotations

import torch
from torch.nn import functional

from semcut.connector.models.heads.codewords import codewords
from semcut.connector.models.heads.head import Head

_QUANTISATION = 1e-4


class CsqHead(Head):
    """Head "csq": the continuous code h is sigmoid(2 x) = (tanh(x) + 1) / 2 of outputs x; bits are the signs of x."""

    centres: torch.Tensor

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.register_buffer("centres", codewords(classes, bits))

    def class_scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score each class by the agreement of tanh(x) with the centre of the class, from -1 to 1: (n, C)."""
        return torch.tanh(outputs) @ self.centres.T / self.bits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Compute L (see the top of this module); label smoothing s turns the targets 1 and 0 into 1 - s/2 and s/2."""
        targets = ((1 - label_smoothing) * self.centres[labels] + 1) / 2
        central = functional.binary_cross_entropy_with_logits(2 * outputs, targets)
        quantisation = torch.log(torch.cosh(torch.tanh(outputs).abs() - 1)).mean()
        return central + _QUANTISATION * quantisation
