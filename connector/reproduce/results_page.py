"""Write the page of a directory of results, with tables of all measurements, and the files that belong to the page.

These files are written to the directory of results:

    results.md                                     the page
    speed.json                                     times from a benchmark, kept for the page
    PROTOCOL/figures.csv, PROTOCOL/categories.csv  the figures, see `csv_files`
    PROTOCOL/fig4.png, PROTOCOL/training.png       the pictures, see `quality_plots`
    FORM/figures.csv, FORM/fig4.png                the same of a set with ground truth, see `truth_section`
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from semcut.connector.data import ProtocolName
from semcut.connector.data.protocols import PROTOCOLS
from semcut.connector.reproduce import csv_files, quality_plots, tables
from semcut.connector.reproduce.markdown_text import console, is_command, plain
from semcut.connector.reproduce.method_groups import Group, Metric, best_group, group_networks, headline_metric
from semcut.connector.reproduce.network_measurements import FIGURES_FILE, KS, Measurement
from semcut.connector.reproduce.results_folder import PAGE_FILES, begin_results, check_results
from semcut.connector.reproduce.training_commands import training_commands
from semcut.connector.reproduce.truth_section import truth_sections, truths_in
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import JSON_BYTES, read_json
from semcut.indexes.storage.atomic_write import write_file

PAGE, SPEED = "results.md", "speed.json"

MOST_NETWORKS, MOST_CATEGORIES = 1000, 200_000
"""The most networks in a directory of results, and the most categories, counting those of each network."""
MOST_BYTES = 2 << 30
"""The most bytes of the figures of all networks, which are in memory together."""

_MOST_DATASETS = 50
"""The most data sets of a benchmark, as `semcut benchmark` has."""

_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading and showing the figures of a benchmark raises if they have another form."""

_CONVENTIONS = f"""\
AP@all divides by the number of all records of the query's class, found or not; AP@k divides by that number or by k,
whichever is smaller. For records at the same Hamming distance, AP is the mean over all their orders. Codes are ranked
over the whole database. The epoch of a network is chosen by images held out from its training images; queries are used
only for these tables. Every figure is the mean over networks that differ only in their seed, with the sample standard
deviation after ±; the images that a protocol draws depend on the seed too. LSH and ITQ are codes of the same length,
computed from the features of the same network. The fused ranking is by R (1 - d), with R the relevance and d the
distance of features, scaled to [0, 1]. A record of the query's class counts as missed if its R is not above the cutoff
t. The CSV files have precision, AP@{KS[0]} and AP@{KS[1]} of every network, ranking and cutoff.
"""


def networks_in(out: Path) -> dict[ProtocolName, list[Measurement]]:
    """Read the measurements in a directory of results, by protocol.

    Raises:
        DataError: a file is damaged, or has the figures of another network or protocol than its path says; or there
            are more networks, or more categories of them, than a page may have.
    """
    files = {name: sorted((out / name).glob(f"*/{FIGURES_FILE}")) for name in PROTOCOLS}
    _check_size(out, [file for found in files.values() for file in found])
    return {name: [Measurement.load(file) for file in found] for name, found in files.items() if found}


def _check_size(out: Path, files: Sequence[Path]) -> None:
    """Raise `DataError` if these files have too many figures for a page; no array is read."""
    if len(files) > MOST_NETWORKS:
        raise DataError(
            f"{out} has {len(files):,} networks, expected at most {MOST_NETWORKS:,}: use several directories"
        )
    size = sum(os.lstat(file).st_size for file in files)
    if size > MOST_BYTES:
        raise DataError(
            f"the figures in {out} have {size:,} bytes, expected at most {MOST_BYTES:,}: use several directories"
        )
    categories = 0
    for file in files:
        categories += Measurement.count_classes(file)
        if categories > MOST_CATEGORIES:
            raise DataError(
                f"the networks in {out} have more than {MOST_CATEGORIES:,} categories, counting those of each: use "
                "several directories"
            )


