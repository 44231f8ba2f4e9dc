"""`MilvusIndex`: the same index on a Milvus server, a cluster, or in an embedded file.

server       a connection: what the server can do, calls that end in time, errors in words
layout       collections and their fields; encodings to rows and back
catalogue    what all clients share: the configuration, bounds of cells, batches that are being written
hits         the shortlist engine: which records a search has asked the server for
index        `MilvusIndex`
migration    a stored `FaissIndex` to Milvus and back, with `semcut migrate`
"""

from indexes.errors import MissingDependencyError

try:
    import pymilvus  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(f"pymilvus does not load ({error}): run `pip install 'semcut[milvus]'`") from None

from indexes.milvus.index import MilvusIndex

__all__ = ["MilvusIndex"]
