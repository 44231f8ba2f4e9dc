"""`SemanticHashNet`: one network that computes probabilities, a code and a feature for each image.

    images --> backbone --> mid-level feature g --> softmax branch   --> probabilities p over C classes
                                               \\-> hash branch, head --> outputs x, which the head turns into bits

Both branches start from the last mid-level layer. If a backbone has several mid-level layers (AlexNet: FC6 and FC7),
all of them feed the hash branch. If `dim` is set, a linear layer with `dim` units and a ReLU follow the last mid-level
layer, and their output is the feature: shorter features cost less memory and time.

Source: Varga and Szirányi, "Fast content-based image retrieval using convolutional neural network and hash function".
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import nn

from semcut.connector.data.class_names import classes_given
from semcut.connector.models import MOST_EXPONENT, HeadName
from semcut.connector.models.backbones import build_backbone
from semcut.connector.models.heads import make_head
from semcut.connector.models.heads.head import Binarisation
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.config import Settings
from semcut.indexes.errors import InvalidParameterError, shown


class Architecture(Settings):
    """The parts and sizes of a network; stored with its weights.

    Attributes:
        backbone: name of the backbone; see `backbones`.
        classes: 2 to 10,000 different class names, in order of the softmax outputs.
        image_size: pixels per side of the squares that images are scaled to.
        bits: length of the hash code.
        head: name of the head of the hash branch; see `heads`.
        dim: length of the feature; None for the length of the backbone's feature.
        pooling: exponent, at first, of the generalised mean that the backbone's feature is pooled by, see `pooling`; it
            is trained with the backbone. None for the pooling of the backbone.
    """

    backbone: str = "small"
    classes: tuple[str, ...]
    image_size: int = Field(default=32, ge=8, le=1024)
    bits: int = Field(default=64, ge=32, le=1024, multiple_of=8)
    head: HeadName = "paper"
    dim: int | None = Field(default=None, ge=1, le=65_536)
    pooling: float | None = Field(default=None, ge=1, le=MOST_EXPONENT)

    @field_validator("classes", mode="before")
    @classmethod
    def _different_names(cls, value: Any) -> tuple[str, ...]:
        return classes_given("classes", value, least=2)


class Output(NamedTuple):
    """The outputs of the network for n images.

    Attributes:
        logits: (n, C), outputs of the softmax branch, before the softmax.
        hash: (n, bits), outputs x of the head.
        features: (n, D), mid-level features, not normalised.
    """

    logits: torch.Tensor
    hash: torch.Tensor
    features: torch.Tensor


class SemanticHashNet(nn.Module):
    """The network of an `Architecture`.

    Args:
        architecture: the network to build.
        weights: weights of the backbone, see `backbones`; None for random weights.

    Raises:
        InvalidParameterError, MissingDependencyError, DataError, CheckpointError: as `build_backbone` raises them.
    """

    mean: torch.Tensor
    std: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, architecture: Architecture, weights: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.architecture = instance_given("architecture", architecture, Architecture)
        self.backbone = build_backbone(
            architecture.backbone, architecture.image_size, weights, pooling=architecture.pooling
        )
        *others, width = self.backbone.widths(architecture.image_size)
        self._widths = (*others, width)
        self.middle: nn.Module = nn.Identity()
        if architecture.dim is not None:
            self.middle = nn.Sequential(nn.Linear(width, architecture.dim), nn.ReLU())
            width = architecture.dim
        self.dim = width
        self.semantic = nn.Linear(width, len(architecture.classes))
        self.hash = nn.Linear(sum(others) + width, architecture.bits)
        self.head = make_head(architecture.head, architecture.bits, len(architecture.classes))
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))
        for name, channels in (("mean", self.backbone.mean), ("std", self.backbone.std)):
            values = torch.tensor(channels, device="cpu").view(3, 1, 1) * 255  # not stored, so also in an outline real
            self.register_buffer(name, values, persistent=False)

    @staticmethod
    def outline(architecture: Architecture) -> SemanticHashNet:
        """Build a network whose tensors have shapes and no content; it takes no memory, and no codewords are drawn.

        `load_state_dict(state, assign=True)` makes it a whole network.
        """
        with torch.device("meta"):
            return SemanticHashNet(architecture)

    @property
    def binarisation(self) -> Binarisation:
        """How the outputs of the head become bits."""
        return self.head.binarisation

    @property
    def _device(self) -> torch.device:
        return self.semantic.weight.device

    def forward(self, images: torch.Tensor) -> Output:
        """Compute the outputs for images.

        Args:
            images: (n, 3, size, size) RGB pixels from 0 to 255, uint8 or float.

        Raises:
            InvalidParameterError: they are no such tensor on the device of the network.
        """
        return self.branch_outputs(self.backbone_outputs(images))

    def backbone_outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the backbone on images, given as for `forward`; return its mid-level outputs, a tuple of (n, width)."""
        size = self.architecture.image_size
        check_tensor("images", images, (3, size, size), self._device)
        outputs: tuple[torch.Tensor, ...] = self.backbone((images - self.mean) / self.std)
        return outputs

    def branch_outputs(self, layers: tuple[torch.Tensor, ...]) -> Output:
        """Compute the outputs of the network from the mid-level outputs of the backbone, see `backbone_outputs`."""
        if not isinstance(layers, tuple | list) or len(layers) != len(self._widths):
            raise InvalidParameterError(f"layers = {shown(layers)}, expected a tuple of {len(self._widths)} tensors")
        for layer, width in zip(layers, self._widths, strict=True):
            check_tensor("layers", layer, (width,), self._device)
        *others, last = layers
        features = self.middle(last)
        outputs = self.head(self.hash(torch.cat([*others, features], dim=1)))
        return Output(logits=self.semantic(features), hash=outputs, features=features)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits (n, C) into probabilities (n, C) float64 with the network's temperature; see `calibration`."""
        check_tensor("logits", logits, (len(self.architecture.classes),), self._device)
        return torch.softmax(logits.double() / self.temperature, dim=1)


def check_tensor(name: str, value: Any, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise an error unless a value is a tensor of real numbers, (n, *shape), on the device of a network."""
    if not isinstance(value, torch.Tensor):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a tensor")
    real = not value.is_complex() and value.dtype != torch.bool
    if value.shape[1:] != shape or value.ndim != 1 + len(shape) or not real:
        raise InvalidParameterError(
            f"{name} are {value.dtype} of shape {tuple(value.shape)}, expected real numbers of shape "
            f"(n, {', '.join(map(str, shape))})"
        )
    if value.device != device or value.layout != torch.strided:
        raise InvalidParameterError(
            f"{name} are a {value.layout} tensor on {value.device}, expected a dense one on {device}, where the "
            "network is"
        )
