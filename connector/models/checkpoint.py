"""A trained network on disk: `model.json` beside `model.safetensors`, in a directory of their own.

`model.json` holds the architecture, how the network was trained and the SHA-256 of the weights. It is written last and
in one step, so a directory with a `model.json` holds a whole model. The digest is also what ties an index to the
network that made its codes.
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

WEIGHTS, TRAINING_IMAGES, METRICS = "model.safetensors", "training-images.txt", "metrics.jsonl"
VERSION = 2
_RENAMED = ("auxiliary.", "head.classifier.")
"""What version 1 called the parameters of its head, and what they are called now; it knew no temperature."""
_MAX_BYTES = 1 << 34


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network.

    Attributes:
        path: its directory.
        net: the network, in evaluation mode, on the CPU.
        digest: SHA-256 of its weights.
        training: settings, and the metrics of the epoch that was kept.
    """

    path: Path
    net: SemanticHashNet
    digest: str
    training: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def save(
        path: Path, architecture: Architecture, weights: dict[str, torch.Tensor], training: dict[str, Any]
    ) -> None:
        """Write a checkpoint, over an older one if there is one.

        Args:
            path: a directory, made if it is not there.
            architecture: of the network.
            weights: its state.
            training: anything JSON can hold.
        """
        path.mkdir(parents=True, exist_ok=True)
        scratch = path / f"{WEIGHTS}.new"
        save_file({key: value.contiguous() for key, value in weights.items()}, scratch)
        content = {
            "semcut_model": VERSION,
            "architecture": architecture.model_dump(mode="json"),
            "sha256": _digest(scratch),
            "training": training,
        }
        os.replace(scratch, path / WEIGHTS)
        write_json(path / MODEL, content)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            CheckpointError: there is none, it is damaged, or its weights are those of another architecture.
        """
        path = Path(path)
        try:
            content = json.loads((path / MODEL).read_text())
            version, settings, expected = content["semcut_model"], content["architecture"], content["sha256"]
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(
                f"{path} holds no model: it has no {MODEL}; give the directory that training wrote"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path / MODEL} cannot be read as a model's description: {error!r}") from None
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
                f"{path / WEIGHTS} is damaged or belongs to another model: its SHA-256 is not the one in {MODEL}"
            )
        try:
            state = load_file(path / WEIGHTS)
            if version == 1:
                state = {key.replace(*_RENAMED): value for key, value in state.items()}
                state["temperature"] = net.temperature
            net.load_state_dict(state)
        except Exception as error:  # safetensors and torch complain in their own ways
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{path / WEIGHTS} does not fit the architecture in {MODEL} ({architecture.backbone}, "
                f"{architecture.bits} bits, {len(architecture.classes)} classes): {reason}"
            ) from None
        return Checkpoint(path, net.eval(), digest, content.get("training", {}))

    def training_images(self) -> list[str]:
        """The image files that it was trained and validated on; empty if that was not recorded."""
        file = self.path / TRAINING_IMAGES
        return file.read_text().splitlines() if file.is_file() else []

    def epochs(self) -> list[dict[str, Any]]:
        """What was measured after every epoch of training, first of those of the network that it started from.

        Raises:
            CheckpointError: that was not recorded.
        """
        try:
            before = self.training.get("start", {}).get("epochs", [])
            return [*before, *map(json.loads, (self.path / METRICS).read_text().splitlines())]
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} does not say how its network was trained ({error!r}): give a directory that training "
                "has written"
            ) from None


def write_json(path: Path, content: object) -> None:
    """Write JSON in one step: the file has its old or its new content, whatever happens."""
    scratch = path.with_name(path.name + ".new")
    with scratch.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, path)


def _digest(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{file} is larger than {_MAX_BYTES >> 30} GiB, no model that semcut writes is")
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()
