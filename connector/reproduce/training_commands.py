"""Write the `semcut train` commands that trained the networks, so that a reader of the page can train them again."""

from __future__ import annotations

import shlex
from typing import Any

from semcut.connector.reproduce.method_groups import Group
from semcut.connector.reproduce.network_measurements import Measurement
from semcut.connector.training.train_config import TrainConfig

_ALWAYS_SHOWN = ("learning_rate", "backbone_rate", "epochs")
_NEVER_SHOWN = ("seed", "device", "workers")  # the loop over seeds shows them; the others do not change the network


def training_commands(group: Group[Measurement]) -> list[str]:
    """Write the commands that trained the networks of a group, each a loop over the seeds; warm starts come first."""
    about, seeds = group.about, " ".join(map(str, group.seeds))
    chain = [(about["architecture"], about["config"], about["weights"])]
    start = about["start"]
    while start is not None:
        chain.append((start["architecture"], start["config"], start["backbone_weights"]))
        start = start.get("start")
    names = ["NETWORK-$seed", "START-$seed", *(f"START{number}-$seed" for number in range(2, len(chain)))]
    commands = [
        _command(about["protocol"], *chain[place], names[place], names[place + 1] if place + 1 < len(chain) else None)
        for place in reversed(range(len(chain)))
    ]
    return [f"for seed in {seeds}; do {command}; done" for command in commands]


def _command(
    protocol: str,
    architecture: dict[str, Any],
    config: dict[str, Any],
    weights: str | None,
    out: str,
    start: str | None,
) -> str:
    """Write one command, with all options that differ from their defaults and some that are always shown."""
    defaults = TrainConfig().model_dump(mode="json")
    options: dict[str, Any] = {
        "protocol": protocol,
        "head": architecture["head"],
        "backbone": architecture["backbone"],
        "weights": weights,
        "image-size": architecture["image_size"],
        "bits": architecture["bits"],
        "dim": architecture["dim"],
        "pooling": architecture.get("pooling"),
        **{name.replace("_", "-"): config[name] for name in _ALWAYS_SHOWN},
    }
    options |= {
        name.replace("_", "-"): value
        for name, value in config.items()
        if name not in _NEVER_SHOWN and value != defaults.get(name)
    }
    words = ["semcut", "train", "DATA"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return " ".join([shlex.join(words), *(["--start", start] if start else []), "--seed $seed --out", out])
