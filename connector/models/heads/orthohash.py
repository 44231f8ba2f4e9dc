"""OrthoHash: one loss, the cross-entropy of cosines with fixed codewords, with a margin.

Source: Hoe et al., "One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective" (NeurIPS
2021). With v the outputs, balanced bit by bit by batch normalisation, and o_m the codeword of class m,

    L = cross-entropy of 8 (cos(v, o_m) - 0.2 [m is the label])

The loss turns v towards the codeword, a vector of signs, so no separate term for quantisation is needed. The scale 8
and the margin 0.2 are taken from the code that the authors published.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from semcut.connector.models.heads.codewords import codewords
from semcut.connector.models.heads.head import Head

_SCALE, _MARGIN = 8.0, 0.2


class OrthoHashHead(Head):
    """Head "orthohash": outputs are normalised over the batch; bits are their signs."""

    targets: torch.Tensor

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.balance = nn.BatchNorm1d(bits)
        self.register_buffer("targets", codewords(classes, bits))

    def forward(self, hashed: torch.Tensor) -> torch.Tensor:
        """Normalise each bit of (n, bits) to mean 0 and variance 1 over the training images."""
        outputs: torch.Tensor = self.balance(hashed)
        return outputs

    def class_scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score each class by the cosine of the outputs and the codeword of the class: (n, C)."""
        return functional.normalize(outputs, dim=1) @ functional.normalize(self.targets, dim=1).T

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Compute L (see the top of this module), with label smoothing."""
        margin = _MARGIN * functional.one_hot(labels, self.classes)
        return functional.cross_entropy(
            _SCALE * (self.class_scores(outputs) - margin), labels, label_smoothing=label_smoothing
        )
