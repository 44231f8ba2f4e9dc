"""Define the collection `name_catalogue`, whose rows all clients of an index share, and its rows.

Every row has an INT64 primary key `key`. Keys are drawn at random, except those of the kinds CONFIG,
UNFINISHED and NOTE. The INT64 field
`cell` is the number of a cell, or the kind of the row:

    cell >= 0    bounds: no probability of a record of the cell is above the FLOAT_VECTOR `envelope`, p(c) >= `low`, and
                 no mass is above `text`, a decimal number; without a text, above `LARGEST_UNIT_MASS`. Such a row is
                 never changed. The bounds of a cell are the widest over all of its rows.
    WRITER       one row per client that has written, which only that client changes. `text` is the JSON of a
                 `WriterState`.
    CONFIG       configuration: `text` is a part of a JSON text, `key` the number of the part, `low` the number of
                 parts. These rows are written once, when all other parts of the index exist.
    UNNORMALISED_FEATURES
                 some features may not be L2-normalised
    IDENTITY     `text` is a random text, drawn when the index was created. It shows whether the index was dropped and
                 created again.
    UNFINISHED   the index is being filled, see `copy_mark`
    NOTE         `text` is a text that a caller keeps beside the index, see `index_note`
"""

from __future__ import annotations

import secrets
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.milvus.collection import Collection, Scalar, Vector
from semcut.indexes.milvus.pymilvus_internals import DataType
from semcut.indexes.probability_rows import LARGEST_UNIT_MASS
from semcut.indexes.pruning.cells import Cells

WRITER, CONFIG, UNNORMALISED_FEATURES, IDENTITY, UNFINISHED, NOTE = -1, -2, -3, -4, -5, -6
"""Values of the field `cell` in rows that are not bounds of a cell."""

FIELDS = {"key", "cell", "low", "text", "envelope"}
"""The fields of the collection, by which it is recognised."""

Range = tuple[int, int]
"""The first and the last of consecutive values of `row`."""


class WriterState(TypedDict):
    """The state of its changes that a client publishes; stored as JSON.

    Attributes:
        changes: number of changes that the client has made, for `MilvusIndex.version`.
        bounds: number of changes that added bounds. Other clients read the bounds again when this number grows.
        hidden: ranges of rows that readers leave out: the batch that is being added, and batches that failed.
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
    # The queries that read it page by page have the consistency of the collection (see `ServerConnection.pages`).
    options = {"num_shards": 1, "consistency_level": "Strong"}
    return Collection(shared_collection_name(name), scalars, [envelope], options)


def shared_row(
    classes: int,
    *,
    cell: int,
    key: int | None = None,
    low: float = 0.0,
    text: str = "",
    envelope: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Return a row of the collection.

    Args:
        classes: number of classes of the index.
        cell: the number of the cell, or the kind of the row.
        key: the primary key; None draws one at random.
        low, text, envelope: the other fields. Milvus needs an envelope in every row; None gives zeros.
    """
    return {
        "key": secrets.randbits(62) if key is None else key,
        "cell": cell,
        "low": low,
        "text": text,
        "envelope": np.zeros(classes, np.float32) if envelope is None else envelope,
    }


def bounds_row(cells: Cells, at: int) -> dict[str, Any]:
    """Return the arguments of `shared_row` for the bounds of the cell at a position."""
    return {
        "cell": int(cells.numbers[at]),
        "low": float(cells.lows[at]),
        "envelope": cells.envelopes[at],
        "text": repr(float(cells.masses[at])),
    }


def masses_of(texts: list[str]) -> NDArray[np.float32]:
    """Return the largest masses that the texts of (n,) rows of bounds state: (n,) float32.

    Raises:
        DamagedIndexError: a text is not a number that is possible.
    """
    try:
        masses = np.array([float(text) if text else LARGEST_UNIT_MASS for text in texts], np.float32)
    except ValueError:
        masses = np.array([np.nan], np.float32)
    if not ((masses >= 0) & np.isfinite(masses)).all():
        raise DamagedIndexError("the shared rows of the index cannot be read: migrate it again")
    return masses
