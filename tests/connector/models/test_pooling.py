"""Generalised means, and networks that pool by them: the features change, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from semcut.connector.adoption.adopt import AdoptionChoices, adopt
from semcut.connector.adoption.named_network import NamedNetwork, pool_by
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.bulk_network import bulk_form
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.models.network_sources import Classifier, build_classifier
from semcut.connector.models.pooling import GeneralisedMean, PairedPooling
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import CheckpointError, InvalidParameterError
from tests.command import semcut

MAPS = torch.rand((3, 4, 5, 6), generator=torch.Generator().manual_seed(0)) * 4


def slow_means(maps: torch.Tensor, exponent: float) -> np.ndarray:
    means = np.zeros(maps.shape[:2])
    for image, channels in enumerate(maps.double().numpy()):
        for channel, values in enumerate(channels):
            means[image, channel] = (np.mean(np.maximum(values, 1e-6) ** exponent)) ** (1 / exponent)
    return means


@pytest.mark.parametrize("exponent", [1.0, 2.5, 10.0, 40.0])
def test_means_are_those_of_a_slow_formula(exponent: float) -> None:
    maps = MAPS.clone()
    maps[0, 0] = 0
    with torch.inference_mode():
        assert np.allclose(GeneralisedMean(exponent)(maps)[..., 0, 0], slow_means(maps, exponent), rtol=1e-4)
        both = PairedPooling(exponent)(maps)[..., 0, 0]
    assert np.allclose(both[1::2], slow_means(maps, exponent), rtol=1e-4)
    assert np.allclose(both[::2], maps.mean((2, 3)), rtol=1e-5)


def test_the_first_exponent_is_the_average_and_large_ones_near_the_maximum() -> None:
    with torch.inference_mode():
        assert torch.allclose(GeneralisedMean(1)(MAPS), MAPS.mean((2, 3), keepdim=True), rtol=1e-5)
        assert torch.allclose(GeneralisedMean(100)(MAPS), MAPS.amax((2, 3), keepdim=True), rtol=0.05)
    dead = torch.zeros((1, 1, 7, 7), requires_grad=True)
    layer = GeneralisedMean(90)
    layer(dead).sum().backward()
    assert torch.isfinite(dead.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(layer.exponent.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "name"),
    [("torchvision", "resnet18"), ("torchvision", "mobilenet_v3_small"), ("efficientnet_lite", "efficientnet_lite0")],
)
def test_a_classifier_keeps_its_logits_and_pools_its_features(source: str, name: str) -> None:
    torch.manual_seed(0)
    whole = build_classifier(source, name, {"image_size": 64}, 1000).eval()  # type: ignore[arg-type]
    state = whole.state_dict()
    plain, pooled = Classifier(whole, name).eval(), None
    again = build_classifier(source, name, {"image_size": 64}, 1000).eval()  # type: ignore[arg-type]
    again.load_state_dict(state)
    pooled = Classifier(again, name, 3.0).eval()
    assert pooled.state_dict().keys() == plain.state_dict().keys()
    maps: list[torch.Tensor] = []
    (layer,) = (one for one in pooled.modules() if isinstance(one, PairedPooling))
    layer.register_forward_hook(lambda _, given, __: maps.append(given[0]))
    for count in (0, 1, 3) if source == "torchvision" else (1, 3):
        images = torch.randn((count, 3, 64, 64), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            (expected, averages), (logits, features) = plain(images), pooled(images)
        assert torch.allclose(logits, expected, atol=1e-4)
        assert features.shape == averages.shape
        if count and name != "mobilenet_v3_small":  # which has a layer between pooling and feature
            assert np.allclose(features, slow_means(maps[-1], 3.0), rtol=1e-3, atol=1e-5)
        assert not count or not torch.allclose(features, averages, rtol=0.01)


@pytest.mark.parametrize("name", ["alexnet", "shufflenet_v2_x0_5", "densenet121"])
def test_networks_without_a_layer_of_average_pooling_are_named(name: str) -> None:
    with torch.device("meta"), pytest.raises(InvalidParameterError, match=f"{name} has no global average pooling"):
        Classifier(build_classifier("torchvision", name, {}, 10), name, 3.0)


class Gated(nn.Module):
    """A classifier whose only average pooling makes a gate, so that features cannot be pooled by it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        return self.last((maps * self.gate(maps)).amax((2, 3)))  # type: ignore[no-any-return]


def test_a_network_that_uses_the_average_otherwise_is_refused() -> None:
    forged = Classifier(Gated(), "gated", 3.0).eval()
    with pytest.raises(CheckpointError, match="the network cannot compute pooled features"):
        forged(torch.rand((3, 3, 8, 8)))
    network = Classifier(Gated(), "gated").eval()
    found = NamedNetwork("torchvision", "gated", {}, network, image_size=8)
    with pytest.raises(InvalidParameterError, match="gated does more with its last average pooling than classify"):
        pool_by(found, 3.0)


