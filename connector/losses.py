"""What the network is trained for.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

import torch
from torch.nn import functional

from connector.model import Output


def paper_loss(
    output: Output, labels: torch.Tensor, *, hash_weight: float = 1.0, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Cross-entropy on the softmax branch and, through the auxiliary classifier, on the hash branch.

    The paper trains its hash layer "in an implicit manner" with the classifier and says no more. Our reading: a linear
    classifier on the sigmoid activations of the hash layer, so that the activations that Eq. 3 thresholds must tell the
    classes apart.

    Args:
        output: of the network, n images.
        labels: (n,) int64.
        hash_weight: weight of the hash branch.
        label_smoothing: of both targets.
    """
    semantic = functional.cross_entropy(output.logits, labels, label_smoothing=label_smoothing)
    hashed = functional.cross_entropy(output.auxiliary, labels, label_smoothing=label_smoothing)
    return semantic + hash_weight * hashed
