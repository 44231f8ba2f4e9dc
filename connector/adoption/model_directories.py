"""Read a classifier from a directory of timm or of transformers, as the Hugging Face hub has them.

    config.json                 of timm: architecture, number of classes, mean and standard deviation of the pixels;
                                of transformers: the configuration of the model, with the names of its classes
    preprocessor_config.json    of transformers: size, mean and standard deviation of the pixels
    model.safetensors           the weights; of timm also pytorch_model.bin, of which no pickled code is run

Such a directory may come from someone else: it is only data, no code in it is run, and nothing is
downloaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semcut.connector.adoption.named_network import Hints, NamedNetwork, checked_classifier, named_classes
from semcut.connector.data.tensor_files import Shapes, compare_shapes
from semcut.connector.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Channels
from semcut.connector.models.classification_models import (
    check_computed,
    classes_in_weights,
    read_weights,
    remove_last_linear,
    set_weights,
)
from semcut.connector.models.forward_cost import image_bytes
from semcut.connector.models.network_settings import kept_settings
from semcut.connector.models.network_sources import SourceName, build_classifier, transformers_config
from semcut.indexes.errors import CheckpointError, InvalidParameterError, shown
from semcut.indexes.regular_files import read_json

_CONFIG, _PIXELS = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CONFIG_BYTES = 4 << 20


def network_in_directory(path: Path, hints: Hints) -> NamedNetwork:
    """Read a classifier from a directory.

    Raises:
        CheckpointError: the directory has none, or it cannot be read.
        MissingDependencyError: its library is not installed.
        InvalidParameterError: the network does not end in a linear layer.
    """
    config = _read(path / _CONFIG)
    if config is None:
        raise CheckpointError(
            f"{path} has no {_CONFIG}: give a directory of timm or transformers, a file of ONNX, or a name"
        )
    if "model_type" in config:
        return _of_transformers(path, config, hints)
    if isinstance(config.get("architecture"), str):
        return _of_timm(path, config, hints)
    raise CheckpointError(f"{path / _CONFIG} describes a network neither of timm nor of transformers")


def network_of_timm(name: str, hints: Hints) -> NamedNetwork:
    """Build a network of timm by its name, with a file of weights."""
    if hints.weights is None:
        raise InvalidParameterError(f"network = timm:{name}: give the file of its weights (--weights), or a directory")
    file = Path(hints.weights)
    with torch.device("meta"):
        outline = build_classifier("timm", name, {}, 1000)
        last = remove_last_linear(outline, name)
    count = classes_in_weights(last, file)
    facts: Any = outline.pretrained_cfg
    return _loaded("timm", name, {}, count, file, dict(facts), hints)


def _of_timm(path: Path, config: dict[str, Any], hints: Hints) -> NamedNetwork:
    count = config.get("num_classes")
    if not isinstance(count, int) or not 1 <= count <= 100_000:
        raise CheckpointError(f"{path / _CONFIG}: num_classes = {shown(count)}, expected the number of classes")
    settings = config.get("model_args", {})
    pixels = config.get("pretrained_cfg", {})
    if not isinstance(settings, dict) or not isinstance(pixels, dict):
        raise CheckpointError(f"{path / _CONFIG}: model_args or pretrained_cfg is no object of JSON")
    names = pixels.get("label_names") or config.get("label_names")
    return _loaded(
        "timm", config["architecture"], settings, count, _weights_in(path), {**pixels, "names": names}, hints
    )


def _of_transformers(path: Path, config: dict[str, Any], hints: Hints) -> NamedNetwork:
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not labels or not all(str(place) in labels for place in range(len(labels))):
        raise CheckpointError(f"{path / _CONFIG} names no classes (id2label): expected a classifier of images")
    pixels = _read(path / _PIXELS) or {}
    size = pixels.get("crop_size") or pixels.get("size") or {}
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    facts = {
        "mean": pixels.get("image_mean", IMAGENET_MEAN) if pixels.get("do_normalize", True) else (0.0,) * 3,
        "std": pixels.get("image_std", IMAGENET_STD) if pixels.get("do_normalize", True) else (1.0,) * 3,
        "input_size": None if not isinstance(size, int) else (3, size, size),
        "names": [labels[str(place)] for place in range(len(labels))],
    }
    return _loaded("transformers", "", config, len(labels), _weights_in(path), facts, hints)


def _loaded(
    source: SourceName, name: str, settings: dict[str, Any], count: int, file: Path, facts: dict[str, Any], hints: Hints
) -> NamedNetwork:
    """Build a classifier, load its weights, and read the facts of its pixels and classes."""
    settings = kept_settings(settings)
    if source == "transformers":
        model = _model_of_transformers(settings, count, file)
    else:
        model = _model_of_timm(name, settings, count, file)
    assumed: tuple[str, ...] = ()
    given = facts.get("input_size")
    size = hints.image_size or (given[-1] if isinstance(given, list | tuple) and given else None)
    if not isinstance(size, int) or not 8 <= size <= 1024:
        size, assumed = 224, ("its images are taken to have 224 x 224 pixels",)
    names = facts.get("names")
    classes: tuple[str, ...] | None = None
    if isinstance(names, list | tuple) and len(names) == count and len(set(map(str, names))) == count:
        classes = tuple(map(str, names))
    else:
        classes, guessed = named_classes(count)
        assumed += guessed
    taken = 2 * image_bytes(model.eval(), size)  # as `NetworkRunner.bytes_per_image` says
    network = checked_classifier(model, name or source, size, taken)
    mean, std = (_channels(what, facts.get(what)) for what in ("mean", "std"))
    return NamedNetwork(source, name, settings, network, classes, size, mean, std, assumed, taken)


def _model_of_timm(name: str, settings: dict[str, Any], count: int, file: Path) -> nn.Module:
    """Build a model with the weights of a file, which is compared with an outline first."""
    with torch.device("meta"):
        outline = build_classifier("timm", name, settings, count)
    expected = outline.state_dict()
    state = read_weights(file, lambda shapes: compare_shapes(shapes, expected))
    check_computed(outline, file.stat().st_size)
    model = build_classifier("timm", name, settings, count)
    set_weights(model, state, file)
    return model


def _model_of_transformers(settings: dict[str, Any], count: int, file: Path) -> nn.Module:
    """Load a model as transformers does, which knows the names that its weights had in earlier versions.

    So the names in the file are not compared before: only whether it has enough numbers.
    """
    with torch.device("meta"):
        outline = build_classifier("transformers", "", settings, count)
    needed = sum(one.numel() for one in outline.parameters())

    def check(shapes: Shapes) -> None:
        found = sum(math.prod(shape) for shape in shapes.values())
        if found < needed:
            raise ValueError(f"it has {found:,} numbers, expected {needed:,}")

    state = read_weights(file, check)
    check_computed(outline, file.stat().st_size)
    _, config = transformers_config(settings, count)
    kind_of_model: Any = type(outline)
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        model: nn.Module
        model, report = kind_of_model.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    except Exception as error:  # it raises errors of many types
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} does not hold weights of this network ({reason})") from None
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise CheckpointError(
                f"{file} does not hold weights of this network ({what.replace('_', ' ')}: {shown(min(report[what]))})"
            )
    return model


def _channels(what: str, value: Any) -> Channels:
    if value is None:
        return IMAGENET_MEAN if what == "mean" else IMAGENET_STD
    numbers = [one for one in value if isinstance(one, int | float)] if isinstance(value, list | tuple) else []
    if len(numbers) != 3 or not all(math.isfinite(one) for one in numbers) or (what == "std" and min(numbers) <= 0):
        raise CheckpointError(f"{what} = {shown(value)}, expected three numbers, one for each channel")
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))


def _weights_in(path: Path) -> Path:
    for name in _WEIGHTS:
        if (path / name).exists():
            return path / name
    raise CheckpointError(f"{path} has no weights: expected {' or '.join(_WEIGHTS)}, in one file")


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content = read_json(file, _CONFIG_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is no object of JSON")
    return content
