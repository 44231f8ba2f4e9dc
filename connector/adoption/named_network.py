"""Find the network that a user names, in whichever library it is, and load its weights.

efficientnet_lite0, 1, 2     with the ImageNet weights of the extra `pretrained`
resnet18, ...                a classification model of torchvision; its weights are a file, or one of its names
timm:NAME                    a model of timm; its weights are a file
a directory                  of timm or of transformers, as the Hugging Face hub has them; see `model_directories`
a file .onnx                 see `onnx_outputs`
module:function              a function of the user's own; see `models.function_network`

EfficientNet-Lite and names with a colon are never looked for on the disk, and a name with weights is no directory: a
directory or a file with such a name is given as ./NAME.
"""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from semcut.connector.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Channels, normalisation_of
from semcut.connector.models.classification_models import (
    LITES,
    classes_in_weights,
    lite_model,
    lite_weights,
    load_weights,
    remove_last_linear,
    torchvision_model,
)
from semcut.connector.models.device import images_at_once
from semcut.connector.models.function_network import FunctionNetwork, name_of
from semcut.connector.models.network_sources import NOT_POOLED, Classifier, SourceName, plain_output
from semcut.connector.models.source import Source
from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import CheckpointError, InvalidParameterError, shown

LITE_SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
"""Pixels per side of the images that the networks were trained on."""
_SIDE, _IMAGENET = 224, 1000


@dataclass(frozen=True, eq=False)
class NamedNetwork:
    """A network with its weights, and what its library says of it.

    Attributes:
        source, name, settings: as in `AdoptedArchitecture`.
        network: the network: images to logits and features.
        classes: names of its classes; None if nothing names them.
        image_size: pixels per side of its images.
        mean, std: mean and standard deviation of each channel.
        assumed: what of these is a guess, for the user to know; a sentence each.
        image_bytes: memory that one image takes in the network; 0 if its layers are not followed.
    """

    source: SourceName
    name: str
    settings: dict[str, Any]
    network: Source
    classes: tuple[str, ...] | None = None
    image_size: int = _SIDE
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    assumed: tuple[str, ...] = ()
    image_bytes: int = 0


@dataclass(frozen=True)
class Hints:
    """What a user says of a network, in place of what its library says or what is guessed.

    Attributes:
        weights: file of the weights, or a name that the library knows.
        image_size: pixels per side of its images.
        logits, features: names of outputs of a file of ONNX.
        has_logits: whether probabilities come from its logits, not from vectors of classes.
    """

    weights: str | None = None
    image_size: int | None = None
    logits: str | None = None
    features: str | None = None
    has_logits: bool = True


def named_network(network: str | os.PathLike[str] | Callable[[torch.Tensor], Any], hints: Hints) -> NamedNetwork:
    """Find a network by its name, and load its weights.

    Args:
        network: see the top of this module; or the function itself, which must be found by its name again.
        hints: what the user says of it.

    Raises:
        InvalidParameterError: nothing has this name, or an argument does not fit it.
        MissingDependencyError: its library is not installed.
        CheckpointError: its weights cannot be read, or are those of another network.
        DataError: its weights cannot be downloaded.
    """
    from semcut.connector.adoption.model_directories import network_in_directory
    from semcut.connector.adoption.onnx_outputs import network_in_file

    if callable(network) and not isinstance(network, os.PathLike):
        return _function(name_of(network), hints)
    name = possible_path_given("network", network)
    library, _, rest = name.partition(":")
    fixed = name in LITES or (rest != "" and os.sep not in library)
    if not fixed and os.path.isdir(name) and (hints.weights is None or os.sep in name):
        return network_in_directory(Path(name), hints)
    if not fixed and name.endswith(".onnx"):
        return network_in_file(Path(name), hints)
    if hints.logits or hints.features:
        raise InvalidParameterError(f"logits and features name outputs of a file of ONNX, and {name} is none")
    if name in LITES:
        return _lite(name, hints)
    if library == "torchvision" and rest:
        return _torchvision(rest, hints)
    if library == "timm" and rest:
        from semcut.connector.adoption.model_directories import network_of_timm

        return network_of_timm(rest, hints)
    if rest:
        return _function(name_of(name), hints)
    return _torchvision(name, hints)


