"""Read the attributes of records from the columns `attributes` and `vocabulary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_rows import impossible_values, read_rows
from semcut.indexes.attributes.attribute_table import AttributeTable
from semcut.indexes.attributes.attribute_types import has_vocabulary
from semcut.indexes.attributes.vocabulary import MAX_VOCABULARY_BYTES, Vocabulary
from semcut.indexes.errors import DamagedIndexError

if TYPE_CHECKING:
    from semcut.indexes.storage.mapped_columns import Columns


def attribute_rows(columns: Columns, rows: NDArray[np.int64]) -> NDArray[np.uint8] | None:
    """Read the stored attributes of the records in (n,) rows, (n, bytes of a row) uint8; None if the index has none.

    Raises:
        DamagedIndexError: a row does not match its checksum.
    """
    if "attributes" not in columns.sources:
        return None
    found: NDArray[np.uint8] = columns.checked("attributes", rows)[rows]
    return found


def read_attributes(columns: Columns, rows: NDArray[np.int64]) -> dict[str, list[Any]] | None:
    """Read the attributes of the records in (n,) rows as an index returns them; None if the index has none.

    Raises:
        DamagedIndexError: a row does not match its checksum, or has values that cannot have been stored.
    """
    stored = attribute_rows(columns, rows)
    if stored is None:
        return None
    types = columns.sources["attributes"].spec.types
    assert types is not None
    return read_rows(types, stored, columns.vocabulary)


def impossible_attributes(
    columns: Columns, rows: NDArray[np.int64], vocabulary: Vocabulary | None
) -> dict[str, NDArray[np.bool_]]:
    """Return which records in (n,) rows have a value that cannot have been stored, by the name of the attribute.

    Args:
        columns: the columns.
        rows: the rows.
        vocabulary: of these columns; None if it is damaged, so that categories are not looked at.

    Raises:
        DamagedIndexError: a row does not match its checksum.
    """
    stored = attribute_rows(columns, rows)
    if stored is None:
        return {}
    types = columns.sources["attributes"].spec.types
    assert types is not None
    return {
        name: impossible_values(types, name, stored, vocabulary or Vocabulary.empty(types))
        for name, kind in types.items()
        if vocabulary is not None or not has_vocabulary(kind)
    }


def read_vocabulary(columns: Columns) -> Vocabulary:
    """Read the values of categories, for `Columns.vocabulary`.

    Raises:
        DamagedIndexError: they do not match their checksums, or are not as semcut writes them.
    """
    if "vocabulary" not in columns.sources:
        return Vocabulary.empty({})
    types = columns.sources["vocabulary"].spec.types
    assert types is not None
    if columns.extents["vocabulary"].rows > MAX_VOCABULARY_BYTES:
        raise DamagedIndexError("the vocabulary of the index is too large: restore the index from a backup")
    return Vocabulary.read(types, columns.checked("vocabulary"))


def attribute_table(columns: Columns) -> AttributeTable:
    """Return the attributes of all rows, for filters. An index without attributes has an empty table.

    Raises:
        DamagedIndexError: as for `read_vocabulary`; later, when an attribute is first used, as for `read_attributes`.
    """
    if "attributes" not in columns.sources:
        return AttributeTable({}, lambda: np.empty((len(columns), 0), np.uint8), columns.vocabulary, columns.removed)
    types = columns.sources["attributes"].spec.types
    assert types is not None
    return AttributeTable(types, lambda: columns.checked("attributes"), columns.vocabulary, columns.removed)
