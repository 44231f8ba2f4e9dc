"""Heads of the hash branch, one module per head: a head defines a loss, and how its outputs become bits.

    head          `Head`, the interface of every head
    paper         "paper": cross-entropy of a classifier; bits by Eq. 3
    csq           "csq": central similarity quantisation
    orthohash     "orthohash": cosine cross-entropy with fixed codewords
    dpn           "dpn": polarisation towards fixed codewords
    codewords     the fixed codewords, one for each class, that the last three heads use

The softmax branch is the same with every head and is trained with cross-entropy; relevance and pruning use its
probabilities. Checkpoints record the name of the head, as part of the architecture, and so do indexes.

To add a head, write its module, add its name to `HeadName` in `models` and its class to `HEADS` below.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from semcut.connector.models import HeadName
from semcut.connector.models.heads.csq import CsqHead
from semcut.connector.models.heads.dpn import DpnHead
from semcut.connector.models.heads.head import Head
from semcut.connector.models.heads.orthohash import OrthoHashHead
from semcut.connector.models.heads.paper import PaperHead

HEADS: dict[HeadName, type[Head]] = {"paper": PaperHead, "csq": CsqHead, "orthohash": OrthoHashHead, "dpn": DpnHead}


def make_head(name: HeadName, bits: int, classes: int) -> Head:
    """Create a head by its name, for codes of `bits` bits and for `classes` classes."""
    return HEADS[name](bits, classes)


def total_loss(
    head: Head,
    logits: torch.Tensor,
    outputs: torch.Tensor,
    labels: torch.Tensor,
    *,
    hash_weight: float = 1.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Add the cross-entropy of the softmax branch and the weighted loss of the hash branch.

    Args:
        head: head of the network.
        logits: (n, C), of the softmax branch.
        outputs: (n, bits), of the head.
        labels: (n,) int64.
        hash_weight: weight of the loss of the hash branch.
        label_smoothing: label smoothing of the targets of both branches.
    """
    semantic = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return semantic + hash_weight * head.loss(outputs, labels, label_smoothing)
