"""Save and load a trained network: a directory with the files `model.json` and `model.safetensors`.

`model.json`, the description, is defined in `data.model_file`; the weights are in `model.safetensors`. Each file is
replaced atomically, the weights first and the description last. A crash between the two leaves weights without a
description or, if the directory had a checkpoint before, a description whose SHA-256 does not match the weights.
Loading either raises a clear error. An index records the digest of the network that computed its codes.

A checkpoint may come from someone else. The names and shapes of all weights are compared with an outline of the network
before the weights are read, and they become the network's own, so loading takes memory in proportion to their file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from semcut.connector.data.model_file import MODEL, VERSION, WEIGHTS, encoding_digest, read_model_file, sha256_of
from semcut.connector.data.tensor_files import Shapes, as_stored, compare_shapes, read_tensor_file, require_finite
from semcut.connector.data.training_digests import TRAINING_DIGESTS, TrainingDigests, read_digests
from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet
from semcut.connector.models.classification_models import check_computed
from semcut.connector.models.image_network import (
    ImageArchitecture,
    ImageNetwork,
    described_architecture,
    description_version,
    encoding_facts,
    outline_of,
)
from semcut.connector.models.network import SemanticHashNet
from semcut.connector.models.trusted_networks import require_trust
from semcut.indexes.argument_checks import instance_given, path_given, possible_path_given, text_given
from semcut.indexes.errors import CheckpointError, InvalidParameterError, SemcutError, shown
from semcut.indexes.regular_files import open_binary, read_bytes
from semcut.indexes.storage.atomic_write import replacing, write_json

TRAINING_IMAGES, METRICS = "training-images.txt", "metrics.jsonl"
_RENAMED = ("auxiliary.", "head.classifier.")
"""Prefixes of the names of the head's parameters: version 1 and this version. Version 1 has no temperature."""
_MAX_BYTES = 1 << 34
_IMAGES_BYTES, _METRICS_BYTES = 256 << 20, 16 << 20
"""The largest lists of training images and of metrics."""
MOST_IMAGES, _MOST_EPOCHS = 2_000_000, 50_000
"""What they may hold, since a byte can become an object of a hundred."""


