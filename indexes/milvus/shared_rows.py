"""Define the collection `name_catalogue`, whose rows all clients of an index share, and the rows in it.

Every row has an INT64 primary key `key`. Keys are drawn at random, except those of the configuration. The INT64 `cell`
says what kind of row it is:

    cell >= 0    bounds: every record of the cell lies under the FLOAT_VECTOR `envelope` and has p(c) >= `low`.
                 Never changed, only added. The cell's envelope is the maximum over all of its rows.
    WRITER       one row per client that has written, which only that client changes. `text` is the JSON of a
                 `WriterState`.
    CONFIG       configuration: `text` is a part of a JSON text, `key` the number of the part, `low` how many parts
                 there are. Written once, when everything else of the index exists.
    UNNORMALISED_FEATURES
                 some features may not be L2-normalised
    IDENTITY     `text` is a random text, drawn when the index was created: it differs if the index was dropped and
                 created again
"""

from __future__ import annotations

import secrets
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.milvus.pymilvus_internals import DataType
from semcut.indexes.milvus.schema import Collection, Scalar, Vector

WRITER, CONFIG, UNNORMALISED_FEATURES, IDENTITY = -1, -2, -3, -4
"""Kinds of rows that are no bounds of a cell."""

FIELDS = {"key", "cell", "low", "text", "envelope"}
"""The fields of the collection, by which it is recognised."""

Range = tuple[int, int]
"""The first and the last of consecutive values of `row`."""


class WriterState(TypedDict):
    """What a client publishes about its changes; stored as JSON.

    Attributes:
        changes: how many changes the client has made, for `MilvusIndex.version`.
        bounds: how many of its changes added bounds: other clients read bounds again when it grows.
        hidden: ranges of rows that readers leave out: of the batch that is being added, and of batches taken back.
        at: when the row was written, in seconds since 1970.
        left: whether the client has closed the index.
    """

    changes: int
    bounds: int
    hidden: list[Range]
    at: int
    left: bool


def shared_collection_name(name: str) -> str:
    """Return the name of the collection with the shared rows of an index."""
    return f"{name}_catalogue"


def shared_collection(name: str, classes: int) -> Collection:
    """Define the collection with the shared rows of an index."""
    scalars: list[Scalar] = [
        ("key", DataType.INT64, {"is_primary": True}),
        ("cell", DataType.INT64, {}),
        ("low", DataType.FLOAT, {}),
        ("text", DataType.VARCHAR, {"max_length": 65_535}),
    ]
    # One shard keeps the order of writes: a client that sees a row sees all rows written before it.
    envelope: Vector = ("envelope", DataType.FLOAT_VECTOR, classes, "FLAT", "L2")
    return Collection(shared_collection_name(name), scalars, [envelope], {"num_shards": 1})


def shared_row(
    classes: int,
    *,
    cell: int,
    key: int | None = None,
    low: float = 0.0,
    text: str = "",
    envelope: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Make a row of the collection.

    Args:
        classes: of the index.
        cell: the number of the cell, or the kind of the row.
        key: the primary key; None draws one at random.
        low, text, envelope: as above. Milvus needs an envelope in every row; None gives zeros.
    """
    return {
        "key": secrets.randbits(62) if key is None else key,
        "cell": cell,
        "low": low,
        "text": text,
        "envelope": np.zeros(classes, np.float32) if envelope is None else envelope,
    }
