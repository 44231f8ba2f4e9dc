"""`MilvusIndex`: the same index on a Milvus server, on a cluster, or in an embedded file (milvus-lite).

Its modules, in reading order:

address               check the address of a server or of an embedded file
pymilvus_internals    load pymilvus, and use its undocumented parts
embedded_file         share an embedded file between the connections of one process
connection            call the server with a deadline, repetitions, a consistency level, and semcut's errors
collection            define a collection, and create it
layout                find out by trying in which layout the server can store an index
attribute_fields      define the fields of attributes, and convert their values
key_field             define the field of keys, and read it
schema                define collections and fields; convert encodings to rows and back
server_filter         write a filter on attributes as a filter of the server
scalar_index          index the cells of records, and write conditions on them
shared_rows           define the collection that all clients share, and its rows
shared_state          read and publish the shared rows: bounds of cells, batches that are being written
server_selection      what a search is limited to: a filter, ids or both, as filters of the server
lifecycle             create, open and drop an index
copy_mark             mark an index while it is filled by a copy
reader                read records by id, by cell, or page by page, and count them
writer                change records, in an order that keeps every record whole if a change is interrupted
server_scanner        the scanner of a search: find the nearest codes on the server, fetch their records
consistent_search     search, and repeat the search if records vanished while it ran
milvus_index          `MilvusIndex`, which combines these modules
index_note            keep a text of a caller beside an index

Other packages use `MilvusIndex`, `LARGEST_BATCH`, `index_note` and `address`; `migration` and `semcut migrate` also use
`connection`, `lifecycle` and the errors of `server_scanner`. The names of collections and fields, the kinds of rows and
`lifecycle.FORMAT_VERSION`, or `KEYED` for an index with keys, are the stored format: changing one needs a new format
version.

pymilvus is loaded when `MilvusIndex` is first used, so the command line starts without it.
"""

from typing import TYPE_CHECKING

from semcut.indexes.errors import require as _require

_require({"pymilvus": "pymilvus"}, "connect to Milvus", "milvus")

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
