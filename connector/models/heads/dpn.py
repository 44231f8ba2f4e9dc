"""DPN: the loss pushes every output away from 0, towards the sign of its bit in the codeword of the class.

Source: Fan et al., "Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes" (IJCAI 2020). With
v the outputs and t in {1, -1} the codeword of the label, the polarisation loss is

    L = mean over bits of max(1 - v t, 0)

A small loss bounds the distance between codes of one class from above and that between codes of two classes from below.
"""

from __future__ import annotations

import torch

from semcut.connector.models.heads.codewords import codewords
from semcut.connector.models.heads.head import Head

_MARGIN = 1.0


class DpnHead(Head):
    """Head "dpn": bits are the signs of the outputs."""

    targets: torch.Tensor

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.register_buffer("targets", codewords(classes, bits))

    def class_scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score each class by the mean product of the outputs and the codeword of the class: (n, C)."""
        return outputs @ self.targets.T / self.bits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Compute L (see the top of this module); label smoothing s reduces the margin from 1 to 1 - s."""
        targets = self.targets[labels]
        return torch.clamp(_MARGIN * (1 - label_smoothing) - outputs * targets, min=0).mean()