def write(out: Path, commands: Sequence[str] = ()) -> Path:
    """Write the page, its pictures and its CSV files.

    Args:
        out: a directory of results.
        commands: the commands that measured the networks; the page lists them.

    Returns:
        Path of the page.

    Raises:
        DataError: the directory holds no measurements, or is none of results, or a file in it is damaged.
    """
    check_results(out)
    networks_by_protocol, truths = networks_in(out), truths_in(out)
    if not networks_by_protocol and not truths:
        raise DataError(f"{out} holds no results: no network was measured there")
    speed = _read_speed(out) if os.path.lexists(out / SPEED) else []
    made = f"Made on {date.today().isoformat()}" + (" by" if commands else ".")
    parts = ["# Retrieval quality", made, console(commands), *([_CONVENTIONS.strip()] if networks_by_protocol else [])]
    sections, files = truth_sections(out, truths)
    for name, networks in networks_by_protocol.items():
        groups = group_networks(networks)
        best = best_group(groups, headline_metric(name))
        contents: tuple[bytes | str, ...] = (
            csv_files.figures_csv(networks),
            csv_files.categories_csv(networks),
            quality_plots.training(groups),
            quality_plots.fig4(best),
        )
        files |= {out / name / file: content for file, content in zip(PAGE_FILES, contents, strict=True)}
        parts += _protocol(name, groups, best)
    parts += [*sections, *speed]
    for path, content in files.items():
        write_file(path, content)
    write_file(out / PAGE, "\n\n".join(part for part in parts if part) + "\n")
    return out / PAGE


def _read_speed(out: Path) -> list[str]:
    try:
        run: Any = read_json(out / SPEED)
        return _speed(run)
    except _DAMAGE as error:
        raise DataError(f"{out / SPEED} cannot be read ({_reason(error)}): give --speed again") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or shown(error)


def keep_speed(out: Path, benchmark: Path) -> None:
    """Copy the figures of a benchmark, for the table of times, into a directory of results.

    Args:
        out: the directory of results.
        benchmark: the directory that `semcut benchmark` wrote.

    Raises:
        DataError: the benchmark is not finished, or has no records of several numbers of classes.
    """
    try:
        run: Any = read_json(benchmark / "run.json")
        _speed(run)
        table = tables.speed(run)
        content = json.dumps(run, indent=2) + "\n"
        if len(content) > JSON_BYTES:
            raise ValueError(f"its figures have more than {JSON_BYTES:,} bytes")
    except _DAMAGE as error:
        raise DataError(
            f"{benchmark} holds no finished benchmark ({_reason(error)}): give the directory that semcut benchmark "
            "wrote"
        ) from None
    if table is None:
        raise DataError(
            f"{benchmark} has no records of several numbers of classes: run semcut benchmark with --fitted 1e6x10 "
            "--fitted 1e6x100, and so on"
        )
    begin_results(out)
    write_file(out / SPEED, content)


def _protocol(name: ProtocolName, groups: Sequence[Group[Measurement]], best: Group[Measurement]) -> list[str]:
    """Write the section of a protocol, as a list of paragraphs."""
    about = best.about
    metrics = dict.fromkeys([headline_metric(name), Metric(KS[0])])
    facts = (
        f"{about['training']:,} training images, {about['records']:,} records, {about['queries']:,} queries, "
        f"{len(about['classes'])} categories, {about['architecture']['bits']} bits."
    )
    return [
        f"## {name}",
        facts,
        console([command for group in groups for command in training_commands(group)]),
        tables.ratios(groups).markdown(),
        *(tables.methods(groups, metric).markdown() for metric in metrics),
        tables.cutoffs(best).markdown(),
        f"![mAP and shares of the records against the cutoff]({name}/fig4.png)",
        tables.categories(groups).markdown(),
        tables.trainings(groups).markdown(),
        f"![Validation images against minutes of training]({name}/training.png)",
    ]


def _speed(run: dict[str, Any]) -> list[str]:
    """Write the section about time, as a list of paragraphs; empty if the benchmark does not give such a table."""
    if len(run["datasets"]) > _MOST_DATASETS:
        raise ValueError(f"it has {len(run['datasets']):,} data sets, expected at most {_MOST_DATASETS}")
    table = tables.speed(run)
    if table is None:
        return []
    machine, plan = (run["datasets"][0][name] for name in ("machine", "plan"))
    facts = (
        f"{machine['processor']}, {plan['threads']} threads, k = {plan['k']}. A batch has {max(plan['batches']):,} "
        f"queries, or fewer for a method that would take over {plan['call_seconds']:g} s for them."
    )
    command = run["command"]
    commands = [command] if is_command(command, "semcut", "benchmark") else []
    return [
        "## Time by number of categories",
        plain(facts),
        console(commands),
        table.markdown(),
    ]
