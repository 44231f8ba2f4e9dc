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

import math
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from semcut.connector.models.classification_models import lite_model, remove_last_linear, torchvision_model
from semcut.connector.models.function_network import FunctionNetwork
from semcut.connector.models.network_settings import used_settings
from semcut.connector.models.onnx_network import OnnxNetwork
from semcut.connector.models.outline_limits import OutlineLimits
from semcut.connector.models.pooling import PairedPooling, replace_pooling
from semcut.connector.models.source import Source
from semcut.indexes.errors import CheckpointError, InvalidParameterError, require, shown

SourceName = Literal["torchvision", "efficientnet_lite", "timm", "transformers", "onnx", "python"]

DESCRIBED = ("timm", "transformers")
"""Libraries whose networks have settings that come from outside."""
_OF_OTHERS = ("timm_wrapper", "timm_backbone")
"""Types of transformers that build a network of another library."""
NOT_POOLED = "a file of ONNX, or a function, computes features itself: leave out the pooling"
_REAL_BYTES = 128 << 20
"""The most that the positions and rates of an outline may take; those of the largest Swin of timm take 60 MiB."""
_PRODUCTS = ("meshgrid", "cartesian_prod", "outer", "einsum", "matmul", "kron")
"""Functions whose result can have as many numbers as those of their arguments multiplied."""


