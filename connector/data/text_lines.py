"""`TextLines`: the lines of a text in UTF-8 that may come from someone else, with bounds on what a row takes.

A table is read row by row, and a row, which may have several lines of CSV, must fit into memory. The errors name the
line. The caller bounds the file and the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from semcut.indexes.errors import DataError

MAX_ROW_BYTES = 1 << 20
"""The most bytes of one row."""


class TextLines:
    """The lines of a text.

    Args:
        name: what the text is, with its file, for messages.
        stream: its content.

    Attributes:
        number: number of the latest line, from 1.
        row_bytes: bytes since the latest row began; set to 0 by the reader of rows.
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name, self._stream = name, stream
        self.number = self.row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(MAX_ROW_BYTES + 1):
            self.number += 1
            self.row_bytes += len(line)
            if self.row_bytes > MAX_ROW_BYTES:
                raise self.error(f"has a row of more than {MAX_ROW_BYTES:,} bytes")
            try:
                yield line.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise self.error("is not text in UTF-8") from None

    def error(self, what: str) -> DataError:
        """Return an error about the latest line."""
        return DataError(f"cannot read {self._name}: line {self.number:,} {what}")
