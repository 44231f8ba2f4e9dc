"""`training.safetensors`: all that decides how a training goes on, written in one step after every epoch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from semcut.indexes.errors import CheckpointError

_CONTENT = "semcut_training"

Tensors = Mapping[str, torch.Tensor]


def write_state(file: Path, groups: Mapping[str, Tensors], content: Mapping[str, Any]) -> None:
    """Write tensors in named groups, and what JSON can say; the file appears whole or not at all."""
    scratch = file.with_name(f"{file.name}.new")
    save_file(
        {
            f"{group}.{key}": value.detach().cpu().clone().contiguous()
            for group, tensors in groups.items()
            for key, value in tensors.items()
        },
        scratch,
        metadata={_CONTENT: json.dumps(content)},
    )
    os.replace(scratch, file)


def read_state(file: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """What `write_state` has written; empty groups are not there.

    Raises:
        CheckpointError: the file cannot be read.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {}
    try:
        with safe_open(file, "pt") as stored:
            content = json.loads(stored.metadata()[_CONTENT])
            for key in stored.keys():  # noqa: SIM118
                group, _, name = key.partition(".")
                groups.setdefault(group, {})[name] = stored.get_tensor(key)
    except Exception as error:  # safetensors has an error type of its own for broken files
        raise CheckpointError(f"{file} cannot be read ({error}): delete it to train from the start") from None
    return groups, content
