"""What the commands share: options, progress bars, tables, and the images that a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from semcut.connector.cli.app import ERR, OUT, PATH
from semcut.connector.models.names import ProtocolName

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet


class Shortlist(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """A number of records, or "all"."""

    name = "n|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """The number, None for all."""
        if value is None or value == "all":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor all", param, ctx)


def search_options(k: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--ranking", type=click.Choice(["distance", "fused"]), default="distance", show_default=True,
                         help="Order by distance of features, or by relevance and distance together (Eq. 4)."),
            click.option("--shortlist", type=Shortlist(), default=100, show_default=True,
                         help="How many records nearest by code are ranked; all ranks every relevant one."),
            click.option("--cutoff", "-t", default=0.2, show_default=True,
                         help="Disregard records whose relevance is not above this."),
            click.option("-k", default=k, show_default=True, help="How many records to find."),
            click.option("--model", type=PATH, help="Where the network is, if it was moved."),
            click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0."),
        ):  # fmt: skip
            command = option(command)
        return command

    return add


protocol_option = click.option(
    "--protocol",
    type=click.Choice(get_args(ProtocolName)),
    help="Use the part of the data, a folder or archive with train and test or val, that this protocol says.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=ERR
    )


def images_of(
    source: str, limit: int | None, protocol: ProtocolName | None, part: Literal["training", "queries"], seed: int
) -> ImageSet:
    """The images that a command is about: all, so many, or those that a protocol says."""
    from semcut.connector.data import sources
    from semcut.connector.data.protocols import parts

    if protocol is not None:
        if limit is not None:
            raise click.UsageError("--protocol says how many images there are: leave out --limit")
        images: ImageSet = getattr(parts(protocol, source, seed), part)
        return images
    found = sources.load(source)
    return found if limit is None else found.sample(limit, seed)


def show_table(title: str, rows: dict[str, str]) -> None:
    table = Table("", "", title=title, show_header=False)
    table.columns[1].justify = "right"
    for name, value in rows.items():
        table.add_row(name, value)
    OUT.print(table)
