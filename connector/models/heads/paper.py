"""The paper's own head: cross-entropy.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
The paper trains its hash layer "in an implicit manner" with the classifier and says no more. Our reading: a linear
classifier on the sigmoid activations of the hash layer, so that the activations that Eq. 3 thresholds must tell the
classes apart.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from semcut.connector.models.heads.head import Head


class PaperHead(Head):
    """Outputs are x of Eq. 3, which compares each of an image's sigmoid activations with their mean."""

    binarisation = "mean"

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.classifier = nn.Linear(bits, classes)

    def fits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logits of the classifier."""
        logits: torch.Tensor = self.classifier(torch.sigmoid(outputs))
        return logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Cross-entropy of the classifier."""
        return functional.cross_entropy(self.fits(outputs), labels, label_smoothing=label_smoothing)
