"""Measure a network on validation images after an epoch, to choose the epoch that is kept.

Each validation image is a query among the other validation images, once ranked by codes and once by relevance. The
epoch with the highest mean of the two mAPs is kept; at a tie the epoch with the smaller loss. One branch alone would
mislead: the softmax branch reaches its best before the hash branch does, and overfits while codes still improve.
Accuracy says less than mAP: it counts a class that is right by chance as fully right. The measurement comes before the
calibration, which changes the confidence of the network after the epoch is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from semcut.connector.evaluation.code_quality import leave_one_out_map
from semcut.connector.models.hashing import binarise, pack
from semcut.connector.models.network import Output, SemanticHashNet
from semcut.indexes.errors import DataError

_MAX_QUERIES = 2000
"""The largest number of images that are ranked; with this many, the mAP is known to about a hundredth."""

_MAP = ("validation_hamming_map", "validation_relevance_map")
_ACCURACY = ("validation_accuracy", "validation_hash_accuracy")


def measure(net: SemanticHashNet, outputs: Iterable[tuple[Output, torch.Tensor]]) -> dict[str, float]:
    """Compute accuracy of both branches, loss of the softmax branch, and mAP by codes and by relevance.

    Args:
        net: the network that gave the outputs.
        outputs: outputs for batches of images in random order, with labels (n,) int64. The first 2000 images are
            ranked.

    Returns:
        The figures by name, without mAP if every image is the only one of its class.

    Raises:
        DataError: there is no image.
    """
    correct = hash_correct = seen = 0
    loss = 0.0
    ranked: list[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]] = []
    for output, labels in outputs:
        loss += functional.cross_entropy(output.logits.float(), labels, reduction="sum").item()
        correct += int((output.logits.argmax(dim=1) == labels).sum())
        hashed = output.hash.float()
        hash_correct += int((net.head.class_scores(hashed).argmax(dim=1) == labels).sum())
        if seen < _MAX_QUERIES:
            codes = pack(binarise(hashed, net.head.binarisation))
            ranked.append((codes, net.probabilities(output.logits).cpu().numpy(), labels.cpu().numpy()))
        seen += len(labels)
    if not seen:
        raise DataError("none of the validation images can be read")
    codes, probabilities, truth = (np.concatenate(column)[:_MAX_QUERIES] for column in zip(*ranked, strict=True))
    maps = leave_one_out_map(codes, probabilities, truth)
    return {
        **dict(zip(_ACCURACY, (correct / seen, hash_correct / seen), strict=True)),
        "validation_loss": loss / seen,
        **({} if maps is None else dict(zip(_MAP, maps, strict=True))),
    }


def quality(metrics: Mapping[str, float]) -> tuple[float, float]:
    """Compute the quality by which epochs are compared, larger is better: by mAP, or without mAP by accuracy."""
    names = _MAP if _MAP[0] in metrics else _ACCURACY
    return sum(metrics[name] for name in names), -metrics["validation_loss"]
