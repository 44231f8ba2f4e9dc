"""Write and read `training.safetensors`: the state after an epoch, from which a stopped training resumes.

The file is replaced atomically after every epoch, so after a crash it has the state of one epoch or of the next.
Tensors are in named groups (the network, the best weights, the optimiser); everything else is JSON in the metadata.

A run directory may come from someone else. `require_state_of` compares everything in the file with what the training
would have written, because torch accepts more: tensors of other types, or squares that are negative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from semcut.connector.data.tensor_files import compare_shapes, read_tensor_file, require_finite
from semcut.indexes.errors import CheckpointError, shown
from semcut.indexes.storage.atomic_write import replacing

STATE = "training.safetensors"
_TEXT_BYTES = 64 << 20
"""The most that a state has besides the network, its best weights and two moments of each weight."""
_CONTENT = "semcut_training"
_SCALER = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
_LARGEST = 1 << 48

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


def largest_state(net: Tensors) -> int:
    """Return the largest size in bytes of the state of a network, given by its tensors."""
    return 5 * sum(value.nbytes for value in net.values()) + _TEXT_BYTES


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
    return CheckpointError(f"{file} cannot be read ({reason}): train into another directory")


def require_same_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise an error unless the state in a run directory is of a training with the same settings and images.

    Args:
        path: the run directory.
        before: the settings in the state.
        now: the settings of the training that resumes, with `image_contents`, see `run_directory.contents_of`.

    Raises:
        CheckpointError: they differ.
    """
    different = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    if not different:
        return
    if "image_contents" in before and set(different) <= {"images", "image_contents"}:
        raise CheckpointError(
            f"the run in {path} was begun with other images, labels or names of files: resume with the same images, "
            "or train into another directory"
        )
    names = ", ".join(key if key in now else shown(key) for key in different[:5])
    raise CheckpointError(
        f"the run in {path} has other settings ({names}): resume with the same settings and the same version of "
        "semcut, or train into another directory"
    )


def require_state_of(
    groups: Mapping[str, Tensors],
    content: Mapping[str, Any],
    net: Tensors,
    optimiser: torch.optim.Optimizer,
    epochs: int,
) -> None:
    """Raise `ValueError` unless a state is one that a training with this network and AdamW can have.

    Args:
        groups, content: the state, from `read_state`.
        net: the tensors of the network.
        optimiser: the optimiser.
        epochs: the number of epochs of the whole training.
    """
    if unknown := groups.keys() - {"net", "best", "optimiser"}:
        raise ValueError(f"it has an unknown group {shown(min(unknown))}")
    for group in ("net", "best"):
        found = groups.get(group, {})
        _compare(found, net)
        for key, value in found.items():
            lowest = 0 if key.endswith("running_var") else -_LARGEST
            if value.numel() and not lowest <= float(value.min()) <= float(value.max()) <= _LARGEST:
                raise ValueError(f"{key} has numbers that no training reaches")
        if "temperature" in found and float(found["temperature"]) != 1:  # calibration follows the last state
            raise ValueError(f"its temperature is {float(found['temperature'])}, expected 1")
    _check_optimiser(groups.get("optimiser", {}), [p for part in optimiser.param_groups for p in part["params"]])
    _check_metrics(content["metrics"], content["best"], epochs)
    scaler = content["scaler"]
    if scaler and (scaler.keys() != _SCALER or not all(_is_number(value) and value >= 0 for value in scaler.values())):
        raise ValueError(f"scaler = {shown(scaler)}")


def _compare(found: Tensors, expected: Tensors) -> None:
    compare_shapes({key: tuple(value.shape) for key, value in found.items()}, expected)
    for key, value in found.items():
        if value.dtype != expected[key].dtype:
            raise ValueError(f"{key} is of type {value.dtype}, expected {expected[key].dtype}")


def _check_optimiser(found: Tensors, parameters: Sequence[torch.Tensor]) -> None:
    """Check the two moments and the number of steps of every parameter that has them; frozen ones have none."""
    numbers = {key.partition(".")[0] for key in found}
    expected: dict[str, torch.Tensor] = {}
    for number, parameter in enumerate(parameters):
        if str(number) in numbers:
            moments = dict.fromkeys((f"{number}.exp_avg", f"{number}.exp_avg_sq"), parameter)
            expected |= {f"{number}.step": torch.zeros(()), **moments}
    _compare(found, expected)
    for key, value in found.items():
        if key.endswith("exp_avg_sq") and bool((value < 0).any()):
            raise ValueError(f"{key} has a square below 0")
        if key.endswith("step") and not 1 <= float(value) <= _LARGEST:
            raise ValueError(f"{key} is {float(value)}, expected 1 or more")


def _check_metrics(metrics: Sequence[Mapping[str, Any]], best: Mapping[str, Any], epochs: int) -> None:
    """Check that the metrics are numbers, one line for each epoch, and that the best are those of an epoch."""
    if not 1 <= len(metrics) <= epochs:
        raise ValueError(f"it has {len(metrics):,} epochs, expected 1 to {epochs:,}")
    if [line.get("epoch") for line in metrics] != list(range(1, len(metrics) + 1)):
        raise ValueError("its epochs are not in order")
    values = [value for line in metrics for value in line.values()]
    if not all(type(value) is float or (type(value) is int and abs(value) <= _LARGEST) for value in values):
        raise ValueError("its metrics are not numbers")
    lines = [json.dumps({key: line[key] for key in line if key != "seconds"}, sort_keys=True) for line in metrics]
    if json.dumps(best, sort_keys=True) not in lines:  # as text, in which NaN is equal to itself
        raise ValueError("its best metrics are those of no epoch")
    if len({frozenset(line) for line in metrics}) > 1:
        raise ValueError("its epochs have different metrics")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST and math.isfinite(value)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten the state of an optimiser to named tensors; "3.exp_avg" is the `exp_avg` of the parameter number 3."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Load tensors of `optimiser_tensors`, which `require_state_of` has checked, into an optimiser."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
