"""`GivenAttributes`: the attributes that a caller gives for files, by uri, and what becomes of those that records have.

An attribute that is given replaces that of the record, also if it is missing now; every other one is kept, whatever
else of the record is replaced. The record of a new file has the given ones alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_columns import attributes_given
from semcut.indexes.attributes.attribute_types import AttributeType, columns_of
from semcut.indexes.index import SemanticIndex


class GivenAttributes:
    """Attributes of files; iterating yields the uris of the files."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Mapping[str, list[Any]], int]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def put(self, types: Mapping[str, AttributeType], uris: Sequence[str], columns: Any) -> None:
        """Give n files attributes; of a file that is given twice, the first ones count.

        Args:
            types: the attributes of the index.
            uris: n uris.
            columns: of each attribute, n values; attributes that are left out are not given.

        Raises:
            InvalidEncodingsError: the index has no such attribute, or it cannot have one of the values.
        """
        given = attributes_given(columns, len(uris))
        found = columns_of(types, given, len(uris))
        kept = {name: found[name] for name in given}
        for row, uri in enumerate(uris if kept else ()):
            self._rows.setdefault(uri, (kept, row))

    def of_records(
        self, former: SemanticIndex, ids: NDArray[np.int64], uris: Sequence[str]
    ) -> dict[str, list[Any]] | None:
        """Return the attributes of n records that are written; None if the index has none.

        Args:
            former: has the records that are replaced, by their ids.
            ids: (n,) the ids of the records.
            uris: the uris of their files.
        """
        types = former.config.attributes
        if not types:
            return None
        replaced = np.flatnonzero(former.contains(ids))
        columns: dict[str, list[Any]] = {name: [None] * len(ids) for name in types}
        for name, values in former.attributes(ids[replaced]).items():
            for place, value in zip(replaced.tolist(), values, strict=True):
                columns[name][place] = value
        for place, uri in enumerate(uris if self._rows else ()):
            given, row = self._rows.get(uri, ({}, 0))
            for name, values in given.items():
                columns[name][place] = values[row]
        return columns

    def changed(self, index: SemanticIndex, targets: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return the uris and ids whose records have other attributes than the given ones."""
        stored = index.attributes(np.array([record for _, record in targets], np.int64))
        found = []
        for place, (uri, record) in enumerate(targets):
            given, row = self._rows[uri]
            if any(stored[name][place] != values[row] for name, values in given.items()):
                found.append((uri, record))
        return found
