"""Read the ids of images in the rows of a list: a column, or a field, `id`.

An id is text that can be a key, see `indexes.keys`; an integer in a JSONL file is its digits. Either no image of a list
has an id, or each has one of its own.
"""

from __future__ import annotations

import sys
from typing import Any

from semcut.indexes.errors import shown
from semcut.indexes.keys import MAX_KEY, is_key

ID = "id"


class ListedIds:
    """The ids of the files of a list, in their order.

    Attributes:
        size: the memory that the ids take, in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._lines: dict[str, int] = {}
        self._first_without: int | None = None

    def add(self, given: Any, line: int) -> str | None:
        """Add the id of a file, and return what is wrong with it.

        Args:
            given: the value of the row; None or "" if it has none.
            line: the number of its line.
        """
        if given is None or given == "":
            self._first_without = self._first_without or line
        else:
            text = str(given) if type(given) is int and abs(given) < 2**64 else given
            if not is_key(text):
                return f"id {shown(given)}, expected text of 1 to {MAX_KEY:,} characters"
            if text in self._lines:
                return f"id {shown(text)} is that of line {self._lines[text]:,}, too: ids must be unique"
            self._lines[text] = line
            self.size += sys.getsizeof(text) + 100  # of its place in the dictionary
        if not self._lines or self._first_without is None:
            return None
        if self._first_without == line:
            return f"it has no id, but line {next(iter(self._lines.values())):,} has one: give every image one, or none"
        return f"it has an id, but line {self._first_without:,} has none: give every image one, or none"

    def found(self) -> list[str] | None:
        """Return the id of each file; None if none has one."""
        return list(self._lines) or None
