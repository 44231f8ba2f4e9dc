"""`MilvusIndex`: the same index on a Milvus server, a cluster, or in an embedded file.

client       pymilvus, loaded in one place
address      which server or file is meant
server       a connection: what the server can do, calls that end in time, errors in words
layout       collections and their fields; encodings to rows and back
catalogue    what all clients share: bounds of cells, batches that are being written
making       making, finding and dropping an index
reader       records by id, page and number
writer       changes, in an order that leaves whole records behind, wherever they stop
hits         the shortlist engine: records that a search has asked the server for
index        `MilvusIndex`
migration    a stored `FaissIndex` to Milvus and back; `cli` is `semcut migrate`

pymilvus is loaded when `MilvusIndex` is first used: the command line starts without it.
"""

from typing import TYPE_CHECKING

from semcut.indexes.errors import require as _require

_require({"pymilvus": "pymilvus"}, "reach Milvus", "milvus")

__all__ = ["LARGEST_BATCH", "MilvusIndex"]

LARGEST_BATCH = 16_384
"""Records in a batch of a migration, at most."""

if TYPE_CHECKING:
    from semcut.indexes.milvus.milvus_index import MilvusIndex
else:

    def __getattr__(name: str) -> object:
        """Import `MilvusIndex` when it is first used."""
        if name != "MilvusIndex":
            raise AttributeError(f"module 'semcut.indexes.milvus' has no attribute {name!r}")
        from semcut.indexes.milvus.milvus_index import MilvusIndex

        return MilvusIndex
