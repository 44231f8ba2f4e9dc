"""`semcut average`: copies an index, with every record averaged with its nearest others."""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH
from semcut.connector.cli.terminal import print_line, progress_bar


@click.command()
@click.argument("index", type=PATH)
@click.argument("target", type=PATH)
@click.option(
    "--neighbours", "-n", type=click.IntRange(1, 1000), default=1, show_default=True,
    help="Number of records that each is averaged with.",
)  # fmt: skip
@click.option(
    "--power", type=click.FloatRange(0, 100), default=3.0, show_default=True,
    help="How much nearer ones count more: their cosine to this power.",
)  # fmt: skip
def average(index: Path, target: Path, neighbours: int, power: float) -> None:
    """Copy INDEX to TARGET, each record averaged with the nearest.

    TARGET must be new or empty. Pictures of one thing then find each other more easily (database-side averaging), where
    most things have several. The copy is searched like INDEX. Images that are added to it later are not averaged:
    average INDEX again.
    """
    from semcut.connector.retrieval.averaged_index import average_index

    with progress_bar("Averaging") as progress:
        records = average_index(index, target, neighbours, power=power, progress=progress)
    print_line(f"{target}: {records:,} records, each averaged with the {neighbours:,} nearest.")
