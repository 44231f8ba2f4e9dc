"""Find out in which layout a server can store an index, by trying: versions do not say what a server can do.

There are three layouts, of which `schema` has the fields:

    whole        one collection with a BINARY_VECTOR and two FLOAT_VECTORs: Milvus 2.4 and newer
    apart        two collections, one with a BINARY_VECTOR, one with a FLOAT_VECTOR: Milvus 2.3
    floats       one collection with three FLOAT_VECTORs: milvus-lite 3, which has no BINARY_VECTOR

An empty collection with the vectors of a layout is created under a random name and dropped again. The first layout that
the server does not refuse is used.
"""

from __future__ import annotations

import secrets
from typing import Literal

from semcut.indexes.errors import SemcutError
from semcut.indexes.milvus.collection import Collection, Vector
from semcut.indexes.milvus.connection import RefusedCallError, ServerConnection
from semcut.indexes.milvus.pymilvus_internals import DataType

Kind = Literal["whole", "apart", "floats"]

_BINARY: Vector = ("code", DataType.BINARY_VECTOR, 8, "BIN_FLAT", "HAMMING")
_FLOATS: Vector = ("feature", DataType.FLOAT_VECTOR, 2, "FLAT", "L2")
_TRIED: list[tuple[Kind, list[Vector]]] = [("whole", [_BINARY, _FLOATS]), ("apart", [_BINARY])]


def choose_kind(server: ServerConnection) -> Kind:
    """Return the layout that the server supports.

    Raises:
        SemcutError: the server says that it is older than Milvus 2.3.
        ServerError: the server does not answer.
    """
    if (0, 0) < server.release < (2, 3):
        raise SemcutError(f"this is Milvus {server.version}, expected 2.3 or newer: upgrade it")
    return next((kind for kind, vectors in _TRIED if _can_create(server, vectors)), "floats")


def _can_create(server: ServerConnection, vectors: list[Vector]) -> bool:
    """Return whether the server creates a collection with these vectors. The collection is dropped at once."""
    one = Collection(
        f"semcut_trial_{secrets.token_hex(8)}", [("id", DataType.INT64, {"is_primary": True})], vectors, {}
    )
    try:
        one.create(server)
    except RefusedCallError:
        return False
    server.call("drop_collection", one.name)
    return True