NETWORK_FILES = (WEIGHTS, TRAINING_IMAGES, TRAINING_DIGESTS, METRICS, MODEL)
"""The files of a network, in the order in which they are copied: the description last."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses in a run directory into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path} cannot be used: {error.strerror or error}") from None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    Attributes:
        path: directory of the checkpoint.
        net: the network, in evaluation mode, on the CPU.
        digest: identity of the network, see `data.model_file`; of versions 1 and 2 the SHA-256 of the weights.
        training: settings of the training, and metrics of the epoch that was kept.
    """

    path: Path
    net: ImageNetwork
    digest: str
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", path_given("path", self.path))
        if not isinstance(self.net, AdoptedNet):
            instance_given("net", self.net, SemanticHashNet)
        text_given("digest", self.digest)
        instance_given("training", self.training, dict)

    @staticmethod
    def save(
        path: str | os.PathLike[str],
        architecture: ImageArchitecture,
        weights: dict[str, torch.Tensor],
        training: dict[str, Any],
    ) -> str:
        """Write a checkpoint; replace the checkpoint that the directory had before, if any.

        Returns the digest of the network that was given, whatever the directory has afterwards.

        Args:
            path: directory of the checkpoint; created if it does not exist.
            architecture: architecture of the network.
            weights: state dict of the network.
            training: settings and metrics of the training, as values that JSON can hold.

        Raises:
            CheckpointError: the weights are not those of the architecture, or the disk refuses.
            InvalidParameterError: an argument is of another type, or JSON cannot hold the training.
        """
        path = Path(possible_path_given("path", path))
        _check_weights(weights, architecture)
        _check_json("training", training)
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            with replacing(path / WEIGHTS) as scratch:
                safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, scratch)
                digest = sha256_of(scratch)
            content = {
                "semcut_model": description_version(architecture),
                "architecture": architecture.model_dump(mode="json"),
                **encoding_facts(architecture),
                "weights": digest,
                "training": training,
            }
            own = encoding_digest(content)
            write_json(path / MODEL, {**content, "sha256": own})
        return own

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Checkpoint:
        """Load a checkpoint, and check its version and its digest.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged or was changed, its weights do not fit its
                architecture, or are not finite.
            InvalidParameterError: `path` is no path.
        """
        path = path_given("path", path)
        content = read_model_file(path)
        version = content["semcut_model"]
        weights_digest = content["weights"] if version >= VERSION else content["sha256"]
        try:
            architecture = described_architecture(content)
            if isinstance(architecture, AdoptedArchitecture):
                require_trust(content["sha256"], architecture.source, path)
            net = outline_of(architecture)
        except CheckpointError:
            raise
        except (SemcutError, TypeError) as error:
            raise CheckpointError(f"{path / MODEL} describes a network that cannot be built: {error}") from None
        expected = net.state_dict()

        def check(shapes: Shapes, metadata: Mapping[str, str]) -> None:
            found = {_current_name(key, version): shape for key, shape in shapes.items()}
            compare_shapes({"temperature": (), **found} if version == 1 else found, expected)

        try:
            file = read_tensor_file(path / WEIGHTS, _MAX_BYTES, check=check)
            if hashlib.sha256(file.content).hexdigest() != weights_digest:
                raise CheckpointError(
                    f"{path / WEIGHTS} is damaged or belongs to another model: its SHA-256 differs from the one in "
                    f"{MODEL}"
                )
            state = safetensors.torch.load(file.content)
            size = len(file.content)
            del file
            state = {_current_name(key, version): value for key, value in state.items()}
            if version == 1:
                state["temperature"] = torch.ones(())
            state = as_stored(state, expected)
            require_finite(state, path / WEIGHTS)
            if isinstance(net, AdoptedNet) and any(one.is_meta for one in net.buffers() if one.numel()):
                check_computed(net, size)
                net = AdoptedNet(net.architecture)  # has tensors that no file has, which only building it computes
            net.load_state_dict(state, assign=True)
        except OSError as error:
            raise CheckpointError(f"cannot read {path / WEIGHTS}: {error.strerror or error}") from None
        except CheckpointError:
            raise
        except Exception as error:  # safetensors and torch raise errors of many types
            raise _does_not_fit(path, architecture, error) from None
        if not net.temperature > 0:
            raise CheckpointError(f"{path / WEIGHTS} has temperature {float(net.temperature)}, expected more than 0")
        facts = encoding_facts(architecture)
        if version >= VERSION and facts != {name: content[name] for name in facts}:
            raise CheckpointError(
                f"{path / MODEL} was written for another normalisation or binarisation than this version of semcut has "
                f"for {architecture.backbone} and {architecture.head}: use the version that trained the network"
            )
        return Checkpoint(path, net.eval(), content["sha256"], content["training"])

    def training_images(self) -> list[str]:
        """List the image files that the network was trained and validated on; empty if they were not recorded.

        Raises:
            CheckpointError: the list cannot be read.
        """
        file = self.path / TRAINING_IMAGES
        try:
            return [line.decode("utf-8", "surrogateescape") for line in _lines(file, _IMAGES_BYTES, MOST_IMAGES)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None

    def training_digests(self) -> TrainingDigests:
        """Read the digests of the images that the network was trained and validated on.

        Raises:
            CheckpointError: they were not recorded, or cannot be read.
        """
        return read_digests(self.path)

    def epochs(self) -> list[dict[str, Any]]:
        """Read the metrics of every epoch of training; with a warm start, the epochs of the network before come first.

        Raises:
            CheckpointError: the metrics are missing or cannot be read.
        """
        file = self.path / METRICS
        try:
            found = [json.loads(line) for line in _lines(file, _METRICS_BYTES, _MOST_EPOCHS)]
            start = self.training.get("start", {})
            before = start.get("epochs", []) if isinstance(start, dict) else None
            if not isinstance(before, list) or not all(isinstance(epoch, dict) for epoch in (*before, *found)):
                raise ValueError("a line, or what it started from, describes no epoch")
            if len(before) + len(found) > _MOST_EPOCHS:
                raise ValueError(f"with those before, it has more than {_MOST_EPOCHS:,} epochs")
            return [*before, *found]
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{self.path} does not say how its network was trained ({METRICS}: "
                f"{getattr(error, 'strerror', None) or error}): give a directory that training has written"
            ) from None


def copy_network(source: Path, place: Path) -> None:
    """Copy the files of a network, and the record of its training if there is one, to another directory.

    Raises:
        CheckpointError: the disk refuses.
    """
    with disk_errors(place):
        for name in NETWORK_FILES:
            if (source / name).is_file():
                with (
                    open_binary(source / name) as read,
                    replacing(place / name) as scratch,
                    open(scratch, "wb") as write,
                ):
                    shutil.copyfileobj(read, write)


def delete_network(place: Path) -> None:
    """Delete the files of a network that `copy_network` wrote, as far as that is possible."""
    for name in reversed(NETWORK_FILES):
        with suppress(OSError):
            (place / name).unlink(missing_ok=True)


def _lines(file: Path, max_bytes: int, most: int) -> list[bytes]:
    """Read the lines of a file; `ValueError` if there are more than `most`, before they are split."""
    content = read_bytes(file, max_bytes)
    count = content.count(b"\n")
    if count > most:
        raise ValueError(f"it has {count:,} lines, expected at most {most:,}")
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _check_weights(weights: dict[str, torch.Tensor], architecture: ImageArchitecture) -> None:
    """Raise an error unless the weights are those of a network of the architecture."""
    instance_given("weights", weights, dict, "net.state_dict() returns one")
    for name, value in weights.items():
        instance_given(f"weights[{shown(name)}]", value, torch.Tensor)
    try:
        shapes = {str(name): tuple(value.shape) for name, value in weights.items()}
        compare_shapes(shapes, outline_of(architecture).state_dict())
    except ValueError as error:
        raise CheckpointError(f"the weights are not those of the architecture: {error}") from None


def _check_json(name: str, value: dict[str, Any]) -> None:
    """Raise an error unless a dictionary can be stored as JSON."""
    instance_given(name, value, dict)
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(f"{name} = {shown(value)}, expected values that JSON can hold ({error})") from None


def _current_name(name: str, version: int) -> str:
    """Return the name that a parameter has now."""
    return name.replace(*_RENAMED) if version == 1 else name


def _does_not_fit(path: Path, architecture: ImageArchitecture, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(
        f"{path / WEIGHTS} does not fit the architecture in {MODEL} ({architecture.backbone}, "
        f"{architecture.bits} bits, {len(architecture.classes)} classes): {reason}"
    )
