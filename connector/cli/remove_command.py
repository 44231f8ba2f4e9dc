"""`semcut remove`: removes records from a stored index, by their ids, patterns of their uris, or their attributes."""

from __future__ import annotations

from pathlib import Path

import click

from semcut.connector.cli.options import PATH, json_option, where_option
from semcut.connector.cli.terminal import print_json, print_line

_SHOWN = 20


@click.command()
@click.argument("index", type=PATH)
@click.option(
    "--id", "ids", type=click.IntRange(0, 2**63 - 1), multiple=True, metavar="N", help="Id of a record. Repeatable."
)
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
    index: Path, ids: tuple[int, ...], patterns: tuple[str, ...], where: str | None, dry_run: bool, as_json: bool
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
    from semcut.indexes import DamagedIndexError, FaissIndex
    from semcut.indexes.id_checks import refuse_unknown
    from semcut.indexes.open_with import open_with

    if not ids and not patterns and where is None:
        raise click.UsageError("nothing to remove: give --id N, --uri PATTERN or --where FILTER")
    opened, link = open_with(lambda: FaissIndex.open(index, engine="faiss"), lambda _: read_link(index))
    with opened:
        root = None if link is None else link.root
        given = np.unique(np.array(ids, np.int64)) if ids else np.empty(0, np.int64)
        refuse_unknown(given, np.where(opened.contains(given), 0, -1))
        chosen = np.union1d(given, ids_by_uri(opened, patterns, root) if patterns else given)
        if where is not None:
            chosen = opened.matching(where, among=chosen if ids or patterns else None)
        shown = chosen[: None if as_json else _SHOWN]
        try:
            uris = paths_of(opened.uris(shown), root)
        except DamagedIndexError:  # records that are damaged can be removed, too
            uris = [None] * len(shown)
        if not dry_run:
            opened.remove(chosen)
        left = len(opened)
    if as_json:
        removed = [{"id": id_, "uri": uri} for id_, uri in zip(chosen.tolist(), uris, strict=True)]
        print_json({"index": str(index), "removed": removed, "dry_run": dry_run, "records": left})
        return
    for id_, uri in zip(chosen.tolist(), uris, strict=False):
        print_line(f"{id_}  {uri or ''}")
    if len(chosen) > _SHOWN:
        print_line(f"... and {len(chosen) - _SHOWN:,} more")
    print_line(f"{len(chosen):,} records {'would be removed' if dry_run else 'removed'}, {left:,} records in {index}.")
