"""How good an epoch is: what the network answers for images that it has not learned.

Each is searched for among the others, by codes and by relevance, and the mean of the two mAP counts; at a tie the
smaller loss. Either branch alone would do harm to the other: the softmax branch is done before the codes are, and
overfits while they get better. Accuracy would say less: a class that is named rightly by chance counts fully. It is
measured before calibration, which changes how sure the network is after an epoch is chosen.
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

_SEARCHED = 2000
"""Images that are searched for, if there are more: the mAP of so many is known to a hundredth."""

_MAP = ("validation_hamming_map", "validation_relevance_map")
_ACCURACY = ("validation_accuracy", "validation_hash_accuracy")


def measure(net: SemanticHashNet, answers: Iterable[tuple[Output, torch.Tensor]]) -> dict[str, float]:
    """Accuracy of both branches, loss of the softmax branch, and mAP by codes and by relevance.

    Args:
        net: that gives the answers.
        answers: for batches of images in random order, with (n,) int64 labels. The first 2000 are searched for.

    Returns:
        The figures, without mAP if every image is the only one of its class.

    Raises:
        DataError: there is no image.
    """
    right = hash_right = seen = 0
    loss = 0.0
    searched: list[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.int64]]] = []
    for output, labels in answers:
        loss += functional.cross_entropy(output.logits.float(), labels, reduction="sum").item()
        right += int((output.logits.argmax(dim=1) == labels).sum())
        hashed = output.hash.float()
        hash_right += int((net.head.fits(hashed).argmax(dim=1) == labels).sum())
        if seen < _SEARCHED:
            codes = pack(binarise(hashed, net.head.binarisation))
            searched.append((codes, net.probabilities(output.logits).cpu().numpy(), labels.cpu().numpy()))
        seen += len(labels)
    if not seen:
        raise DataError("none of the validation images can be read")
    codes, probabilities, truth = (np.concatenate(column)[:_SEARCHED] for column in zip(*searched, strict=True))
    found = leave_one_out_map(codes, probabilities, truth)
    return {
        **dict(zip(_ACCURACY, (right / seen, hash_right / seen), strict=True)),
        "validation_loss": loss / seen,
        **({} if found is None else dict(zip(_MAP, found, strict=True))),
    }


def quality(metrics: Mapping[str, float]) -> tuple[float, float]:
    """By which epochs are compared; larger is better. By accuracy where there is no mAP."""
    names = _MAP if _MAP[0] in metrics else _ACCURACY
    return sum(metrics[name] for name in names), -metrics["validation_loss"]