def checked_classifier(network: torch.nn.Module, name: str, image_size: int, image_bytes: int = 0) -> Classifier:
    """Take a classifier apart, and check that it computes the same logits as before, of two images if they fit.

    Args:
        network: the classifier, on the CPU.
        name: its name, for messages.
        image_size: pixels per side of its images.
        image_bytes: as in `NamedNetwork`.

    Raises:
        InvalidParameterError: it does not end in a linear layer, or does more after it.
        CheckpointError: it cannot take images of this size.
    """
    network.eval()
    count = images_at_once(torch.device("cpu"), image_bytes, 2)
    images = torch.randn((count, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            expected = plain_output(network(images))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise CheckpointError(
            f"{name} cannot take images of {image_size} pixels: give its image size ({shown(str(error))})"
        ) from None
    taken = Classifier(network, name).eval()
    try:
        with torch.inference_mode():
            logits, _ = taken(images)
        same = logits.shape == expected.shape and bool(torch.isclose(logits, expected, atol=1e-5).all())
    except (RuntimeError, ValueError):
        same = False
    if not same:
        raise InvalidParameterError(
            f"{name} does more after its last linear layer, so that layer's input is not its feature: give it as a "
            "file of ONNX or as a function"
        )
    return taken


def pool_by(found: NamedNetwork, exponent: float) -> None:
    """Pool the features of a network by a generalised mean from now on, see `models.pooling`; its logits stay the same.

    Raises:
        InvalidParameterError: it has no global average pooling, or does something with it that a mean cannot replace.
    """
    network, name = found.network, found.name or found.source
    if not isinstance(network, Classifier):
        raise InvalidParameterError(NOT_POOLED)
    size = found.image_size
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(0))  # one could be broadcast
    with torch.inference_mode():
        expected, _ = network(images)
        network.pool_by(exponent, name)
        try:
            logits, _ = network(images)
            same = logits.shape == expected.shape and bool(torch.isclose(logits, expected, atol=1e-4).all())
        except (RuntimeError, ValueError, CheckpointError):
            same = False
    if not same:
        raise InvalidParameterError(
            f"{name} does more with its last average pooling than classify: its features cannot be pooled otherwise"
        )


def named_classes(count: int) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Guess the names of the classes of a network by their number, and say so."""
    if count == _IMAGENET:
        return imagenet_classes(), ("its 1,000 classes are taken to be those of ImageNet",)
    return None, ()


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of the 1,000 classes of ImageNet, in the order of the outputs of networks trained on them.

    Releases of torchvision that give two classes one name get their positions added, because the classes of a network
    have different names. Source: torchvision, which publishes them with its weights. Only the file that has them is
    read where that is possible: all of torchvision takes 160 MB and most of a second.
    """
    names = _names_in_file()
    if names is None:
        from torchvision.models import ResNet18_Weights

        names = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({place})" for place, name in enumerate(names))


def _names_in_file() -> list[str] | None:
    """Read the names in the file of torchvision that lists them; None if it has another form."""
    spec = find_spec("torchvision")
    folders = () if spec is None else spec.submodule_search_locations or ()
    for folder in folders:
        with suppress(OSError, SyntaxError, ValueError):
            for node in ast.parse((Path(folder) / "models" / "_meta.py").read_text()).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_IMAGENET_CATEGORIES":
                    names = ast.literal_eval(node.value)
                    if len(names) == _IMAGENET and all(isinstance(name, str) for name in names):
                        return list(names)
    return None


def _lite(name: str, hints: Hints) -> NamedNetwork:
    size = hints.image_size or LITE_SIDES[name]
    model = lite_model(name, size)
    own = hints.weights in (None, "imagenet")
    load_weights(model, lite_weights(name) if own else Path(str(hints.weights)))
    mean, std = normalisation_of(name)
    classes = imagenet_classes()
    network = checked_classifier(model, name, size)
    return NamedNetwork("efficientnet_lite", name, {"image_size": size}, network, classes, size, mean, std)


def _torchvision(name: str, hints: Hints) -> NamedNetwork:
    if hints.weights is None:
        raise InvalidParameterError(
            f"network = {shown(name)}: give the file of its weights, or a name that torchvision knows (weights; on the "
            "command line --weights)"
        )
    size = hints.image_size or _SIDE
    classes: tuple[str, ...] | None
    if hints.weights != "imagenet" and os.path.exists(hints.weights):
        with torch.device("meta"):
            last = remove_last_linear(torchvision_model(name), name)
        count = classes_in_weights(last, Path(hints.weights))
        model = torchvision_model(name, classes=count)
        load_weights(model, Path(hints.weights))
        classes, assumed = named_classes(count)
    else:
        model = torchvision_model(name, hints.weights)
        classes, assumed = imagenet_classes(), ()
    if hints.image_size is None:
        assumed = (*assumed, f"its images are taken to have {size} x {size} pixels")
    return NamedNetwork("torchvision", name, {}, checked_classifier(model, name, size), classes, size, assumed=assumed)


def _function(name: str, hints: Hints) -> NamedNetwork:
    if hints.image_size is None:
        raise InvalidParameterError(f"network = {name}: give the image size of the function")
    if hints.weights is not None:
        raise InvalidParameterError(f"network = {name}: a function loads its weights itself, give none")
    return NamedNetwork("python", name, {}, FunctionNetwork(name), None, hints.image_size)
