"""The loss against its formula, computed one image at a time."""

from __future__ import annotations

import math

import pytest
import torch

from connector.losses import paper_loss
from connector.model import Output


def cross_entropy(logits: list[float], label: int, smoothing: float) -> float:
    total = math.log(math.fsum(math.exp(x) for x in logits))
    targets = [smoothing / len(logits) + (1 - smoothing) * (i == label) for i in range(len(logits))]
    return -math.fsum(t * (x - total) for t, x in zip(targets, logits, strict=True))


@pytest.mark.parametrize(("weight", "smoothing"), [(1.0, 0.0), (0.3, 0.1), (0.0, 0.0)])
def test_paper_loss(weight: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    auxiliary = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (7,), generator=generator)
    output = Output(logits, torch.zeros(7, 8), auxiliary, torch.zeros(7, 3))
    expected = (
        math.fsum(
            cross_entropy(logits[i].tolist(), int(labels[i]), smoothing)
            + weight * cross_entropy(auxiliary[i].tolist(), int(labels[i]), smoothing)
            for i in range(7)
        )
        / 7
    )
    assert paper_loss(output, labels, hash_weight=weight, label_smoothing=smoothing).item() == pytest.approx(expected)
