"""`CsvTable`: the rows of a CSV table with a line of names, whose lines may come from someone else; see `TextLines`.

A row may have fewer values than there are columns, and lines without values are no rows. The errors name the line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from semcut.connector.data.text_lines import TextLines
from semcut.indexes.errors import shown


class CsvTable:
    """A table, of which the names of the columns have been read.

    Args:
        lines: the lines of the table.

    Attributes:
        columns: the names, without spaces around them; empty for an empty text.

    Raises:
        DataError: the first line is no CSV, or names a column twice.
    """

    def __init__(self, lines: TextLines) -> None:
        self._lines, self._rows = lines, csv.reader(iter(lines), strict=True)
        try:
            self.columns = [name.strip() for name in next(self._rows, [])]
        except csv.Error as error:
            raise lines.error(f"is no CSV ({error})") from None
        if len(set(self.columns)) < len(self.columns):
            raise lines.error(f"has a column twice: {shown(', '.join(self.columns))}")

    def rows(self, names: Sequence[str]) -> Iterator[list[str | None]]:
        """Yield of each row the values of some columns: None for a column, or a value, that is not there.

        Raises:
            DataError: a line is no CSV, or has more values than there are columns.
        """
        lines, width = self._lines, len(self.columns)
        places = {name: place for place, name in enumerate(self.columns)}
        wanted = [places.get(name, width) for name in names]
        lines.row_bytes = 0
        try:
            for row in self._rows:
                lines.row_bytes = 0
                if len(row) > width:
                    raise lines.error(
                        f"has {len(row):,} values, expected {width:,}: put a value with a comma in quotes"
                    )
                if row:
                    yield [row[place] if place < len(row) else None for place in wanted]
        except csv.Error as error:
            raise lines.error(f"is no CSV ({error})") from None
