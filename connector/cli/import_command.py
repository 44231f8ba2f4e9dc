"""`semcut import`: makes an index of encodings that another program, or `semcut export`, has written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from semcut.connector.cli.options import PATH, AttributeOption, attributes_named, json_option
from semcut.connector.cli.terminal import print_json, print_line, progress_bar


@click.command("import")
@click.argument("file", type=PATH)
@click.option("--out", type=PATH, required=True, help="Directory of the index: new or empty.")
@click.option(
    "--any-mass",
    is_flag=True,
    help="Allow rows of probabilities with any sum: the largest ones of each image, or several labels for an image.",
)
@click.option(
    "--attribute", "attributes", type=AttributeOption(typed=False), multiple=True, callback=attributes_named,
    metavar="NAME[=TYPE]",
    help="A column that holds an attribute, with its type if that does not follow from the file. Repeatable.",
)  # fmt: skip
@json_option
def import_(file: Path, out: Path, any_mass: bool, attributes: dict[str, Any], as_json: bool) -> None:
    """Make an index of the encodings in a FILE: .parquet, .npz, .npy.

    The columns, arrays or fields of the file are probabilities, codes and features, and optionally ids and uris; the
    guide "Encodings" describes them. Further columns become attributes with --attribute. A file of `semcut export`
    becomes the index that was exported.
    """
    from semcut.connector.exchange.copies import import_encodings

    with progress_bar("Importing") as progress:
        records = import_encodings(file, out, any_mass=any_mass, attributes=attributes, progress=progress)
    if as_json:
        print_json({"index": str(out), "added": records})
    else:
        print_line(f"{out}: {records:,} records")
