"""`SemanticHashNet`: one network, three answers for every image.

    images --> backbone --> mid-level feature g --> softmax branch   --> probabilities p over C classes
                                               \\-> hash branch, head --> outputs x, binarised as the head says

The last mid-level layer splits into the two branches. Where a backbone has several mid-level layers (AlexNet: FC6 and
FC7), all of them feed the hash branch. With `dim` a layer of that many units and a ReLU is put before the split and is
the feature then: shorter features cost less memory and time.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import nn

from semcut.connector.models.backbones import build
from semcut.connector.models.heads import make_head
from semcut.connector.models.names import HeadName
from semcut.indexes.config import Settings
from semcut.indexes.errors import DataError


class Architecture(Settings):
    """What a network is made of; stored with its weights.

    Attributes:
        backbone: its name, see `backbones`.
        classes: class names, in order of the softmax outputs.
        image_size: images are scaled to squares of so many pixels a side.
        bits: length of the hash code.
        head: what the hash branch is trained for, see `losses`.
        dim: length of the feature; None for the backbone's own.
    """

    backbone: str = "small"
    classes: tuple[str, ...] = Field(min_length=2, max_length=10_000)
    image_size: int = Field(default=32, ge=8, le=1024)
    bits: int = Field(default=64, ge=32, le=1024, multiple_of=8)
    head: HeadName = "paper"
    dim: int | None = Field(default=None, ge=1, le=65_536)


class Output(NamedTuple):
    """What the network says of n images.

    logits (n, C) of the softmax branch; hash (n, bits) outputs x of the head; features (n, D), not normalised.
    """

    logits: torch.Tensor
    hash: torch.Tensor
    features: torch.Tensor


class SemanticHashNet(nn.Module):
    """The network of an `Architecture`.

    Args:
        architecture: what to build.
        weights: of the backbone, see `backbones`; None for random ones.
    """

    mean: torch.Tensor
    std: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, architecture: Architecture, weights: str | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build(architecture.backbone, architecture.image_size, weights)
        *others, width = self.backbone.widths(architecture.image_size)
        self.middle: nn.Module = nn.Identity()
        if architecture.dim is not None:
            self.middle = nn.Sequential(nn.Linear(width, architecture.dim), nn.ReLU())
            width = architecture.dim
        self.dim = width
        self.semantic = nn.Linear(width, len(architecture.classes))
        self.hash = nn.Linear(sum(others) + width, architecture.bits)
        self.head = make_head(architecture.head, architecture.bits, len(architecture.classes))
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, images: torch.Tensor) -> Output:
        """Answers for images.

        Args:
            images: (n, 3, size, size) pixels from 0 to 255, uint8 or float, RGB.
        """
        return self.answers(self.middle_outputs(images))

    def middle_outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the backbone makes of images: a tuple of (n, width)."""
        outputs: tuple[torch.Tensor, ...] = self.backbone((images - self.mean) / self.std)
        return outputs

    def answers(self, layers: tuple[torch.Tensor, ...]) -> Output:
        """Answers for what the backbone has made of images."""
        *others, last = layers
        features = self.middle(last)
        outputs = self.head(self.hash(torch.cat([*others, features], dim=1)))
        return Output(logits=self.semantic(features), hash=outputs, features=features)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, C) float64 probabilities, calibrated if the network is: see `calibration`."""
        return torch.softmax(logits.double() / self.temperature, dim=1)


def device_named(name: str) -> torch.device:
    """The device of that name.

    Raises:
        DataError: it is not there.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device = {name} cannot be used here ({str(error).splitlines()[0]}): use cpu") from None
    return device
