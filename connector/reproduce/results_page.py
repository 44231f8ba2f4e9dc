"""Everything that was measured in a directory of results, as one page with tables, and as files beside it.

results.md                    the page
PROTOCOL/figures.csv          a row per network, ranking and cutoff
PROTOCOL/categories.csv       a row per network, category and ranking
PROTOCOL/fig4.png, training.png
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from semcut.connector.data.protocols import PROTOCOLS
from semcut.connector.models.checkpoint import write_json
from semcut.connector.models.names import ProtocolName
from semcut.connector.reproduce import quality_plots, tables
from semcut.connector.reproduce.groups import Group, Metric, best, groups_of, headline
from semcut.connector.reproduce.measured import FILE, KS, Measured
from semcut.connector.training.loop import TrainConfig
from semcut.indexes.errors import DataError

PAGE, SPEED = "results.md", "speed.json"

_CONVENTIONS = f"""\
Average precision divides by all records of the query's class, found or not; AP@k by those that k places could hold.
Records at the same Hamming distance count as the mean over all their orders; codes are ranked over the whole database.
The epoch of a network is chosen on a part of its training images; queries are asked once. Every figure is the mean
over networks that differ in their seed alone, which also draws the protocol's images, with the sample standard
deviation behind ±. LSH and ITQ are codes of the same length of the same network's features. The fused ranking is by
R (1 - d), R the relevance and d the distance of features; a record with R not above t counts as missed.
precision, AP@{KS[0]} and AP@{KS[1]} of every network, ranking and cutoff are in the CSV files.
"""


def networks_in(out: Path) -> dict[ProtocolName, list[Measured]]:
    """What has been measured in a directory, by protocol.

    Raises:
        DataError: a file is damaged.
    """
    found = {name: [Measured.load(file) for file in sorted((out / name).glob(f"*/{FILE}"))] for name in PROTOCOLS}
    return {name: networks for name, networks in found.items() if networks}


def write(out: Path, commands: Sequence[str] = ()) -> Path:
    """Make the page and all files beside it.

    Args:
        out: a directory of results.
        commands: that measured them, for the page.

    Returns:
        Where the page is.

    Raises:
        DataError: nothing has been measured there.
    """
    measured = networks_in(out)
    if not measured:
        raise DataError(f"{out} holds no results: nothing has been measured there")
    made = f"Made on {date.today().isoformat()}" + (" by" if commands else ".")
    parts = ["# Retrieval quality", made, _console(commands), _CONVENTIONS.strip()]
    for name, networks in measured.items():
        groups = groups_of(networks)
        place = out / name
        (place / "figures.csv").write_text(tables.figures_csv(networks))
        (place / "categories.csv").write_text(tables.categories_csv(networks))
        (place / "training.png").write_bytes(quality_plots.training(groups))
        first = best(groups, headline(name))
        (place / "fig4.png").write_bytes(quality_plots.fig4(first))
        parts += _protocol(name, groups, first)
    if (out / SPEED).is_file():
        parts += _speed(json.loads((out / SPEED).read_text()))
    (out / PAGE).write_text("\n\n".join(part for part in parts if part) + "\n")
    return out / PAGE


def _protocol(name: ProtocolName, groups: Sequence[Group], first: Group) -> list[str]:
    about = first.about
    metrics = dict.fromkeys([headline(name), Metric(KS[0])])
    facts = (
        f"{about['training']:,} training images, {about['records']:,} records, {about['queries']:,} queries, "
        f"{len(about['classes'])} categories, {about['architecture']['bits']} bits."
    )
    return [
        f"## {name}",
        facts,
        _console([line for group in groups for line in training_commands(group)]),
        tables.ratios(groups).markdown(),
        *(tables.methods(groups, metric).markdown() for metric in metrics),
        tables.cutoffs(first).markdown(),
        f"![mAP and shares of the records against the cutoff]({name}/fig4.png)",
        tables.categories(groups).markdown(),
        tables.trainings(groups).markdown(),
        f"![Validation images against minutes of training]({name}/training.png)",
    ]


def training_commands(group: Group) -> list[str]:
    """The `semcut train` commands that a group's networks come from, a loop where there are several seeds."""
    about, seeds = group.about, " ".join(map(str, group.seeds))
    chain = [(about["architecture"], about["config"], about["weights"])]
    start = about["start"]
    while start is not None:
        chain.append((start["architecture"], start["config"], start["backbone_weights"]))
        start = start.get("start")
    names = ["NETWORK-$seed", "START-$seed", *(f"START{number}-$seed" for number in range(2, len(chain)))]
    commands = [
        _train(about["protocol"], *chain[place], names[place], names[place + 1] if place + 1 < len(chain) else None)
        for place in reversed(range(len(chain)))
    ]
    return [f"for seed in {seeds}; do {one}; done" for one in commands]


def _train(
    protocol: str,
    architecture: dict[str, Any],
    config: dict[str, Any],
    weights: str | None,
    out: str,
    start: str | None,
) -> str:
    usual = TrainConfig().model_dump(mode="json")
    options: dict[str, Any] = {
        "protocol": protocol,
        "head": architecture["head"],
        "backbone": architecture["backbone"],
        "weights": weights,
        "image-size": architecture["image_size"],
        "bits": architecture["bits"],
        "dim": architecture["dim"],
        "learning-rate": config["learning_rate"],
        "backbone-rate": config["backbone_rate"],
        "epochs": config["epochs"],
    }
    options |= {
        name.replace("_", "-"): value
        for name, value in config.items()
        if name not in ("seed", "device", "workers") and value != usual.get(name)
    }
    words = ["semcut", "train", "DATA"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return " ".join([shlex.join(words), *(["--start", start] if start else []), "--seed $seed --out", out])


def _console(commands: Sequence[str]) -> str:
    return "```console\n" + "\n".join(f"$ {command}" for command in commands) + "\n```" if commands else ""


def _speed(run: dict[str, Any]) -> list[str]:
    table = tables.speed(run)
    if table is None:
        return []
    machine, plan = (run["datasets"][0][name] for name in ("machine", "plan"))
    facts = (
        f"{machine['processor']}, {plan['threads']} threads, k = {plan['k']}. A batch is of {max(plan['batches']):,} "
        f"queries; of a method that would take over {plan['call_seconds']:g} s for them, of fewer."
    )
    return ["## Time by number of categories", facts, _console([run["command"]]), table.markdown()]


def keep_speed(out: Path, benchmark: Path) -> None:
    """Take the times by number of categories from a benchmark.

    Args:
        out: a directory of results.
        benchmark: what `semcut benchmark` wrote.

    Raises:
        DataError: it is not finished, or has no such times.
    """
    try:
        run = json.loads((benchmark / "run.json").read_text())
        table = tables.speed(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{benchmark} holds no finished benchmark ({error!r}): give what semcut benchmark wrote"
        ) from None
    if table is None:
        raise DataError(
            f"{benchmark} has no records of several numbers of classes: run semcut benchmark with --fitted 1e6x10 "
            "--fitted 1e6x100, and so on"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SPEED, run)
