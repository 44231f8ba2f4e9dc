"""Measure a network on validation images after an epoch, to choose the epoch that is kept.

Each validation image is a query; the other validation images are ranked for it, once by codes and once by relevance.
The epoch with the highest mean of the two mAPs is kept; if two epochs tie, the epoch with the smaller loss. Measuring
one branch alone would be misleading: the softmax branch is at its best before the hash branch, and overfits while the
codes still improve. Accuracy is less informative than mAP: a class that is right by chance counts as fully right. The
calibration has no influence, because it follows after the epoch is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from semcut.connector.evaluation.hash_code_quality import leave_one_out_map
from semcut.connector.models.hashing import binarise, pack
from semcut.connector.models.network import Output, SemanticHashNet
from semcut.indexes.errors import DataError

_MAX_QUERIES = 2000
"""The largest number of images that are ranked; 2000 images determine the mAP to about 0.01."""

_MAP = ("validation_hamming_map", "validation_relevance_map")
_ACCURACY = ("validation_accuracy", "validation_hash_accuracy")


def measure(net: SemanticHashNet, outputs: Iterable[tuple[Output, torch.Tensor]]) -> dict[str, float]:
    """Compute the accuracy of both branches, the loss of the softmax branch, and the mAP by codes and by relevance.

    Args:
        net: the network that gave the outputs.
        outputs: outputs for batches of images in random order, with labels (n,) int64. The first 2000 images are
            ranked.

    Returns:
        The figures by name; without the mAPs if every image is the only one of its class.

    Raises:
        DataError: none of the images can be read.
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
    """Compute a key that is largest for the best epoch: sum of mAPs (of accuracies if there is no mAP), then -loss."""
    names = _MAP if _MAP[0] in metrics else _ACCURACY
    return sum(metrics[name] for name in names), -metrics["validation_loss"]
