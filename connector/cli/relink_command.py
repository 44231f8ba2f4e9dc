"""`semcut relink`: links an index to a later network of the same features and codes; no image is encoded again."""

from __future__ import annotations

from pathlib import Path

import click

import semcut.connector.models  # noqa: F401  # reports which packages are missing
from semcut.connector.cli.options import PATH, json_option
from semcut.connector.cli.terminal import print_json, print_line, progress_bar


@click.command()
@click.argument("index", type=PATH)
@click.option("--model", type=PATH, required=True, help="Run directory of the later network.")
@json_option
def relink(index: Path, model: Path, as_json: bool) -> None:
    """Link INDEX to a later network, such as one with more classes.

    No image is encoded again: the network must be trained with --start and --freeze-codes from the one that made INDEX.
    The records get probabilities of 0 for new classes. If features or codes are others, `semcut sync --reencode`
    encodes the images again.
    """
    from semcut.connector.retrieval.relinking import relink as link_again

    with progress_bar("Writing", quiet=as_json) as progress:
        done = link_again(index, model, progress=progress)
    if as_json:
        print_json({"index": str(index), "new_classes": list(done.new_classes), "records": done.records})
        return
    names = f": {', '.join(done.new_classes)}" if done.new_classes else ""
    print_line(f"{index}: {done.records:,} records, {len(done.new_classes):,} new classes{names}")
