"""The fitted temperature is the temperature that labels were drawn with, and no other is better."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from semcut.connector.training.calibration import fit_temperature


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_it_finds_the_temperature_that_labels_were_drawn_with(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 6, generator=generator, dtype=torch.float64) * 2 * true
    labels = torch.multinomial(torch.softmax(logits / true, dim=1), 1, generator=generator)[:, 0]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.05)
    best = functional.cross_entropy(logits / found, labels)
    for factor in (0.8, 0.97, 1.03, 1.25):
        assert functional.cross_entropy(logits / (found * factor), labels) > best


def test_the_temperature_stays_within_its_limits() -> None:
    logits, labels = torch.eye(3).repeat(10, 1), torch.arange(3).repeat(10)
    assert 0.05 <= fit_temperature(logits, labels) < 0.2  # always right: the highest confidence that the limits allow
    assert 15 < fit_temperature(-logits, labels) <= 20  # always wrong
