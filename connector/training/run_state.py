"""Write and read `training.safetensors`: the state after an epoch, from which a stopped training resumes.

The file is replaced atomically after every epoch, so after a crash it has the state of one epoch or of the next.
Tensors are in named groups (the network, the best weights, the optimiser); everything else is JSON in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from semcut.connector.data.tensor_files import read_tensor_file, require_finite
from semcut.indexes.errors import CheckpointError, shown
from semcut.indexes.storage.atomic_write import replacing

STATE = "training.safetensors"
_CONTENT = "semcut_training"

Tensors = Mapping[str, torch.Tensor]


def write_state(file: Path, groups: Mapping[str, Tensors], content: Mapping[str, Any]) -> None:
    """Write named groups of tensors, and content that JSON can hold, to the file, in one step.

    Raises:
        OSError: the disk refuses.
    """
    tensors = {
        f"{group}.{key}": value.detach().cpu().clone().contiguous()
        for group, tensors in groups.items()
        for key, value in tensors.items()
    }
    with replacing(file) as scratch:
        safetensors.torch.save_file(tensors, scratch, metadata={_CONTENT: json.dumps(content)})


def read_state(file: Path, max_bytes: int) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """Read the groups of tensors and the content that `write_state` wrote; empty groups are left out.

    Args:
        file: the file.
        max_bytes: its largest size.

    Raises:
        CheckpointError: the file cannot be read.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        stored = read_tensor_file(file, max_bytes)
        content = json.loads(stored.metadata[_CONTENT])
        parts = {"settings": dict, "metrics": list, "best": dict, "scaler": dict}
        if wrong := [name for name, kind in parts.items() if not isinstance(content[name], kind)]:
            raise ValueError(f"{wrong[0]} = {shown(content[wrong[0]])}")
        if not all(isinstance(epoch, dict) for epoch in content["metrics"]):
            raise ValueError(f"metrics = {shown(content['metrics'])}")
        tensors = safetensors.torch.load(stored.content)
        require_finite(tensors, file)
        for key, tensor in tensors.items():
            group, _, name = key.partition(".")
            groups.setdefault(group, {})[name] = tensor
    except Exception as error:  # safetensors raises errors of its own type and of others
        raise unusable(file, error) from None
    return groups, content


def unusable(file: Path, error: Exception) -> CheckpointError:
    """Make the error for a state that cannot be read, or does not fit the network."""
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return CheckpointError(f"{file} cannot be read ({reason}): delete it to train from the start")


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten the state of an optimiser to named tensors; "3.exp_avg" is the `exp_avg` of the parameter number 3."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Load the tensors of `optimiser_tensors` into an optimiser that has the same parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
