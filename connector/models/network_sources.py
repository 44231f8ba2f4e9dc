"""Build a network that semcut did not train by the name of its library: images in, logits and features out.

    torchvision         a classification model of torchvision, by its name
    efficientnet_lite   EfficientNet-Lite 0, 1 or 2, by its name
    timm                a classification model of timm, by its name
    transformers        a model for image classification of transformers, by its configuration
    onnx                a file of ONNX, run by onnxruntime; see `onnx_network`
    python              a function of the user's own, as module:function; see `function_network`

The logits are what the network itself computes; the feature is the input of its last linear layer, or what the file
or the function gives. Only the shape of a network is built here: weights come from a checkpoint, and nothing is
downloaded. What a description says comes from outside, so only known settings of a configuration are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from semcut.connector.models.classification_models import lite_model, remove_last_linear, torchvision_model
from semcut.connector.models.function_network import FunctionNetwork
from semcut.connector.models.onnx_network import OnnxNetwork
from semcut.connector.models.source import Source
from semcut.indexes.errors import CheckpointError, InvalidParameterError, require, shown

SourceName = Literal["torchvision", "efficientnet_lite", "timm", "transformers", "onnx", "python"]

_OF_TIMM = ("model_name", "num_classes", "checkpoint_path", "cache_dir", "scriptable", "exportable")
"""Arguments of timm that are no settings of a network, or have a place of their own."""
_REFUSED = ("auto_map", "quantization_config", "torch_dtype", "dtype", "backbone", "backbone_config", "backbone_kwargs")
"""Settings of transformers that could load code, other files or other kinds of numbers."""


class Classifier(Source):
    """A classifier of torch that ends in a linear layer, whose input is the feature.

    Args:
        network: the whole classifier; it is taken apart.
        name: its name, for the message.

    Raises:
        InvalidParameterError: its last layer is not linear.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        layers = dict(network.named_modules())
        self.last = layers[remove_last_linear(network, name)]
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits and features."""
        features = torch.flatten(plain_output(self.network(images)), 1)
        return self.last(features), features


def plain_output(output: Any) -> torch.Tensor:
    """Return the tensor that a classifier computes, which those of transformers wrap."""
    found = getattr(output, "logits", output)
    if not isinstance(found, torch.Tensor):
        raise InvalidParameterError(f"the network returns {type(output).__name__}, expected a tensor of logits")
    return found


def build_source(source: SourceName, name: str, settings: dict[str, Any], classes: tuple[str, ...]) -> Source:
    """Build the network of a description, with random weights.

    Args:
        source: the library.
        name: name of the network there.
        settings: what else it needs.
        classes: names of its classes.

    Raises:
        MissingDependencyError: the library is not installed.
        InvalidParameterError: it has no such network, or none that ends in a linear layer.
        CheckpointError: the description is of something else.
    """
    if source == "onnx":
        return OnnxNetwork(settings)
    if source == "python":
        return FunctionNetwork(name)
    return Classifier(build_classifier(source, name, settings, len(classes)), name or source)


def build_classifier(source: SourceName, name: str, settings: dict[str, Any], classes: int) -> nn.Module:
    """Build a classifier of torch as `build_source` does, whole."""
    if source == "torchvision":
        return torchvision_model(name, classes=classes)
    if source == "efficientnet_lite":
        return lite_model(name, int(settings.get("image_size", 224)))
    with _SmallTensorsOnCpu():
        if source == "timm":
            return _timm(name, settings, classes)
        return _transformers(settings)


def _timm(name: str, settings: dict[str, Any], classes: int) -> nn.Module:
    require({"timm": "timm"}, "build a network of timm", "timm")
    import timm

    if ":" in name or "/" in name or not timm.is_model(name):
        raise InvalidParameterError(f"timm has no network {shown(name)}")
    known = {key: value for key, value in settings.items() if key not in _OF_TIMM and not key.startswith("pretrained")}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **known)
    except Exception as error:  # settings that the network does not have
        raise CheckpointError(
            f"timm cannot build {name} with {shown(settings)}: {' '.join(str(error).split())}"
        ) from None
    return network


def _transformers(settings: dict[str, Any]) -> nn.Module:
    kind, config = transformers_config(settings)
    with _transformers_errors(settings):
        network: nn.Module = kind.from_config(config)
    return network


def transformers_config(settings: dict[str, Any]) -> tuple[Any, Any]:
    """Return the class `AutoModelForImageClassification` and a configuration, without what could load other files.

    Raises:
        CheckpointError: transformers knows no such configuration.
        MissingDependencyError: it is not installed.
    """
    require({"transformers": "transformers"}, "build a network of transformers", "transformers")
    with _transformers_errors(settings):
        from transformers import AutoConfig, AutoModelForImageClassification

        known = {key: value for key, value in settings.items() if not key.startswith("_") and key not in _REFUSED}
        return AutoModelForImageClassification, AutoConfig.for_model(known.pop("model_type", None), **known)


@contextmanager
def _transformers_errors(settings: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a configuration of another kind, or of another version
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"transformers cannot build a classifier of the type {shown(settings.get('model_type'))}: {reason}"
        ) from None


class _SmallTensorsOnCpu(TorchFunctionMode):
    """Keeps computed positions and rates real in an outline of a network, which computes with their values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = {"device": "cpu"} if func in (torch.arange, torch.tensor, torch.linspace) else {}
        return func(*args, **{**(kwargs or {}), **chosen})
