"""Index the field `cell` on the server, and write conditions on it that the index answers fast.

Every search names the cells that it keeps, so the server looks up their records before it compares codes. Without an
index it reads the cells of all records for that, which takes longer than a search among all records. `dominant` is in
no filter, except as the partition key, which has partitions instead.

Servers know different kinds of indexes for numbers; the first one that the server does not refuse is made: Milvus 2.3
has STL_SORT alone, and the C++ cores of milvus-lite INVERTED alone.

Collections that an earlier version of semcut has made have no such index: `MilvusIndex.flush` makes it. The server uses
it for records that it has sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.milvus.connection import RefusedCallError, ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import MilvusClient
from semcut.indexes.milvus.server_filter import joined

_KINDS = ("STL_SORT", "INVERTED")
_LONG_RUN = 256  # cells from which a range is faster than their list
_RANGES = 2  # many ranges are slower than a list


def index_scalars(server: ServerConnection, collection: str, fields: Sequence[str]) -> None:
    """Index INT64 fields of a collection, except for those that have an index, if the server can."""
    indexed = set(server.call("list_indexes", collection)) if fields else set()
    for field in fields:
        for kind in _KINDS if field not in indexed else ():
            params = MilvusClient.prepare_index_params()
            params.add_index(field_name=field, index_type=kind, index_name=field)
            try:
                server.call("create_index", collection, params, sync=False)  # sealed records get theirs later anyway
                break
            except RefusedCallError:
                continue


def cells_condition(kept: NDArray[np.int64], known: NDArray[np.int64]) -> str:
    """Return the condition that a record is in one of the kept cells, or in a cell that no bounds are known of.

    Args:
        kept: (n,) ascending numbers of cells, at least one.
        known: (m,) ascending numbers of all known cells.
    """
    places = np.searchsorted(known, kept)
    borders = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(kept)]
    runs = sorted(pairwise(borders), key=lambda run: run[0] - run[1])
    parts, listed = [], np.ones(len(kept), bool)
    for first, stop in runs[:_RANGES]:
        if stop - first >= _LONG_RUN:
            parts.append(f"cell >= {kept[first]} and cell <= {kept[stop - 1]}")
            listed[first:stop] = False
    if listed.any():
        parts.append(is_in("cell", kept[listed]))
    return joined("or", parts)
