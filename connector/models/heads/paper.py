"""The head of the paper: cross-entropy of a classifier on the hash layer.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
The paper trains its hash layer "in an implicit manner" with the classifier and gives no details. semcut
interprets this as a linear classifier on the sigmoid activations of the hash layer, so the activations that Eq. 3
thresholds must separate the classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from semcut.connector.models.heads.head import Head


class PaperHead(Head):
    """Head "paper": the outputs are x of Eq. 3, which compares each sigmoid activation of an image with their mean."""

    binarisation = "mean"

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__(bits, classes)
        self.classifier = nn.Linear(bits, classes)

    def class_scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score each class by the logit of the classifier: (n, C)."""
        logits: torch.Tensor = self.classifier(torch.sigmoid(outputs))
        return logits

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Compute the cross-entropy of the classifier."""
        return functional.cross_entropy(self.class_scores(outputs), labels, label_smoothing=label_smoothing)
