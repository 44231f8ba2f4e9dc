"""The categories that the records of a snapshot still have, and their new numbers after a compaction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_rows import row_dtype, stored_values_of
from semcut.indexes.storage.snapshot import Snapshot
from semcut.indexes.storage.stored_attributes import attribute_rows

_ROWS_AT_ONCE = 1 << 18


class KeptCategories(NamedTuple):
    """A smaller vocabulary.

    Attributes:
        dtype: of a row of attributes; None if the index has none.
        lines: the bytes of the new column `vocabulary`.
        numbers: of each attribute with categories, the (n,) new number of each value; the last one is that of -1.
    """

    dtype: np.dtype[np.void] | None
    lines: NDArray[np.uint8]
    numbers: dict[str, NDArray[np.int32]]

    @staticmethod
    def of(snapshot: Snapshot) -> KeptCategories:
        """Find the values that records of a snapshot have.

        Raises:
            DamagedIndexError: attributes of a record are damaged.
        """
        types, vocabulary = snapshot.cells.config.attributes, snapshot.columns.vocabulary
        if not types:
            return KeptCategories(None, np.empty(0, np.uint8), {})
        used = {name: np.zeros(len(values) + 1, bool) for name, values in vocabulary.values.items()}
        for start in range(0, len(snapshot), _ROWS_AT_ONCE):
            rows = attribute_rows(snapshot.columns, snapshot.live[start : start + _ROWS_AT_ONCE])
            assert rows is not None
            for name, marks in used.items():
                marks[stored_values_of(types, name, rows, vocabulary)] = True
        numbers = {}
        for name, marks in used.items():
            numbers[name] = np.cumsum(marks, dtype=np.int32) - 1
            numbers[name][-1] = -1
        kept = {name: np.flatnonzero(marks[:-1]) for name, marks in used.items()}
        _, lines = vocabulary.kept(kept)
        return KeptCategories(row_dtype(types), lines, numbers)

    def renumbered(self, rows: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Return (n, bytes of a row) stored attributes, which were read before, with the new numbers."""
        if rows is None or self.dtype is None or not self.numbers:
            return rows
        found = np.ascontiguousarray(rows).copy()
        fields = found.view(self.dtype).reshape(len(found))
        for name, numbers in self.numbers.items():
            fields[name] = numbers[fields[name]]
        return found
