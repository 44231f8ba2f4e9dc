"""`semcut reproduce`: measures networks by a protocol and writes the page that compares them with the paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.image_options import protocol_option
from semcut.connector.cli.options import PATH, SOURCE, device_option, json_option
from semcut.connector.cli.terminal import OUT, new_table, print_json, print_line, progress_bar
from semcut.connector.cli.truth_options import TruthSource, ground_truth_option
from semcut.connector.data import ProtocolName
from semcut.connector.models.device import keep_freed_memory
from semcut.indexes.errors import DataError, require

if TYPE_CHECKING:
    from semcut.connector.reproduce.tables import Table

require({"matplotlib": "matplotlib"}, "draw figures", "benchmark")


@click.command()
@click.argument("out", type=PATH)
@click.argument("networks", type=PATH, nargs=-1)
@click.option(
    "--data",
    type=SOURCE,
    metavar="TEXT",
    help="Data set that the networks were trained on, with folders train and test, or train and val; with "
    "--ground-truth, the images of the set.",
)
@protocol_option
@ground_truth_option("Measure searches for the same thing, in place of a protocol.")
@click.option(
    "--speed",
    type=PATH,
    help="Directory of a benchmark with several numbers of classes, for Table III: time per query.",
)
@device_option
@json_option
def reproduce(
    out: Path, networks: tuple[Path, ...], data: str | None, protocol: ProtocolName | None,
    ground_truth: TruthSource | None, speed: Path | None, device: str, as_json: bool,
) -> None:  # fmt: skip
    """Make the paper's tables from trained NETWORKS.

    Every network must have been trained with --protocol. For each network, the command indexes the images of the
    protocol, searches with all queries and measures the results. The figures are stored in the directory OUT, and a
    network with figures in OUT is not measured again. Networks that differ only in their seed are reported as one
    method, with mean and spread. The page OUT/results.md has the tables and Fig. 4 of all networks measured in OUT.
    OUT must be new, empty, or a directory that this command made.

    With --ground-truth, networks may have been trained or adopted in any way. The command indexes the images that a
    network was not trained on, calibrates the index by copies, and also measures what that choice finds, and the time
    of a query.
    """
    if protocol is not None and ground_truth is not None:
        raise click.UsageError("--ground-truth determines queries and right records: leave out --protocol")
    if networks and (data is None or (protocol is None and ground_truth is None)):
        raise click.UsageError("measuring networks needs --data, and --protocol or --ground-truth: give both")
    from semcut.connector.reproduce import judged_tables, results_page, tables, truth_section
    from semcut.connector.reproduce.measure_network import measure_network
    from semcut.connector.reproduce.measure_truth import measure_truth
    from semcut.connector.reproduce.method_groups import group_networks, headline_metric
    from semcut.connector.reproduce.results_folder import check_results, record_command, recorded_commands

    check_results(out)
    command = _own_command()
    if speed is not None:
        results_page.keep_speed(out, speed)
    keep_freed_memory()
    if data is not None:
        with progress_bar("Measuring") as progress:
            for network in networks:
                if protocol is not None:
                    measure_network(network, data, protocol, out, device=device, progress=progress)
                elif ground_truth is not None:
                    measure_truth(network, data, *ground_truth, out, device=device, progress=progress)
    page = results_page.write(out, record_command(out, command) if networks or speed else recorded_commands(out))
    if as_json:
        print_json({"page": str(page), "networks": _summary(out), "sets": _summary_of_sets(out)})
        return
    for name, measured in results_page.networks_in(out).items():
        _show(name, tables.methods(group_networks(measured), headline_metric(name)))
    for form, sets in truth_section.truths_in(out).items():
        groups = judged_tables.truth_groups(sets)
        for level in judged_tables.levels(groups):
            _show(form, judged_tables.landmarks(groups, level))
    print_line("")
    print_line(f"Page: {page}")


def _show(name: str, table: Table) -> None:
    """Print a table of a protocol or a set."""
    shown = new_table(*table.columns, title=f"{name}, {table.title}")
    for row in table.rows:
        shown.add_row(*row)
    OUT.print(shown)


def _own_command() -> str:
    """Write the running command.

    Raises:
        DataError: the page cannot show it.
    """
    from semcut.connector.reproduce.markdown_text import command_of, is_command

    command = command_of("semcut", "reproduce", *sys.argv[2 if sys.argv[1:2] == ["reproduce"] else 1 :])
    if not is_command(command):
        raise DataError("the command is too long for the page, or has ```: give fewer networks, or other names")
    return command


def _summary(out: Path) -> list[dict[str, object]]:
    """Return name, accuracy and mAP of every network that was measured in a directory of results."""
    from semcut.connector.reproduce import results_page
    from semcut.connector.reproduce.method_groups import headline_metric

    return [
        {
            "name": one.about["name"],
            "protocol": name,
            "head": one.about["architecture"]["head"],
            "seed": one.about["config"]["seed"],
            "accuracy": float(one.right.mean()),
            **{f"{ranking} {cutoff:g}": float(headline_metric(name).of(one, ranking, cutoff).mean())
               for ranking in ("hamming", "fused") for cutoff in one.comparison.cutoffs},
        }
        for name, measured in results_page.networks_in(out).items()
        for one in measured
    ]  # fmt: skip


def _summary_of_sets(out: Path) -> list[dict[str, object]]:
    """Return what calibration chose and what searches find, for every network that was measured on a set."""
    from semcut.connector.reproduce.truth_section import truths_in

    return [
        {
            "name": one.name,
            "ground_truth": form,
            "sentence": one.sentence,
            "records": one.records,
            "chosen": one.chosen if isinstance(one.chosen, str) else one.chosen.model_dump(),
            "searches": {
                level: {
                    name: {"map_all": found[0], "map_10": found[1], "n_s": found[2]} for name, found in every.items()
                }
                for level, every in one.searches.items()
            },
            "ms_per_query": one.times,
        }
        for form, measured in truths_in(out).items()
        for one in measured
    ]