def test_adopted_networks_pool_whiten_and_see_several_sizes(digits: ImageSet, tmp_path: Path) -> None:
    """What is stored encodes as it was adopted, also in the form for many images."""
    files = digits.files[:200]
    choices = {
        "plain": {},
        "pooled": {"pooling": 3.0},
        "white": {"whitening": 0.5},
        "all": {"pooling": 2.0, "whitening": 1.0, "scales": (1.0, 0.7, 0.5)},
    }
    found = {}
    for name, chosen in choices.items():
        adopt("efficientnet_lite0", tmp_path / name, files,
              choices=AdoptionChoices(image_size=48, dim=32, bits=32, **chosen))  # fmt: skip
        checkpoint = Checkpoint.load(tmp_path / name)
        encoder = Encoder(checkpoint)
        (batch,) = list(encoder.encode_files(files[:8]))
        found[name] = batch.encodings
        pixels = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
        with torch.inference_mode():
            one, many = checkpoint.net(pixels), bulk_form(checkpoint.net)(pixels)
        assert torch.allclose(one.features, many.features, atol=1e-4)
        assert torch.allclose(one.features.norm(dim=1), torch.ones(2), atol=1e-5)
    for name in ("pooled", "white"):
        assert np.allclose(found[name].probabilities, found["plain"].probabilities, atol=1e-5)
    for name in ("pooled", "white", "all"):
        assert not np.allclose(found[name].features, found["plain"].features, atol=0.01)


def test_images_are_indexed_and_found_with_a_pooled_network(digits: ImageSet, tmp_path: Path) -> None:
    for number, file in enumerate(digits.files[:12]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / "photos" / f"{number}.png")
    options = ("--pooling", "3", "--scales", "1,0.5", "--image-size", "64", "--images", "photos")
    semcut("adopt", "efficientnet_lite0", *options, "--out", "net", cwd=tmp_path)
    semcut("index", "photos", "--model", "net", "--out", "index", cwd=tmp_path)
    found = json.loads(semcut("search", "index", "photos/3.png", "-k", "1", "--json", cwd=tmp_path).stdout)
    assert "3.png" in json.dumps(found)


def test_several_sizes_are_joined_as_said(tmp_path: Path, digits: ImageSet) -> None:
    from torch.nn import functional

    adopt("efficientnet_lite0", tmp_path / "net", digits.files[:240],
          choices=AdoptionChoices(image_size=48, dim=0, bits=32, scales=(1.0, 0.5)))  # fmt: skip
    net = Checkpoint.load(tmp_path / "net").net
    pixels = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        given = (pixels - net.mean) / net.std
        half = functional.interpolate(given, (24, 24), mode="bilinear", antialias=True)
        (logits, whole), (other_logits, part) = net.source(given), net.source(half)  # type: ignore[union-attr,operator]
        found = net(pixels)
    joined = sum(functional.normalize(one, dim=1) for one in (whole, part))
    assert torch.allclose(found.features, functional.normalize(joined, dim=1), atol=1e-5)
    assert torch.allclose(found.logits, (logits + other_logits) / 2, atol=1e-4)


def test_the_exponent_is_trained_with_the_backbone_and_kept_with_a_frozen_one(digits: ImageSet, tmp_path: Path) -> None:
    images = digits.sample(120)
    architecture = Architecture(backbone="efficientnet_lite0", classes=images.classes, image_size=32, bits=32, dim=16,
                                pooling=3.0)  # fmt: skip
    for freeze in (False, True):
        config = TrainConfig(epochs=1, freeze=freeze, learning_rate=1e-2, backbone_rate=1.0)
        checkpoint = train(images, architecture, config, tmp_path / f"net-{freeze}", weights="imagenet")
        assert checkpoint.net.architecture == architecture
        (layer,) = (one for one in checkpoint.net.modules() if isinstance(one, GeneralisedMean))
        assert (float(layer.exponent.detach()) == 3.0) == freeze
    with pytest.raises(InvalidParameterError, match="small has no global average pooling"):
        SemanticHashNet(Architecture(classes=("a", "b"), pooling=3.0))
    assert not any(isinstance(one, nn.AdaptiveAvgPool2d) for one in checkpoint.net.backbone.network.children())


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--pooling", "0.5"), 2, "--pooling"),
        (("--scales", "1,2"), 2, "shares from 0.25 to 1"),
        (("--scales", ""), 2, "shares from 0.25 to 1"),
        (("--scales", "1,x"), 2, "shares from 0.25 to 1"),
        (("--whitening", "2"), 2, "--whitening"),
        (("--whitening", "0.5", "--dim", "0"), 1, "needs features that PCA reduces"),
    ],
)
def test_misuse_is_one_line(options: tuple[str, ...], status: int, message: str, tmp_path: Path) -> None:
    done = semcut("adopt", "efficientnet_lite0", "--out", "net", *options, cwd=tmp_path, status=status)
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "net").exists()
