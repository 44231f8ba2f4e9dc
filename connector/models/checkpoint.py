"""Save and load a trained network: a directory with the files `model.json` and `model.safetensors`.

`model.json`, the description, holds the architecture, how the network was trained, and the SHA-256 of the weights,
which are in `model.safetensors`. Each file is replaced atomically, the weights first and the description last. A crash
between the two leaves weights without a description or, if the directory had a checkpoint before, a description whose
SHA-256 does not match the weights. Loading either raises a clear error. An index records the SHA-256 of the weights of
the network that computed its codes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from semcut.connector.data.labels import MODEL
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes.errors import CheckpointError, SemcutError
from semcut.indexes.storage.atomic_write import replacing, write_json

WEIGHTS, TRAINING_IMAGES, METRICS = "model.safetensors", "training-images.txt", "metrics.jsonl"
VERSION = 2
_RENAMED = ("auxiliary.", "head.classifier.")
"""Prefixes of the names of the head's parameters: version 1 and this version. Version 1 has no temperature."""
_MAX_BYTES = 1 << 34


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    Attributes:
        path: directory of the checkpoint.
        net: the network, in evaluation mode, on the CPU.
        digest: SHA-256 of the weights.
        training: settings of the training, and metrics of the epoch that was kept.
    """

    path: Path
    net: SemanticHashNet
    digest: str
    training: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def save(
        path: Path, architecture: Architecture, weights: dict[str, torch.Tensor], training: dict[str, Any]
    ) -> None:
        """Write a checkpoint; replace the checkpoint that the directory had before, if any.

        Args:
            path: directory of the checkpoint; created if it does not exist.
            architecture: architecture of the network.
            weights: state dict of the network.
            training: settings and metrics of the training, as values that JSON can hold.
        """
        path.mkdir(parents=True, exist_ok=True)
        with replacing(path / WEIGHTS) as scratch:
            save_file({key: value.contiguous() for key, value in weights.items()}, scratch)
            digest = _digest(scratch)
        content = {
            "semcut_model": VERSION,
            "architecture": architecture.model_dump(mode="json"),
            "sha256": digest,
            "training": training,
        }
        write_json(path / MODEL, content)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Checkpoint:
        """Load a checkpoint, and check its version and the SHA-256 of its weights.

        Raises:
            CheckpointError: there is no checkpoint, it is damaged, or its weights do not fit its architecture.
        """
        path = Path(path)
        try:
            content = json.loads((path / MODEL).read_text())
            version, settings, expected = content["semcut_model"], content["architecture"], content["sha256"]
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{path} holds no model, because it has no {MODEL}: give the directory that training wrote"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path / MODEL} cannot be read as the description of a model: {error!r}") from None
        if version not in (1, VERSION):
            raise CheckpointError(f"{path} has model version {version} but this semcut reads versions 1 to {VERSION}")
        try:
            architecture = Architecture(**settings)
            net = SemanticHashNet(architecture)
        except (SemcutError, TypeError) as error:
            raise CheckpointError(f"{path / MODEL} describes a network that cannot be built: {error}") from None
        digest = _digest(path / WEIGHTS)
        if digest != expected:
            raise CheckpointError(
                f"{path / WEIGHTS} is damaged or belongs to another model: its SHA-256 differs from the one in {MODEL}"
            )
        try:
            state = load_file(path / WEIGHTS)
            if version == 1:
                state = {key.replace(*_RENAMED): value for key, value in state.items()}
                state["temperature"] = net.temperature
            net.load_state_dict(state)
        except Exception as error:  # safetensors and torch raise errors of many types
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{path / WEIGHTS} does not fit the architecture in {MODEL} ({architecture.backbone}, "
                f"{architecture.bits} bits, {len(architecture.classes)} classes): {reason}"
            ) from None
        return Checkpoint(path, net.eval(), digest, content.get("training", {}))

    def training_images(self) -> list[str]:
        """List the image files that the network was trained and validated on; empty if they were not recorded."""
        file = self.path / TRAINING_IMAGES
        return file.read_text().splitlines() if file.is_file() else []

    def epochs(self) -> list[dict[str, Any]]:
        """Read the metrics of every epoch of training; with a warm start, the epochs of the network before come first.

        Raises:
            CheckpointError: the metrics are missing or cannot be read.
        """
        try:
            earlier = self.training.get("start", {}).get("epochs", [])
            return [*earlier, *map(json.loads, (self.path / METRICS).read_text().splitlines())]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} does not say how its network was trained ({error!r}): give a directory that training "
                "has written"
            ) from None


def _digest(file: Path) -> str:
    """Compute the SHA-256 of a file.

    Raises:
        CheckpointError: the file cannot be read, or is larger than any model.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{file} is larger than {_MAX_BYTES >> 30} GiB: semcut did not write this model")
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()
