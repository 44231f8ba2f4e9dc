"""Heads: what the hash branch of a network is trained for, and how its outputs become bits. One file each.

    head.py       what every head can do
    paper.py      "paper": cross-entropy through a classifier; the mean threshold of Eq. 3
    csq.py        "csq": central similarity quantisation
    orthohash.py  "orthohash": cosine cross-entropy to fixed codewords
    dpn.py        "dpn": polarisation towards fixed codewords
    codewords.py  the fixed codewords of the last three, one for each class

The softmax branch is the same with every head, and so is what it is trained for: cross-entropy. Relevance and pruning
live on it. A head's name is part of the architecture, so checkpoints, and indexes made with them, know it.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from semcut.connector.models.heads.csq import CsqHead
from semcut.connector.models.heads.dpn import DpnHead
from semcut.connector.models.heads.head import Head
from semcut.connector.models.heads.orthohash import OrthoHashHead
from semcut.connector.models.heads.paper import PaperHead
from semcut.connector.models.names import HeadName

HEADS: dict[HeadName, type[Head]] = {"paper": PaperHead, "csq": CsqHead, "orthohash": OrthoHashHead, "dpn": DpnHead}


def make_head(name: HeadName, bits: int, classes: int) -> Head:
    """The head of that name for codes of so many bits and so many classes."""
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
    """Cross-entropy of the softmax branch, and the loss of the hash branch.

    Args:
        head: of the network.
        logits: (n, C) of the softmax branch.
        outputs: (n, bits) of the head.
        labels: (n,) int64.
        hash_weight: weight of the hash branch.
        label_smoothing: of the targets of both.
    """
    semantic = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return semantic + hash_weight * head.loss(outputs, labels, label_smoothing)
