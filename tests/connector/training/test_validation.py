"""Figures that are measured on validation images after an epoch; see also `test_loop`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcut.connector.models import HeadName
from semcut.connector.models.heads import HEADS
from semcut.connector.models.network import Architecture, Output, SemanticHashNet
from semcut.connector.training.validation import measure, quality
from semcut.indexes.errors import DataError


@pytest.mark.parametrize("head", list(HEADS))
def test_outputs_in_half_precision_are_measured_like_others(head: HeadName, architecture: Architecture) -> None:
    """On a GPU, the outputs of a network are in half precision."""
    torch.manual_seed(0)
    net = SemanticHashNet(architecture.model_copy(update={"head": head})).eval()
    labels = torch.arange(40) % 10
    with torch.no_grad():
        outputs = net(torch.randint(0, 256, (40, 3, architecture.image_size, architecture.image_size)))
    half = Output(*(tensor.half() for tensor in outputs))
    found, expected = measure(net, [(half, labels)]), measure(net, [(Output(*(t.float() for t in half)), labels)])
    assert found == pytest.approx(expected)
    assert found["validation_hamming_map"] > 0


def test_only_the_first_images_are_ranked(architecture: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semcut.connector.training.validation._MAX_QUERIES", 30)
    net = SemanticHashNet(architecture)
    rng = torch.Generator().manual_seed(0)

    def batch(count: int) -> tuple[Output, torch.Tensor]:
        shapes = (10, architecture.bits, net.dim)
        return Output(*(torch.randn(count, size, generator=rng) for size in shapes)), torch.arange(count) % 10

    first, second = batch(20), batch(20)
    ranked = [first, (Output(*(t[:10] for t in second[0])), second[1][:10])]
    found, few = measure(net, [first, second, batch(20)]), measure(net, ranked)
    for name in ("validation_hamming_map", "validation_relevance_map"):
        assert found[name] == few[name]
    assert found["validation_loss"] != few["validation_loss"]


def test_no_image_at_all_is_one_error(architecture: Architecture) -> None:
    with pytest.raises(DataError, match="none of the validation images can be read"):
        measure(SemanticHashNet(architecture), [])


def test_epochs_are_compared_by_map_and_then_by_loss() -> None:
    one = {"validation_hamming_map": 0.5, "validation_relevance_map": 0.7, "validation_loss": 1.0,
           "validation_accuracy": 0.9, "validation_hash_accuracy": 0.9}  # fmt: skip
    assert quality({**one, "validation_hamming_map": 0.51, "validation_accuracy": 0.1}) > quality(one)
    assert quality({**one, "validation_loss": 0.9}) > quality(one)
    short = {name: value for name, value in one.items() if "map" not in name}
    assert quality({**short, "validation_hash_accuracy": 0.95}) > quality(short)
    assert np.isfinite(quality(one)).all()
