"""`AdoptedNet`: a network that exists already, completed to one that computes probabilities, a code and a feature.

    pixels --> source --> direction of its feature --> reduction --> feature --> hash projection --> outputs x, bits
                    \\-> logits, or cosines of the direction and one vector for each class --> softmax --> probabilities

The source, a classifier of any library, stays as it is, see `network_sources`. Nothing here is trained:
`connector.adoption` copies the weights of the source, and fits the reduction, the projection and the temperature.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import nn
from torch.nn import functional

from semcut.connector.data.class_names import classes_given
from semcut.connector.models import LEAST_SCALE, MOST_EXPONENT, MOST_SCALES, CodeName
from semcut.connector.models.backbones import Channels
from semcut.connector.models.heads.head import Binarisation
from semcut.connector.models.network import Output, check_tensor
from semcut.connector.models.network_sources import SourceName, build_source
from semcut.connector.models.scales import at_scales
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.config import Settings
from semcut.indexes.errors import CheckpointError

Exponent = Annotated[float, Field(ge=1, le=MOST_EXPONENT)]
"""An exponent of a generalised mean."""
Scales = Annotated[
    tuple[Annotated[float, Field(ge=LEAST_SCALE, le=1)], ...], Field(min_length=1, max_length=MOST_SCALES)
]
"""Shares of the image size."""


class AdoptedArchitecture(Settings):
    """What an adopted network is made of; stored with its weights.

    Attributes:
        source: the library of the source, see `network_sources`.
        name: name of the source there.
        settings: what else is needed to build the source, as values of JSON.
        classes: 2 to 10,000 different class names, in order of the probabilities.
        image_size: pixels per side of the squares that images are scaled to.
        width: length of the feature of the source.
        dim: length of the feature that a linear layer reduces it to; None for the feature of the source.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1].
        vectors: whether the probabilities come from one vector for each class, in place of logits of the source.
        source_classes: number of classes of the source; None if it has as many as there are vectors, or no vectors.
        bits: length of the code.
        head: how features become codes.
        pooling: exponent of the generalised mean that features are pooled by; None for what the source computes.
        scales: shares of the image size that the source sees an image at.
    """

    source: SourceName
    name: str = Field(default="", max_length=1_000)
    settings: dict[str, Any] = Field(default_factory=dict)
    classes: tuple[str, ...]
    image_size: int = Field(ge=8, le=1024)
    width: int = Field(ge=1, le=65_536)
    dim: int | None = Field(default=None, ge=1, le=65_536)
    mean: Channels
    std: Channels
    vectors: bool = False
    source_classes: int | None = Field(default=None, ge=1, le=65_536)
    bits: int = Field(default=64, ge=32, le=1024, multiple_of=8)
    head: CodeName = "itq"
    pooling: Exponent | None = None
    scales: Scales = (1.0,)

    @field_validator("classes", mode="before")
    @classmethod
    def _different_names(cls, value: Any) -> tuple[str, ...]:
        return classes_given("classes", value, least=2)

    @property
    def binarisation(self) -> Binarisation:
        """How outputs become bits, see `hashing`."""
        return "mean" if self.head in ("equation3", "paper") else "sign"

    @property
    def backbone(self) -> str:
        """The source in words, for people."""
        return f"{self.source} {self.name}".strip()


class AdoptedNet(nn.Module):
    """The network of an `AdoptedArchitecture`.

    Attributes:
        architecture: what it is made of.
        dim: length of the feature.
        binarisation: how the outputs of the projection become bits.
        source: the network that was adopted: images to logits and features.

    Raises:
        MissingDependencyError, CheckpointError, InvalidParameterError: as `build_source` raises them.
    """

    mean: torch.Tensor
    std: torch.Tensor
    temperature: torch.Tensor

    def __init__(self, architecture: AdoptedArchitecture) -> None:
        super().__init__()
        self.architecture = instance_given("architecture", architecture, AdoptedArchitecture)
        self.dim = architecture.dim or architecture.width
        self.binarisation = architecture.binarisation
        count = architecture.source_classes or len(architecture.classes)
        self.source = build_source(
            architecture.source, architecture.name, architecture.settings, count, architecture.pooling
        )
        if architecture.vectors:
            self.vectors = nn.Parameter(torch.zeros(len(architecture.classes), architecture.width), requires_grad=False)
        self.reduction = nn.Identity() if architecture.dim is None else nn.Linear(architecture.width, architecture.dim)
        self.hash = nn.Linear(self.dim, architecture.bits)
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))
        for name, channels in (("mean", architecture.mean), ("std", architecture.std)):
            values = torch.tensor(channels, device="cpu").view(3, 1, 1) * 255
            self.register_buffer(name, values, persistent=False)

    @staticmethod
    def outline(architecture: AdoptedArchitecture) -> AdoptedNet:
        """Build a network whose tensors have shapes and no content; it takes no memory."""
        with torch.device("meta"):
            return AdoptedNet(architecture)

    def forward(self, images: torch.Tensor) -> Output:
        """Compute the outputs for images.

        Args:
            images: (n, 3, size, size) RGB pixels from 0 to 255, uint8 or float.

        Raises:
            InvalidParameterError: they are no such tensor on the device of the network.
            CheckpointError: the source does not answer as it did when it was adopted.
        """
        size = self.architecture.image_size
        check_tensor("images", images, (3, size, size), self.mean.device)
        given = images if self.source.takes_pixels else (images - self.mean) / self.std
        logits, direction = at_scales(self.source, given, self.architecture.scales)
        self._check_widths(logits, direction, len(images))
        if self.architecture.vectors:
            logits = direction @ functional.normalize(self.vectors, dim=1).T
        features = functional.normalize(self.reduction(direction), dim=1)
        return Output(logits=logits, hash=self.hash(features), features=features)

    def _check_widths(self, logits: torch.Tensor, features: torch.Tensor, count: int) -> None:
        """Raise `CheckpointError` unless the source computed what the architecture says, for this many images."""
        widths = {"features": (features, self.architecture.width)}
        if not self.architecture.vectors:
            widths["logits"] = (logits, len(self.architecture.classes))
        for what, (values, width) in widths.items():
            if values.shape != (count, width):
                raise CheckpointError(
                    f"{self.architecture.backbone} computes {what} of the shape {tuple(values.shape)}, expected "
                    f"{(count, width)} as in its description: adopt the network again"
                )

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits (n, C) into probabilities (n, C) float64 with the network's temperature; see `calibration`."""
        check_tensor("logits", logits, (len(self.architecture.classes),), self.mean.device)
        return torch.softmax(logits.double() / self.temperature, dim=1)
