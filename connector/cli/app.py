"""The `semcut` command: finds its sub-commands by entry point (group `semcut.commands`) and runs one.

A module of commands imports what a command needs in the function that runs it, so that listing and explaining all of
them takes a fraction of a second: at its top are click, rich and modules that load nothing else. Figures go to standard
output as a table or, with --json, as JSON; progress and messages go to standard error. An error that semcut raises on
purpose, or a file that the system refuses, is one line there and exit status 1; misuse of the command line is 2.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from semcut.indexes.errors import SemcutError
from semcut.indexes.kernels.kernel_cache import KernelCacheWarning

OUT = Console()
ERR = Console(stderr=True)
PATH = click.Path(path_type=Path)


class Commands(click.Group):
    """Sub-commands by entry point; one whose packages are missing is listed too, and says what to install when run."""

    @cached_property
    def _found(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group="semcut.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all sub-commands."""
        return sorted(self._found)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The sub-command, imported now."""
        entry = self._found.get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except SemcutError as error:
            return _unavailable(cmd_name, str(error))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands with their summaries, which click would cut to one line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.get_short_help_str(limit=1000)) for name, found in commands if found])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The sub-command that the arguments begin with; an error for one that is not there names the nearest."""
        name = args[0]
        near = [] if name in self._found else get_close_matches(name.lower(), self._found, n=1)
        if near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


def _unavailable(name: str, reason: str) -> click.Command:
    @click.command(name, short_help=f"(not available: {reason})", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def command(arguments: tuple[str, ...]) -> None:
        raise click.ClickException(reason)

    return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="semcut")
def app() -> None:
    """Find similar images: train a network, index images, search them."""


def main(command: click.Command = app) -> None:
    """Entry point of the console command, or of a script that is one sub-command."""
    try:
        with _plain_warnings():
            command()
    except SemcutError as error:
        fail(str(error))
    except OSError as error:  # of a file or directory that a command was told to write: a full disk, no permission
        fail(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Make a line of its own of what users are told about kernels, without the place in the source."""
    usual: Callable[..., None] = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **others: Any) -> None:
        if issubclass(category, KernelCacheWarning):
            ERR.print(f"[yellow]semcut:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
        else:
            usual(message, category, *rest, **others)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def fail(reason: str, status: int = 1) -> NoReturn:
    """End with one line on standard error."""
    ERR.print(f"[bold red]semcut:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    sys.exit(status)


def print_json(content: object) -> None:
    """JSON on standard output, nothing else."""
    click.echo(json.dumps(content, indent=2))


class _Rate(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> str:
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f}/s" if speed else ""


@contextmanager
def bar(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; what it gives is told how much, of how much, has been done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=ERR, disable=quiet or not ERR.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@click.command()
@click.argument("index", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info(index: Path, as_json: bool) -> None:
    """Show what a stored INDEX holds."""
    from semcut.indexes.storage.store import Store

    store = Store.open(index)  # an index would build an engine to search with
    try:
        stats, config, version = store.state.stats(), store.config, store.state.committed.version
    finally:
        store.close()
    sizes = [size for size in stats.partitions if size]
    content = {
        "records": stats.records,
        "removed, until compacted": stats.removed,
        "changes so far": version,
        "classes": config.classes,
        "bits": config.bits,
        "dim": config.dim,
        "normalised": stats.normalised,
        "partitions in use": len(sizes),
        "records per partition": {"smallest": min(sizes, default=0), "largest": max(sizes, default=0)},
        "cells": stats.cells,
        "bytes": sum(stats.column_bytes.values()),
        "bytes per column": stats.column_bytes,
    }
    if as_json:
        print_json({**content, "partitions": stats.partitions})
        return
    table = Table("", "", title=str(index), show_header=False)
    for name, value in content.items():
        if isinstance(value, dict):
            shown = "\n".join(f"{key} {number:,}" for key, number in value.items())
        else:
            shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        table.add_row(name, shown)
    OUT.print(table)


@click.command(name="verify")
@click.argument("index", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of sentences.")
def verify_command(index: Path, as_json: bool) -> None:
    """Read all of a stored INDEX and name what is damaged.

    It is compared with its checksums and with itself, and not changed. With what is damaged come the records that it
    concerns; exit status 1 if there is anything.
    """
    from semcut.indexes.storage.verify import verify_path

    with bar("Verifying", quiet=as_json) as progress:
        found = verify_path(index, progress)
    if as_json:
        print_json([{"where": damage.where, "what": damage.what, "ids": damage.ids.tolist()} for damage in found])
    for damage in [] if as_json else found:
        ids = ", ".join(map(str, damage.ids[:20].tolist())) + (", ..." if len(damage.ids) > 20 else "")
        concerned = f"; {len(damage.ids)} records: {ids}" if len(damage.ids) else ""
        OUT.print(f"{damage.where}: {damage.what}{concerned}", markup=False, highlight=False, soft_wrap=True)
    if not found and not as_json:
        OUT.print(f"{index} is sound.", markup=False, highlight=False, soft_wrap=True)
    if found:
        sys.exit(1)


@click.command()
@click.argument("index", type=PATH)
def compact(index: Path) -> None:
    """Give back the space of removed records in a stored INDEX.

    Its searches are then as fast as they can be. Needs as much free space as the records that are left. The index can
    be searched meanwhile, not changed.
    """
    from semcut.indexes import FaissIndex

    with FaissIndex.open(index) as opened:
        before = opened.stats()
        with bar("Compacting") as progress:
            opened.compact(progress)
        after = opened.stats()
    saved = sum(before.column_bytes.values()) - sum(after.column_bytes.values())
    OUT.print(f"{after.records:,} records kept, {before.removed:,} removed ones gone, {saved:,} bytes given back.")


@click.command()
@click.argument("index", type=PATH)
@click.argument("target", type=PATH)
def backup(index: Path, target: Path) -> None:
    """Copy a stored INDEX to a new directory TARGET.

    The index may be changed meanwhile: the copy is the index as of its last change before. It is compared with its
    checksums on the way.
    """
    from semcut.indexes import FaissIndex

    with FaissIndex.open(index) as opened:
        with bar("Copying") as progress:
            opened.backup(target, progress)
        records = len(opened)
    OUT.print(f"{records:,} records copied to {target}.", highlight=False, soft_wrap=True)
