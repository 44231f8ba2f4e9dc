"""Warm start: the weights are the same, the image size may differ, and no validation image was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semcut.connector.data.sources import ImageSet
from semcut.connector.models.network import Architecture
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.errors import CheckpointError
from tests.connector.training.stopping import Stop, stop_in


def test_a_warm_start_uses_the_weights_of_a_trained_network(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images = digits.sample(200)
    first = train(images, architecture, TrainConfig(epochs=3, calibrate=True), tmp_path / "first")
    config = TrainConfig(epochs=1, learning_rate=1e-9, augment="none")
    second = train(images, architecture, config, tmp_path / "second", start=tmp_path / "first")
    assert second.training["start"]["sha256"] == first.digest
    assert second.training["start"]["config"]["calibrate"]
    assert float(second.net.temperature) == 1
    for (name, one), other in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    longer = TrainConfig(epochs=2, learning_rate=1e-9, augment="none")
    with pytest.raises(Stop):
        train(images, architecture, longer, tmp_path / "stopped", start=tmp_path / "first", progress=stop_in(1))
    with pytest.raises(CheckpointError, match=r"has other settings \('start'\)"):
        train(images, architecture, longer, tmp_path / "stopped", resume=True)


def test_a_warm_start_may_have_another_image_size(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images, config = digits.sample(200), TrainConfig(epochs=2, learning_rate=1e-9, augment="none")
    small = architecture.model_copy(update={"image_size": architecture.image_size // 2})
    first = train(images, small, TrainConfig(epochs=3), tmp_path / "first")
    second = train(images, architecture, config, tmp_path / "second", start=tmp_path / "first")
    third = train(images, architecture, config, tmp_path / "third", start=tmp_path / "second")
    assert second.net.architecture == architecture
    assert second.training["start"]["architecture"] == small.model_dump(mode="json")
    for (name, one), other in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    assert [line["epoch"] for line in third.epochs()] == [1, 2, 3, 1, 2, 1, 2]
    assert third.epochs()[:3] == first.epochs()


def test_a_start_that_may_have_been_trained_on_validation_images_is_refused(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(100), TrainConfig(epochs=1)
    train(images, architecture, config, tmp_path / "first")
    for case, (others, wanted, settings, reason) in enumerate(
        [
            (
                images,
                architecture.model_copy(update={"head": "csq"}),
                {},
                "another architecture .head 'paper', expected",
            ),
            (digits.sample(120), architecture, {}, "was trained on other images"),
            (images, architecture, {"seed": 1}, r"held out others for validation \(seed 0, validation 0.1\)"),
            (images, architecture, {"validation": 0.2}, "held out others for validation"),
        ]
    ):
        with pytest.raises(CheckpointError, match=reason):
            train(
                others, wanted, TrainConfig(epochs=1, **settings), tmp_path / f"case {case}", start=tmp_path / "first"
            )
        assert not (tmp_path / f"case {case}").exists()
