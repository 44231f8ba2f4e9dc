"""`semcut remove`: removes records from a stored index, by their ids, patterns of their uris, or their attributes."""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH, json_option, where_option
from semcut.connector.cli.terminal import print_json, print_line

_SHOWN = 20


@click.command()
@click.argument("index", type=PATH)
@click.option("--id", "ids", multiple=True, help="Id of a record: a number, or text if the ids are. Repeatable.")
@click.option(
    "--uri",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Pattern of whole uris or paths, such as '*/cats/*.jpg'; * is any text, also of several folders. Repeatable.",
)
@where_option
@click.option("--dry-run", is_flag=True, help="List the records, and change nothing.")
@json_option
def remove(
    index: Path, ids: tuple[str, ...], patterns: tuple[str, ...], where: str | None, dry_run: bool, as_json: bool
) -> None:
    """Remove records from a stored INDEX.

    All records that are named are removed, or none if an id is not there; --where removes those that match it, of the
    records that --id and --uri name if they are given. The images are not touched. `semcut
    compact` releases the disk space of removed records.
    """
    import numpy as np

    from semcut.connector.data.image_uris import paths_of
    from semcut.connector.retrieval.model_link import read_link
    from semcut.connector.retrieval.uri_patterns import ids_by_uri
    from semcut.connector.retrieval.written_ids import ids_written
    from semcut.indexes import DamagedIndexError, FaissIndex
    from semcut.indexes.open_with import open_with

    if not ids and not patterns and where is None:
        raise click.UsageError("nothing to remove: give --id ID, --uri PATTERN or --where FILTER")
    opened, link = open_with(lambda: FaissIndex.open(index, engine="faiss"), lambda _: read_link(index))
    with opened:
        if not dry_run:
            opened.begin()  # first: what is chosen is what the records are when they are removed
            link = read_link(index)
        root = None if link is None else link.root
        given = ids_written(opened, ids)
        chosen = np.union1d(given, ids_by_uri(opened, patterns, root) if patterns else given)
        if where is not None:
            chosen = opened.matching(where, among=chosen if ids or patterns else None)
        shown = chosen[: None if as_json else _SHOWN]
        try:
            uris = paths_of(opened.uris(shown), root)
            keys: list[str] | None = opened.keys(shown) if opened.config.string_ids else None
        except DamagedIndexError:  # records that are damaged can be removed, too
            uris, keys = [None] * len(shown), None
        if not dry_run:
            opened.remove(chosen)
        left = len(opened)
    if as_json:
        removed = [{"id": id_, "uri": uri} for id_, uri in zip(chosen.tolist(), uris, strict=True)]
        if keys is not None:
            removed = [one | {"key": key} for one, key in zip(removed, keys, strict=True)]
        print_json({"index": str(index), "removed": removed, "dry_run": dry_run, "records": left})
        return
    for id_, uri in zip(shown.tolist() if keys is None else keys, uris, strict=True):
        print_line(f"{id_}  {uri or ''}")
    if len(chosen) > _SHOWN:
        print_line(f"... and {len(chosen) - _SHOWN:,} more")
    print_line(f"{len(chosen):,} records {'would be removed' if dry_run else 'removed'}, {left:,} records in {index}.")
