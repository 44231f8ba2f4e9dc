"""DPN: every output is pushed away from 0, to the side of its class's codeword.

Source: Fan et al., "Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes" (IJCAI 2020). With
v the outputs and t in {1, -1} the codeword of the label, the polarisation loss is

    L = mean over bits of max(1 - v t, 0)

which bounds how far codes of one class lie apart, and how near those of two.
"""

from __future__ import annotations

import torch

from semcut.connector.models.heads.codewords import codewords
from semcut.connector.models.heads.head import Head

_MARGIN = 1.0


class DpnHead(Head):
    """Bits are the signs of the outputs."""

    targets: torch.Tensor

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.register_buffer("targets", codewords(classes, bits))

    def fits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean product with the codewords."""
        return outputs @ self.targets.T / self.bits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """L above; with smoothing, of an output that is on the right side by so much less."""
        targets = self.targets[labels]
        return torch.clamp(_MARGIN * (1 - label_smoothing) - outputs * targets, min=0).mean()
