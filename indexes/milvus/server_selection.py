"""What a search is limited to, as filters of Milvus: a filter on attributes, ids, or both.

Ids can be many, so the cells of their records are read first: a request for some cells names only the ids in these
cells, and no request is sent for cells that have none of them. More than `IDS_PER_REQUEST` ids take several requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.milvus.connection import ConcurrentMap, ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import int_column
from semcut.indexes.milvus.schema import Schema, to_keys
from semcut.indexes.milvus.server_filter import joined, server_filter
from semcut.indexes.milvus.shared_state import ServerCells

IDS_PER_REQUEST = 100_000
"""The largest number of ids in a filter: two megabytes, which a server reads in about a second."""

_IDS_PER_LOOKUP = 4096


@dataclass(frozen=True, eq=False)
class ServerSelection:
    """The records to which a search is limited.

    Attributes:
        where: the filter on attributes; "" for none.
        keys: (n,) int64, the primary keys of the given ids that the index has; None if no ids are given.
        cells: (n,) int64, the number of the cell of each key.
    """

    where: str = ""
    keys: NDArray[np.int64] | None = None
    cells: NDArray[np.int64] | None = None

    def conditions(self, condition: str = "", cells: NDArray[np.int64] | None = None) -> list[str]:
        """Return filters of which every record of the selection that meets a condition meets exactly one.

        The only filter for all records is "".

        Args:
            condition: a filter; "" for none.
            cells: the numbers of the cells whose records are wanted, where ids are given; None for all.
        """
        parts = [part for part in (condition, self.where) if part]
        if self.keys is None or self.cells is None:
            return [joined("and", parts) if parts else ""]
        keys = self.keys if cells is None else self.keys[np.isin(self.cells, cells)]
        return [
            joined("and", [*parts, is_in("id", keys[start : start + IDS_PER_REQUEST])])
            for start in range(0, len(keys), IDS_PER_REQUEST)
        ]

    def limited(self, known: ServerCells) -> ServerCells:
        """Return the cells of the index; those that have none of the given ids are empty."""
        if self.cells is None:
            return known
        return replace(known, sizes=np.isin(known.numbers, self.cells).astype(np.int64))


EVERY = ServerSelection()
"""All records."""


def server_selection(
    server: ServerConnection,
    schema: Schema,
    selection: Selection | None,
    concurrently: ConcurrentMap,
    strong: bool,
) -> ServerSelection:
    """Return a selection as filters of the server, after it has read the cells of the given ids.

    Args:
        server, schema: the connection and the schema of the index.
        selection: the selection; None for all records.
        concurrently: sends several requests at the same time.
        strong: whether to see everything that any client has written.

    Raises:
        InvalidParameterError: the filter is nested too deep for a server.
    """
    if selection is None:
        return EVERY
    where = "" if selection.where is None else server_filter(selection.where, schema.config.attributes)
    if selection.among is None:
        return ServerSelection(where)

    def find(part: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = server.read(
            "query", schema.name, filter=is_in("id", to_keys(part)), output_fields=["id", "cell"], strong=strong
        )
        return int_column(rows, "id"), int_column(rows, "cell")

    ids = selection.among.ids[selection.among.ids >= 0]
    parts = concurrently(find, [ids[start : start + _IDS_PER_LOOKUP] for start in range(0, len(ids), _IDS_PER_LOOKUP)])
    keys = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    cells = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    keys, first = np.unique(keys, return_index=True)
    return ServerSelection(where, keys, cells[first])
