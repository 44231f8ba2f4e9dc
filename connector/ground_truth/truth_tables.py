"""Read ground truth from a table of your own: a CSV file with query, relevant and, if needed, junk and box.

    query,relevant,junk,box
    a/1.jpg,a/2.jpg;a/3.jpg,a/9.jpg,
    a/1.jpg,a/4.jpg,,
    b/1.jpg,b/2.jpg,,10 20 300 400

An image is named by its path in the folder of the images, or by an absolute one. `relevant` and `junk` hold any number
of them, separated by `;`. A box is left, top, right and bottom of the part of the query to search with. Rows of the
same query and box are joined. The image of a query is left out of its own answer, unless it is listed as relevant.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from semcut.connector.data.csv_table import CsvTable
from semcut.connector.data.text_lines import TextLines
from semcut.connector.ground_truth.judged_queries import ALL, Box, GroundTruth, Query, judgement, parsed_box
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import open_binary

MAX_TABLE_BYTES, MAX_NAMES = 1 << 26, 2_000_000
"""The largest table, and the most names of images in it."""

_COLUMNS = ("query", "relevant", "junk", "box")


class _Row(NamedTuple):
    query: str
    relevant: list[str]
    junk: list[str]
    box: Box | None


def read_truth_table(path: str) -> GroundTruth:
    """Read a table.

    Raises:
        DataError: the file cannot be read, is no such table, names no relevant image, or is beyond a limit.
    """
    joined: dict[tuple[str, Box | None], tuple[set[str], set[str]]] = {}
    known: dict[str, str] = {}  # each name once
    count = 0
    try:
        with open_binary(path, max_bytes=MAX_TABLE_BYTES, follow=True) as stream:
            for row in _rows(path, TextLines(f"the table {path}", stream)):
                relevant, junk = joined.setdefault((row.query, row.box), (set(), set()))
                relevant |= {known.setdefault(name, name) for name in row.relevant}
                junk |= {known.setdefault(name, name) for name in row.junk}
                count += 1 + len(row.relevant) + len(row.junk)
                if count > MAX_NAMES:
                    raise DataError(f"the table {path} names more than {MAX_NAMES:,} images: divide it")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read the table {shown(path)}: {reason}") from None
    if not any(relevant for relevant, _ in joined.values()):
        raise DataError(f"the table {path} names no relevant image: expected at least one query with relevant images")
    queries, judgements = [], []
    for (image, box), (relevant, junk) in joined.items():
        name = image if box is None else f"{image} {' '.join(f'{side:g}' for side in box)}"
        queries.append(Query(name, image, box))
        own = set() if image in relevant else {image}
        judgements.append(judgement(name, relevant, junk | own, path))
    return GroundTruth("csv", tuple(queries), {ALL: tuple(judgements)}, trapezoid=False, by_stem=False)


def _rows(path: str, lines: TextLines) -> Iterator[_Row]:
    table = CsvTable(lines)
    if not {"query", "relevant"} <= set(table.columns):
        raise DataError(
            f"the table {path} has the columns {shown(', '.join(table.columns))}, expected query and relevant, and "
            "junk and box if needed"
        )
    for row in table.rows(_COLUMNS):
        query, relevant, junk, box = ((value or "").strip() for value in row)
        if not query:
            raise lines.error("names no query")
        source = f"the table {path}, line {lines.number:,}"
        yield _Row(_plain(query), _names(relevant), _names(junk), parsed_box(box.split(), source) if box else None)


def _names(text: str) -> list[str]:
    return [_plain(name) for name in map(str.strip, text.split(";")) if name]


def _plain(name: str) -> str:
    """Return a path without parts that change nothing, such as `./`."""
    return os.path.normpath(name)
