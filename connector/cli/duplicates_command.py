"""`semcut duplicates`: groups the records of a stored index that are nearly the same, and changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.options import PATH, WrittenType, json_option
from semcut.connector.cli.terminal import (
    OUT,
    new_table,
    print_json,
    print_line,
    print_message,
    print_warning,
    progress_bar,
)
from semcut.indexes.errors import DataError, InvalidParameterError
from semcut.indexes.search_defaults import DEFAULT_DUPLICATE_BITS, DEFAULT_DUPLICATE_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from semcut.connector.retrieval.duplicates_page import Duplicate
    from semcut.indexes import FaissIndex, NearDuplicates

PAGE = WrittenType("a page of near-duplicates", b"<!doctype html>\n<!-- semcut duplicates -->")
_GROUPS_SHOWN, _RECORDS_SHOWN = 20, 5


@click.command()
@click.argument("index", type=PATH)
@click.option(
    "--hamming", type=click.IntRange(0, 1024), default=DEFAULT_DUPLICATE_BITS, show_default=True, metavar="N",
    help="Largest number of bits in which the codes of two records differ.",
)  # fmt: skip
@click.option(
    "--distance", type=click.FloatRange(0), metavar="D",
    help=f"Largest distance of the features of two records.  [default: {DEFAULT_DUPLICATE_DISTANCE}]",
)  # fmt: skip
@click.option("--everywhere", is_flag=True, help="Compare all records, not only those that share a probable class.")
@click.option("--page", type=PAGE, help="Write the groups with small pictures to this HTML file.")
@json_option
def duplicates(
    index: Path, hamming: int, distance: float | None, everywhere: bool, page: Path | None, as_json: bool
) -> None:
    """Find near-duplicates among the records of a stored INDEX.

    Two records belong together if their codes and their features hardly differ, or if others connect them. Nothing is
    removed: `semcut remove INDEX --id ID` removes a record.
    """
    from semcut.connector.retrieval.model_link import read_link
    from semcut.indexes import FaissIndex, near_duplicates
    from semcut.indexes.open_with import open_with

    opened, link = open_with(lambda: FaissIndex.open(index, engine="faiss"), lambda _: read_link(index))
    with opened:
        if distance is None and not opened.stats().normalised:
            raise InvalidParameterError(
                f"the features of {index} are not of length 1, so no distance is small for all indexes: give --distance"
            )
        with progress_bar("comparing records", quiet=as_json) as progress:
            found = near_duplicates(
                opened, max_hamming=min(hamming, opened.config.bits), progress=progress, everywhere=everywhere,
                max_distance=DEFAULT_DUPLICATE_DISTANCE if distance is None else distance,
            )  # fmt: skip
        groups = _described(opened, found, None if link is None else link.root)
    if page is not None:
        _write_page(page, index, found, groups)
    if as_json:
        print_json(
            {
                "index": str(index),
                "records": found.records,
                "max_hamming": found.max_hamming,
                "max_distance": found.max_distance,
                "everywhere": found.everywhere,
                "groups": [[_as_json(member) for member in group] for group in groups],
            }
        )
        return
    _show(groups)
    for line in _summary(index, found):
        print_line(line)


def _as_json(member: Duplicate) -> dict[str, object]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(member).items() if name != "key" or value is not None}


def _summary(index: Path, found: NearDuplicates) -> list[str]:
    """Return what was found as sentences."""
    compared = "all with one another" if found.everywhere else "those that share a probable class"
    lines = [
        f"{len(found):,} groups of near-duplicates have {len(found.ids):,} of the {found.records:,} records: their "
        f"codes differ in at most {found.max_hamming} bits, their features are at most {found.max_distance:g} apart; "
        f"compared: {compared}."
    ]
    if len(found):
        left = found.records - len(found.removable())
        lines.append(
            f"With only the first of each group, {left:,} records would remain. Nothing was removed: semcut remove "
            f"{index} --id ID removes a record."
        )
    return lines


def _described(opened: FaissIndex, found: NearDuplicates, root: str | None) -> list[list[Duplicate]]:
    """Return the records of each group with their paths, and how near each is to the first record of its group."""
    import numpy as np

    from semcut.connector.data.image_uris import paths_of
    from semcut.connector.retrieval.duplicates_page import Duplicate
    from semcut.indexes.scoring import equations

    sizes = np.diff(found.offsets)
    firsts = np.repeat(found.ids[found.offsets[:-1]], sizes)
    members: list[Duplicate] = []
    step = opened.config.batch_records()
    for start in range(0, len(firsts), step):
        here = slice(start, start + step)
        records, others = opened.get(found.ids[here]), opened.get(firsts[here])
        apart = equations.distance(records.features, others.features).tolist()
        bits = equations.hamming(records.codes, others.codes).tolist()
        paths = paths_of(records.uris or [None] * len(records), root)
        keys: Sequence[str | None] = records.keys or [None] * len(records)
        members += map(Duplicate, records.ids.tolist(), paths, apart, bits, keys)
    borders = found.offsets.tolist()
    return [members[first:last] for first, last in itertools.pairwise(borders)]


def _show(groups: Sequence[Sequence[Duplicate]]) -> None:
    """Print the first groups as a table."""
    if not groups:
        return
    table = new_table("group", "id", "distance", "hamming", "uri", text=(4,))
    for number, group in enumerate(groups[:_GROUPS_SHOWN], 1):
        for place, one in enumerate(group[:_RECORDS_SHOWN]):
            name = "" if place else str(number)
            table.add_row(name, one.name, f"{one.distance:.4f}", str(one.hamming), one.uri or "")
        if len(group) > _RECORDS_SHOWN:
            table.add_row("", "", "", "", f"... and {len(group) - _RECORDS_SHOWN:,} more")
        table.add_section()
    OUT.print(table)
    if len(groups) > _GROUPS_SHOWN:
        print_line(f"... and {len(groups) - _GROUPS_SHOWN:,} more groups: --json has all of them")


def _write_page(page: Path, index: Path, found: NearDuplicates, groups: Sequence[Sequence[Duplicate]]) -> None:
    """Write the page.

    Raises:
        DataError: the file cannot be written.
    """
    from semcut.connector.retrieval.duplicates_page import duplicates_page
    from semcut.indexes.storage.atomic_write import replacing_named

    with progress_bar("reading images") as progress:
        content, missing = duplicates_page(f"Near-duplicates of {index}", _summary(index, found), groups, progress)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        with replacing_named(page) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        raise DataError(f"cannot write the page {page}: {error.strerror or error}") from None
    print_message(f"page: {page}")
    if missing:
        print_warning(f"{len(missing)} images on it could not be opened, as if moved: {missing[0]}")
