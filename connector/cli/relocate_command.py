"""`semcut relocate`: records where the images and the network of an index are, after they were moved."""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH, json_option
from semcut.connector.cli.terminal import print_json, print_line


@click.command()
@click.argument("index", type=PATH)
@click.option("--images", type=PATH, help="The folder that was indexed, at its new place.")
@click.option("--model", type=PATH, help="Run directory of the network, at its new place.")
@json_option
def relocate(index: Path, images: Path | None, model: Path | None, as_json: bool) -> None:
    """Record where images and network of INDEX are now, after a move.

    The records stay as they are. Some of the images, at most 1,000, are looked for in the new folder; the network must
    be the one that made the index.
    """
    from semcut.connector.retrieval.relocation import relocate as move

    if images is None and model is None:
        raise click.UsageError("nothing to relocate: give --images FOLDER or --model DIRECTORY")
    found = move(index, images=images, model=model)
    if as_json:
        print_json({"index": str(index), "looked_for": found.looked_for, "missing": found.missing})
        return
    if images is not None:
        missing = f", such as {found.example}" if found.missing else ""
        print_line(
            f"{index}: images are in {images}; {found.missing:,} of {found.looked_for:,} that were looked for are not "
            f"there{missing}"
        )
    if model is not None:
        print_line(f"{index}: the network is in {model}")
