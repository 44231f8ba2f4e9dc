"""`semcut reproduce`: measures networks by a protocol, and makes the page. Thin: the work is in the library."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import get_args

import click
from rich.markup import escape

from semcut.connector.cli.app import OUT, PATH, print_json
from semcut.connector.cli.options import json_option, progress
from semcut.connector.models.allocator import keep_freed_memory
from semcut.connector.models.names import ProtocolName
from semcut.indexes.errors import require

require({"matplotlib": "matplotlib"}, "draw figures", "benchmark")

_COMMANDS = "commands.json"


@click.command()
@click.argument("out", type=PATH)
@click.argument("networks", type=PATH, nargs=-1)
@click.option("--data", help="Folder or archive with train and test or val, that the networks were trained on.")
@click.option("--protocol", type=click.Choice(get_args(ProtocolName)), help="By which the networks were trained.")
@click.option("--speed", type=PATH, help="A benchmark with records of several numbers of classes, for Table III.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0.")
@json_option
def reproduce(
    out: Path, networks: tuple[Path, ...], data: str | None, protocol: ProtocolName | None, speed: Path | None,
    device: str, as_json: bool,
) -> None:  # fmt: skip
    """Make the paper's tables from trained NETWORKS.

    Each network, trained with the same --protocol, is indexed, asked all queries and measured, once: what is in the
    directory OUT is not measured again. Networks that differ in their seed alone count as one, with mean and spread.
    The page, OUT/results.md, has tables and Fig. 4 of everything that was ever measured in OUT.
    """
    if networks and (data is None or protocol is None):
        raise click.UsageError("networks are measured with --data and --protocol: give both")
    from semcut.connector.reproduce import results_page, tables
    from semcut.connector.reproduce.groups import groups_of, headline
    from semcut.connector.reproduce.measured import measure

    if speed is not None:
        results_page.keep_speed(out, speed)
    keep_freed_memory()
    with progress() as bar:
        task = bar.add_task("", total=None)

        def told(what: str, done: int, of: int) -> None:
            bar.update(task, description=escape(what), completed=done, total=of)

        if data is not None and protocol is not None:
            for network in networks:
                measure(network, data, protocol, out, device=device, progress=told)
    where = results_page.write(out, _commands(out) if networks or speed else _kept(out))
    if as_json:
        print_json({"page": str(where), "networks": _summary(out)})
        return
    for name, measured in results_page.networks_in(out).items():
        table = tables.methods(groups_of(measured), headline(name))
        OUT.print(table.rich(f"{name}, {table.title}"))
    OUT.print(f"\nPage: {escape(str(where))}", highlight=False, soft_wrap=True)


def _kept(out: Path) -> list[str]:
    try:
        return [str(command) for command in json.loads((out / _COMMANDS).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _commands(out: Path) -> list[str]:
    """All commands that have measured something in a directory, with this one."""
    from semcut.connector.models.checkpoint import write_json

    commands = list(dict.fromkeys([*_kept(out), shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])]))
    write_json(out / _COMMANDS, commands)
    return commands


def _summary(out: Path) -> list[dict[str, object]]:
    from semcut.connector.reproduce import results_page
    from semcut.connector.reproduce.groups import headline

    return [
        {
            "name": one.about["name"],
            "protocol": name,
            "head": one.about["architecture"]["head"],
            "seed": one.about["config"]["seed"],
            "accuracy": float(one.right.mean()),
            **{f"{ranking} {cutoff:g}": float(headline(name).of(one, ranking, cutoff).mean())
               for ranking in ("hamming", "fused") for cutoff in one.comparison.cutoffs},
        }
        for name, measured in results_page.networks_in(out).items()
        for one in measured
    ]  # fmt: skip
