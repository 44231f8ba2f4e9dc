"""The form of a network for many images computes what the network computes, and leaves the network as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from semcut.connector.data.sources import ImageSet
from semcut.connector.models import bulk_network
from semcut.connector.models.bulk_network import bulk_form
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.retrieval.encoder import Encoder


def network(backbone: str, size: int = 32) -> SemanticHashNet:
    """Build a network whose norms have other numbers than those of a new network."""
    torch.manual_seed(4)
    net = SemanticHashNet(Architecture(backbone=backbone, classes=("a", "b", "c"), image_size=size, bits=64)).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias, std=0.3)
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return net


def images(size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def norms(net: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())


@pytest.mark.parametrize(
    "backbone", ["small", "mobilenet_v3_small", "efficientnet_lite0", "shufflenet_v2_x0_5", "regnet_y_400mf"]
)
def test_outputs_are_the_same(backbone: str) -> None:
    net, pixels = network(backbone, 64), images(64)
    weights = {name: values.clone() for name, values in net.state_dict().items()}
    with torch.inference_mode():
        before = net(pixels)
        bulk = bulk_form(net)
        for one, other in zip(before, bulk(pixels), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
        for one, other in zip(before, net(pixels), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert norms(bulk) < norms(net)
    assert all(torch.equal(values, weights[name]) for name, values in net.state_dict().items())


class Other(nn.Module):
    """A backbone that adds the output of a convolution, and that of the norm, to that of the activation after both."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = self.conv(pixels)
        return ((there + self.norm(there) + self.relu(self.norm(there))).mean(dim=(2, 3)),)


class Captured(nn.Sequential):
    """One that is a sequence of layers, but keeps the output of the first."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = self[0](pixels)
        return ((there + self[2](self[1](there))).mean(dim=(2, 3)),)


def weight_normed() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.utils.parametrizations.weight_norm(layers[0])
    return layers


@pytest.mark.parametrize("backbone", [Other, Captured, weight_normed])
def test_layers_whose_order_is_not_known_stay_as_they_are(backbone: Callable[[], nn.Module]) -> None:
    net = network("small")
    net.backbone = backbone().eval()
    assert bulk_form(net) is net


def test_a_network_that_is_trained_stays_as_it_is() -> None:
    net = network("small")
    net.train()
    assert bulk_form(net) is net
    net.eval().backbone.network[1].train()
    assert bulk_form(net) is net


@pytest.mark.parametrize("source", ["timm", "transformers", "onnx", "python"])
def test_networks_that_others_define_stay_as_they_are(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("small")
    assert bulk_form(net) is not net
    monkeypatch.setattr(bulk_network, "AdoptedArchitecture", Architecture)
    net.architecture = net.architecture.model_copy()
    object.__setattr__(net.architecture, "source", source)
    assert bulk_form(net) is net


def test_a_deep_network_is_not_run_and_its_weights_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took memory for the outputs of all layers, 10 GB for a network of 13 MB."""
    net = network("efficientnet_lite0", 64)
    monkeypatch.setattr(SemanticHashNet, "forward", None)
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", None)
    bulk = bulk_form(net)
    assert norms(bulk) == 0
    assert bulk.semantic.weight.data_ptr() == net.semantic.weight.data_ptr()


def test_files_are_encoded_by_the_weights_of_the_moment(model: Checkpoint, digits_test: ImageSet) -> None:
    changed = copy.deepcopy(model)
    encoder, files = Encoder(changed), digits_test.files[:8]
    (before,) = encoder.encode_files(files)
    with torch.no_grad():
        next(changed.net.backbone.parameters()).mul_(0.5)
    (after,) = encoder.encode_files(files)
    queries = encoder.encode(files)
    assert not np.allclose(before.encodings.features, after.encodings.features, atol=1e-3)
    np.testing.assert_allclose(after.encodings.features, queries.features, atol=1e-5)


def test_files_and_queries_are_encoded_alike(model: Checkpoint, digits_test: ImageSet) -> None:
    encoder, files = Encoder(model), digits_test.files[:50]
    (batch,) = encoder.encode_files(files)
    assert norms(encoder._for_many().net) < norms(encoder._network.net)
    queries = encoder.encode(files)
    np.testing.assert_allclose(batch.encodings.probabilities, queries.probabilities, atol=1e-5)
    np.testing.assert_allclose(batch.encodings.features, queries.features, atol=1e-5)
    assert np.unpackbits(batch.encodings.codes ^ queries.codes).mean() < 0.005
