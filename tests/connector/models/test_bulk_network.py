"""The form of a network for many images computes what the network computes, and leaves the network as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from semcut.connector.data.sources import ImageSet
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


@pytest.mark.parametrize("backbone", ["small", "resnet18", "mobilenet_v3_small", "densenet121", "efficientnet_lite0"])
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


class TwoUses(nn.Module):
    """A network that adds the output of a convolution to that of the norm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = self.conv(pixels)
        return ((there + self.relu(self.norm(there))).mean(dim=(2, 3)),)


class Overwritten(TwoUses):
    """One that adds the output of the norm to that of the activation after it."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        there = self.norm(self.conv(pixels))
        return ((there + self.relu(there)).mean(dim=(2, 3)),)


@pytest.mark.parametrize("kind", [TwoUses, Overwritten])
def test_a_network_with_other_uses_of_an_output_stays_as_it_is(kind: type[nn.Module]) -> None:
    net = network("small")
    net.backbone = kind().eval()
    net._widths, net.dim, net.middle = (8,), 8, nn.Identity()
    net.semantic, net.hash = nn.Linear(8, 3), nn.Linear(8, 64)
    assert bulk_form(net) is net


def test_a_network_that_computes_no_numbers_stays_as_it_is() -> None:
    net = network("small")
    next(net.parameters()).data.fill_(float("nan"))
    assert bulk_form(net) is net


def test_files_and_queries_are_encoded_alike(model: Checkpoint, digits_test: ImageSet) -> None:
    encoder, files = Encoder(model), digits_test.files[:50]
    (batch,) = encoder.encode_files(files)
    assert norms(encoder._for_many.net) < norms(encoder._network.net)
    queries = encoder.encode(files)
    np.testing.assert_allclose(batch.encodings.probabilities, queries.probabilities, atol=1e-5)
    np.testing.assert_allclose(batch.encodings.features, queries.features, atol=1e-5)
    assert np.unpackbits(batch.encodings.codes ^ queries.codes).mean() < 0.005
