"""`MilvusIndex`: the same index on a Milvus server, a cluster, or in an embedded file.

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
"""

import os

from indexes.errors import MissingDependencyError

# pymilvus reads this when it is imported, and fails if it is the name of a file, or no address at all.
_uri = os.environ.pop("MILVUS_URI", None)
try:
    import pymilvus  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(f"pymilvus does not load ({error}): run `pip install 'semcut[milvus]'`") from None
finally:
    if _uri is not None:
        os.environ["MILVUS_URI"] = _uri

from indexes.milvus.index import MilvusIndex  # noqa: E402

__all__ = ["MilvusIndex"]
