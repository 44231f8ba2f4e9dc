"""`semcut export`: writes all records of a stored index to a Parquet file, which other programs can read."""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH, WrittenType, json_option
from semcut.connector.cli.terminal import print_json, print_line, progress_bar

_PARQUET = WrittenType("a Parquet file", b"PAR1")


@click.command()
@click.argument("index", type=PATH)
@click.argument("file", type=_PARQUET)
@json_option
def export(index: Path, file: Path, as_json: bool) -> None:
    """Write all records of a stored INDEX to a Parquet FILE.

    The file has the ids, uris, probabilities, codes, features and attributes of all records, and the configuration of
    the index, so that `semcut import` makes the same index of it again.
    """
    from semcut.connector.exchange.copies import export_encodings

    with progress_bar("Exporting") as progress:
        records = export_encodings(index, file, progress=progress)
    if as_json:
        print_json({"file": str(file), "records": records})
    else:
        print_line(f"{records:,} records written to {file}.")