class Classifier(Source):
    """A classifier of torch that ends in a linear layer, whose input is the feature.

    Args:
        network: the whole classifier; it is taken apart.
        name: its name, for messages.
        pooling: exponent of the generalised mean that features are pooled by, see `pooling`; None to leave them as
            they are. The logits stay as they are in any case.

    Raises:
        InvalidParameterError: its last layer is not linear, or it has no global average pooling to replace.
    """

    def __init__(self, network: nn.Module, name: str, pooling: float | None = None) -> None:
        super().__init__()
        layers = dict(network.named_modules())
        self.last = layers[remove_last_linear(network, name)]
        self.network = network
        self._paired = False
        if pooling is not None:
            self.pool_by(pooling, name)

    def pool_by(self, exponent: float, name: str) -> None:
        """Pool features by a generalised mean from now on; once only.

        Raises:
            InvalidParameterError: the network has no global average pooling to replace.
        """
        replace_pooling(self.network, name, lambda: PairedPooling(exponent))
        self._paired = True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits and features."""
        if not self._paired:
            features = torch.flatten(plain_output(self.network(images)), 1)
            return self.last(features), features
        try:
            both = plain_output(self.network(images))
            # Rows of averages and of generalised means alternate, or each row has both, one after the other.
            averages, means = both.reshape(len(images), 2, self.last.in_features).unbind(1)
        except RuntimeError as error:  # `adopt` has run the network, so its description is forged
            if not len(images):  # which some networks cannot take, pooled or not
                raise
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"the network cannot compute pooled features: {reason}") from None
        return self.last(averages), means


def plain_output(output: Any) -> torch.Tensor:
    """Return the tensor that a classifier computes, which those of transformers wrap."""
    found = getattr(output, "logits", output)
    if not isinstance(found, torch.Tensor):
        raise InvalidParameterError(f"the network returns {type(output).__name__}, expected a tensor of logits")
    return found


def build_source(
    source: SourceName, name: str, settings: dict[str, Any], classes: int, pooling: float | None = None
) -> Source:
    """Build the network of a description, with random weights.

    Args:
        source: the library.
        name: name of the network there.
        settings: what else it needs.
        classes: number of its classes.
        pooling: as for `Classifier`.

    Raises:
        MissingDependencyError: the library is not installed.
        InvalidParameterError: it has no such network, or none that ends in a linear layer.
        CheckpointError: the description is of something else.
    """
    if source == "onnx" or source == "python":
        if pooling is not None:
            raise InvalidParameterError(NOT_POOLED)
        return OnnxNetwork(settings) if source == "onnx" else FunctionNetwork(name)
    return Classifier(build_classifier(source, name, settings, classes), name or source, pooling)


def build_classifier(source: SourceName, name: str, settings: dict[str, Any], classes: int) -> nn.Module:
    """Build a classifier of torch as `build_source` does, whole."""
    if source == "torchvision":
        return torchvision_model(name, classes=classes)
    if source == "efficientnet_lite":
        size = settings.get("image_size", 224)
        if type(size) is not int or not 8 <= size <= 1024:
            raise CheckpointError(f"image_size = {shown(size)} in the settings of {shown(name)}, expected 8 to 1,024")
        return lite_model(name, size)
    with OutlineLimits() as limits, _SmallTensorsOnCpu():
        if source == "timm":
            return _timm(name, settings, classes, limits)
        return _transformers(settings, classes, limits)


def _timm(name: str, settings: dict[str, Any], classes: int, limits: OutlineLimits) -> nn.Module:
    require({"timm": "timm"}, "build a network of timm", "timm")
    import timm

    if ":" in name or "/" in name or not timm.is_model(name):
        raise InvalidParameterError(f"timm has no network {shown(name)}")
    known = used_settings(settings)
    try:
        network: nn.Module = limits.run(lambda: timm.create_model(name, pretrained=False, num_classes=classes, **known))
    except Exception as error:  # settings that the network does not have
        raise CheckpointError(
            f"timm cannot build {name} with {shown(settings)}: {' '.join(str(error).split())}"
        ) from None
    return network


def _transformers(settings: dict[str, Any], classes: int, limits: OutlineLimits) -> nn.Module:
    kind, config = limits.run(lambda: transformers_config(settings, classes))
    with _transformers_errors(settings):
        network: nn.Module = limits.run(lambda: kind.from_config(config))
    return network


def transformers_config(settings: dict[str, Any], classes: int) -> tuple[Any, Any]:
    """Return the class `AutoModelForImageClassification` and a configuration, without what could load other files.

    Raises:
        CheckpointError: transformers knows no such configuration, or it is one of several networks.
        MissingDependencyError: it is not installed.
    """
    require({"transformers": "transformers"}, "build a network of transformers", "transformers")
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # nothing is downloaded
        os.environ.setdefault(variable, "1")
    known = used_settings(settings)
    kind = known.pop("model_type", None)
    with _transformers_errors(settings):
        from transformers import AutoConfig, AutoModelForImageClassification

        if not isinstance(kind, str) or kind in _OF_OTHERS:
            raise ValueError("expected a type whose layers are all of transformers")
        # how attention is computed is not said, so it is one of the two ways of torch
        config = AutoConfig.for_model(kind, num_labels=classes, **known)
        if getattr(config, "sub_configs", None) or getattr(config, "backbone_config", None):
            raise ValueError("it is made of several networks: give it as a file of ONNX or as a function")
        return AutoModelForImageClassification, config


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
    """Keeps computed positions and rates real in an outline of a network, which computes with their values.

    Raises:
        CheckpointError: they take more memory than those of any network.
    """

    def __init__(self) -> None:
        super().__init__()
        self._outline = torch.get_default_device().type == "meta"
        self._results: list[weakref.ref[torch.Tensor]] = []
        self._bytes = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = {"device": "cpu"} if func in (torch.arange, torch.tensor, torch.linspace) else {}
        kwargs = {**(kwargs or {}), **chosen}
        if not self._outline:
            return func(*args, **kwargs)
        self._count(8 * _most_numbers(func, args), ())
        found = func(*args, **kwargs)
        several = found if isinstance(found, tuple | list) else (found,)
        real = [one for one in several if isinstance(one, torch.Tensor) and one.device.type == "cpu"]
        self._count(0, real)
        return found

    def _count(self, coming: int, real: Sequence[torch.Tensor]) -> None:
        """Count tensors, and bytes of one that is about to be made; those that are gone count only until the limit."""
        with torch._C.DisableTorchFunction():
            self._results += map(weakref.ref, real)
            self._bytes += sum(one.untyped_storage().nbytes() for one in real)
            if self._bytes + coming <= _REAL_BYTES:
                return
            alive = [one for one in (reference() for reference in self._results) if one is not None]
            self._results = [weakref.ref(one) for one in alive]
            storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in alive}
            self._bytes = sum(storages.values())
            if self._bytes + coming > _REAL_BYTES:
                raise CheckpointError(f"its positions take more than {_REAL_BYTES >> 20} MiB: it is described wrongly")


def _most_numbers(func: Any, args: Any) -> int:
    """Return about how many numbers a function computes from real tensors; 0 if it is given none."""
    given = [one for arg in args for one in (arg if isinstance(arg, tuple | list) else (arg,))]
    with torch._C.DisableTorchFunction():
        shapes = [one.shape for one in given if isinstance(one, torch.Tensor) and one.device.type == "cpu"]
    name = getattr(func, "__name__", "")
    if not shapes:
        return 0
    if name in _PRODUCTS:
        return math.prod(math.prod(shape) for shape in shapes)
    if name in ("repeat", "tile"):
        return math.prod(shapes[0]) * math.prod(one for one in given if isinstance(one, int))
    try:
        return math.prod(np.broadcast_shapes(*shapes)) if len(shapes) > 1 else 0
    except ValueError:  # tensors that are joined
        return sum(math.prod(shape) for shape in shapes)
