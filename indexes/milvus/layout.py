"""Find out in which layout a server can store an index, by trying: versions do not say what a server can do.

There are three layouts, of which `schema` has the fields:

    whole        one collection with a BINARY_VECTOR and two FLOAT_VECTORs: Milvus 2.4 and newer
    apart        two collections, one with a BINARY_VECTOR, one with a FLOAT_VECTOR: Milvus 2.3
    floats       one collection with three FLOAT_VECTORs: milvus-lite 3, which has no BINARY_VECTOR

An empty collection with the vectors of a layout is created under a random name and dropped again. The first layout that
the server does not refuse is used. A refusal by a server whose version has the layout has another reason, such as a
quota, so it is an error.
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
_TRIED: list[tuple[Kind, tuple[int, int], list[Vector]]] = [
    ("whole", (2, 4), [_BINARY, _FLOATS]),
    ("apart", (2, 3), [_BINARY]),
]
"""Layouts, the versions of Milvus from which on servers have them, and vectors to try."""


def choose_kind(server: ServerConnection) -> Kind:
    """Return the layout that the server supports.

    Raises:
        SemcutError: the server says that it is older than Milvus 2.3.
        ServerError: the server does not answer, or refuses what its version can do.
    """
    if (0, 0) < server.release < (2, 3):
        raise SemcutError(f"this is Milvus {server.version}, expected 2.3 or newer: upgrade it")
    for kind, since, vectors in _TRIED:
        refusal = _refusal(server, vectors)
        if refusal is None:
            return kind
        if not server.embedded and server.release >= since:
            raise refusal
    return "floats"


def _refusal(server: ServerConnection, vectors: list[Vector]) -> RefusedCallError | None:
    """Create an empty collection with these vectors, and drop it; return the error if the server refuses to."""
    one = Collection(
        f"semcut_trial_{secrets.token_hex(8)}", [("id", DataType.INT64, {"is_primary": True})], vectors, {}
    )
    try:
        one.create(server)
    except RefusedCallError as error:
        return error
    server.call("drop_collection", one.name)
    return None
