"""`MilvusIndex`: the same index on a Milvus server, on a cluster, or in an embedded file (milvus-lite).

Its modules, in reading order:

address               check the address of a server or of an embedded file
pymilvus_internals    load pymilvus, and everything that relies on undocumented parts of it
embedded_file         share an embedded file between the connections of one process
connection            calls that end in time, with semcut's errors, and their consistency
schema                collections and their fields; encodings to rows and back
shared_rows           the collection that all clients share, and its rows
shared_state          what a client knows of it: bounds of cells, batches that are being written
lifecycle             create, open and drop an index
reader                records by id, page by page, and by number
writer                changes, in an order that leaves whole records wherever they stop
server_scanner        the scanner of a search: find the nearest codes on the server, fetch their records
consistent_search     a search, repeated if records vanished while it ran
milvus_index          `MilvusIndex`, which puts these together

Other rooms use `MilvusIndex`; `migration` and `semcut migrate` also use `address`, `connection`, `lifecycle` and the
errors of `server_scanner`. The names of collections and fields, the kinds of rows and `lifecycle.FORMAT_VERSION` are
the stored format: changing one needs a new format version.

pymilvus is loaded when `MilvusIndex` is first used, so the command line starts without it.
"""

from typing import TYPE_CHECKING

from semcut.indexes.errors import require as _require

_require({"pymilvus": "pymilvus"}, "reach Milvus", "milvus")

__all__ = ["LARGEST_BATCH", "MilvusIndex"]

LARGEST_BATCH = 16_384
"""The largest number of records in a batch of a migration."""

if TYPE_CHECKING:
    from semcut.indexes.milvus.milvus_index import MilvusIndex
else:

    def __getattr__(name: str) -> object:
        """Import `MilvusIndex` when it is first used."""
        if name != "MilvusIndex":
            raise AttributeError(f"module 'semcut.indexes.milvus' has no attribute {name!r}")
        from semcut.indexes.milvus.milvus_index import MilvusIndex

        return MilvusIndex
