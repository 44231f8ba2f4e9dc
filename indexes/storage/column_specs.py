"""What each column of an index contains: its file format, and the rows of a batch.

The records of one batch are stored in order of their cells, batch after batch; a compaction stores all records in order
of their cells (`compaction`), so that a search reads contiguous rows. Rows are little-endian, without a header:

    column          one row                                                                  rows in a block
    ids             int64                                                                    128
    codes           bits / 8 x uint8                                                         128
    probabilities   C x float32, or m pairs of a class and a multiple of 2^-16, uint16 each  128
    features        D x float32, float16 or int8                                             128
    cells           int32, position of the record's cell in the catalogue                    128
    uri_ends        int64, where the record's uri ends in uri_bytes                          128
    uri_bytes       one byte of the uris: UTF-8, each followed by a zero byte                65,536
    removed         int64, row of a removed record (a tombstone), in order of removal        128

A record without a uri has no bytes in `uri_bytes`, not even the zero byte.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.scoring.packed_rows import packed
from semcut.indexes.stored_values import coded_features, feature_dtype, read_from_index

NAMES = ("ids", "codes", "probabilities", "features", "cells", "uri_ends", "uri_bytes", "removed")
PER_RECORD = NAMES[:6]
"""The columns with one row per record; the lengths of `uri_bytes` and `removed` differ from the number of records."""


class Spec(NamedTuple):
    """What a column file contains.

    Attributes:
        dtype, shape: of one row.
        block: the number of rows that share a checksum.
        values: the number of float32 values that a row stands for, if it is stored in another form (`stored_values`);
            0 for all other columns.
        step: what an integer of a row is multiplied with.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    block: int = 128
    values: int = 0
    step: float = 1.0

    @property
    def row_bytes(self) -> int:
        """Number of bytes per row."""
        return self.dtype.itemsize * math.prod(self.shape)


def specs(config: IndexConfig) -> dict[str, Spec]:
    """Return the spec of every column of an index, in the order of `NAMES`."""
    return {
        "ids": Spec(np.dtype("<i8"), ()),
        "codes": Spec(np.dtype("u1"), (config.bits // 8,)),
        "probabilities": _probabilities(config),
        "features": Spec(
            feature_dtype(config),
            (config.dim,),
            values=0 if config.stored_features == "float32" else config.dim,
            step=config.feature_step,
        ),
        "cells": Spec(np.dtype("<i4"), ()),
        "uri_ends": Spec(np.dtype("<i8"), ()),
        "uri_bytes": Spec(np.dtype("u1"), (), 1 << 16),
        "removed": Spec(np.dtype("<i8"), ()),
    }


def _probabilities(config: IndexConfig) -> Spec:
    if config.stored_probabilities == config.classes:
        return Spec(np.dtype("<f4"), (config.classes,))
    return Spec(np.dtype("<u2"), (2 * config.stored_probabilities,), values=config.classes)


def column_values(
    config: IndexConfig, encodings: Encodings, cells: NDArray[np.int32], uri_start: int
) -> dict[str, NDArray[Any]]:
    """Convert a batch to the rows of every column except `removed`, in order of cells.

    Args:
        config: the configuration of the index.
        encodings: n records, with ids.
        cells: (n,) position of each record's cell.
        uri_start: number of bytes that `uri_bytes` has before the batch.
    """
    assert encodings.ids is not None
    order = np.argsort(cells, kind="stable")
    uris = encodings.uris or ()
    texts = [b"" if uri is None else uri.encode() + b"\0" for uri in (uris[row] for row in order[: len(uris)].tolist())]
    lengths = [len(text) for text in texts] if texts else np.zeros(len(encodings), np.int64)
    if config.stored_probabilities == config.classes:
        probabilities: NDArray[Any] = encodings.probabilities
    elif encodings.packed is None:
        probabilities = packed(encodings.probabilities, config.stored_probabilities)
    else:
        probabilities = encodings.packed
    with read_from_index():  # other records have the values that are stored already
        features = coded_features(config, encodings.features) if encodings.coded is None else encodings.coded
    return {
        "ids": encodings.ids[order],
        "codes": encodings.codes[order],
        "probabilities": probabilities[order],
        "features": features[order],
        "cells": cells[order],
        "uri_ends": uri_start + np.cumsum(lengths, dtype=np.int64),
        "uri_bytes": np.frombuffer(b"".join(texts), np.uint8),
    }
