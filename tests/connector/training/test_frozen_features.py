"""Outputs of a frozen backbone: equal to those of the network, computed once, cached if other networks can use them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semcut.connector.data.images import load_pixels, read_batches
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import METRICS
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.training.frozen_features import cached_features, compute_features
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.errors import InvalidParameterError
from tests.connector.training.stopping import Stop, stop_in


def test_a_frozen_backbone_stays_unchanged_and_the_rest_learns(digits: ImageSet, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs semcut[pretrained]")
    architecture = Architecture(backbone="efficientnet_lite0", classes=digits.classes, image_size=48, dim=32)
    config = TrainConfig(epochs=8, freeze=True, augment="flip", learning_rate=0.005, seed=3)
    images = digits.sample(300)
    straight = train(images, architecture, config, tmp_path / "straight", weights="imagenet")
    with pytest.raises(Stop):
        train(images, architecture, config, tmp_path / "stopped", weights="imagenet", progress=stop_in(4))
    resumed = train(images, architecture, config, tmp_path / "stopped", weights="imagenet", resume=True)
    assert resumed.digest == straight.digest
    before = SemanticHashNet(architecture, "imagenet").backbone.state_dict()
    after = straight.net.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    lines = [json.loads(line) for line in (tmp_path / "straight" / METRICS).read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert straight.training["kept"]["validation_accuracy"] > 0.6


def test_frozen_features_are_the_outputs_of_the_backbone(architecture: Architecture) -> None:
    net, pixels = SemanticHashNet(architecture).eval(), torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    labels = torch.arange(7)
    batches = [(pixels[:4], labels[:4]), (pixels[4:], labels[4:])]
    features = compute_features(net, batches, torch.device("cpu"), mirror=True)
    assert len(features) == 7
    seen = set()
    for seed in range(10):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        batches = list(features.batches(order, 3, torch.Generator().manual_seed(seed)))
        assert torch.cat([batch_labels for _, batch_labels in batches]).tolist() == order.tolist()
        for layers, batch_labels in batches:
            for layer, label in zip(layers[0], batch_labels.tolist(), strict=True):
                expected = [net.backbone_outputs(image)[0][0] for image in (pixels[[label]], pixels[[label]].flip(3))]
                same = [torch.allclose(layer, output, atol=1e-5) for output in expected]
                assert any(same)
                seen.add((label, same.index(True)))
    assert len(seen) == 14


def counting_reader():
    """Return a list, and a function that reads images in batches and appends their number to the list at every call."""
    counts: list[int] = []

    def read(images: ImageSet):
        counts.append(len(images))
        for batch in read_batches(images.files, 16, 7):
            yield torch.from_numpy(batch.pixels), torch.from_numpy(images.labels[batch.positions])

    return counts, read


def test_features_are_cached_for_other_splits_and_heads(
    digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    images, cpu = digits.sample(60), torch.device("cpu")
    net, counts, read = SemanticHashNet(architecture).eval(), *counting_reader()

    for seed in range(3):
        parts = images.split(0.3, seed)
        for part, features in zip(parts, cached_features(net, parts, read, cpu, mirror=True), strict=True):
            assert features.labels.tolist() == part.labels.tolist()
            pixels = torch.stack([torch.from_numpy(load_pixels(file, 16)) for file in part.files])
            for variant, seen in zip(features.variants, (pixels, pixels.flip(3)), strict=True):
                assert torch.allclose(variant[0], net.backbone_outputs(seen)[0], atol=1e-5)
    assert counts == [60]
    assert [file.name.startswith("frozen-") for file in (tmp_path / "cache").iterdir()] == [True]
    cached_features(net, parts, read, cpu, mirror=True, use_cache=False)
    cached_features(net, parts, read, cpu, mirror=False)
    with torch.no_grad():
        next(net.backbone.parameters()).mul_(1.01)
    cached_features(net, parts, read, cpu, mirror=True)
    assert counts == [60] * 4
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    cached_features(net, parts, read, cpu, mirror=True)
    monkeypatch.setenv("SEMCUT_CACHE", "/dev/null/nowhere")
    cached_features(net, parts, read, cpu, mirror=True)
    assert counts == [60] * 6


def test_features_are_not_cached_while_an_image_cannot_be_read(
    digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    readable = digits.sample(20)
    images = ImageSet((str(broken), *readable.files), np.concatenate([[3], readable.labels]), readable.classes)
    net, counts, read = SemanticHashNet(architecture).eval(), *counting_reader()

    for _ in range(2):
        (features,) = cached_features(net, [images], read, torch.device("cpu"), mirror=False)
        assert features.labels.tolist() == readable.labels.tolist()
    assert counts == [21, 21]


def test_a_random_backbone_is_not_frozen(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"it is random and would stay so: .*weights or start"):
        train(digits.sample(50), architecture, TrainConfig(epochs=1, freeze=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
