"""OrthoHash: one loss, cosine cross-entropy to fixed codewords, with a margin.

Source: Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective" (NeurIPS
2021). With v the outputs, which batch normalisation balances bit by bit, and o_m the codeword of class m,

    L = cross-entropy of 8 (cos(v, o_m) - 0.2 [m is the label])

Making v point in the direction of a vector of signs is what makes its own signs right, so no term for quantisation is
needed. Scale and margin are those of the code that the authors published.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from semcut.connector.models.heads.codewords import codewords
from semcut.connector.models.heads.head import Head

_SCALE, _MARGIN = 8.0, 0.2


class OrthoHashHead(Head):
    """Outputs are normalised over the batch; bits are their signs."""

    targets: torch.Tensor

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.balance = nn.BatchNorm1d(bits)
        self.register_buffer("targets", codewords(classes, bits))

    def forward(self, hashed: torch.Tensor) -> torch.Tensor:
        """(n, bits) of mean 0 and variance 1 over the training images."""
        outputs: torch.Tensor = self.balance(hashed)
        return outputs

    def fits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Cosines with the codewords."""
        return functional.normalize(outputs, dim=1) @ functional.normalize(self.targets, dim=1).T

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """L above."""
        margin = _MARGIN * functional.one_hot(labels, self.classes)
        return functional.cross_entropy(_SCALE * (self.fits(outputs) - margin), labels, label_smoothing=label_smoothing)
