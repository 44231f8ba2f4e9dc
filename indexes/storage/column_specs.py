"""What each column of an index contains: its file format. `stored_rows` has the rows of a batch.

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
    attributes      the attributes of the record, see `attributes.attribute_rows`            128
    vocabulary      one byte of the values of categories, see `attributes.vocabulary`        65,536
    key_ends        int64, where the record's key ends in key_bytes                          128
    key_bytes       one byte of the keys: UTF-8, each followed by a zero byte                65,536

A record without a uri has no bytes in `uri_bytes`, not even the zero byte. An index whose records have no attributes
has neither `attributes` nor `vocabulary`, and one without keys neither of the last two columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from semcut.indexes.attributes.attribute_rows import row_dtype
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.config import IndexConfig
from semcut.indexes.scoring.packed_rows import are_packed
from semcut.indexes.stored_values import feature_dtype

_ALWAYS = ("ids", "codes", "probabilities", "features", "cells", "uri_ends", "uri_bytes", "removed")
_OF_ATTRIBUTES, _OF_KEYS = ("attributes", "vocabulary"), ("key_ends", "key_bytes")
NAMES = (*_ALWAYS, *_OF_ATTRIBUTES, *_OF_KEYS)
"""The columns that an index can have; `names_of` has those of one index."""
PER_RECORD = (*NAMES[:6], "attributes", "key_ends")
"""The columns with one row per record; the lengths of the others differ from the number of records."""


class Spec(NamedTuple):
    """What a column file contains.

    Attributes:
        dtype, shape: of one row.
        block: the number of rows that share a checksum.
        values: the number of float32 values that a row stands for, if it is stored in another form (`stored_values`);
            0 for all other columns.
        step: what an integer of a row is multiplied with.
        pairs: whether rows are pairs of a class and a multiple.
        types: the attributes of the index, of the columns of attributes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    block: int = 128
    values: int = 0
    step: float = 1.0
    pairs: bool = False
    types: Mapping[str, AttributeType] | None = None

    @property
    def row_bytes(self) -> int:
        """Number of bytes per row."""
        return self.dtype.itemsize * math.prod(self.shape)

    def written(self, data: bytes) -> bool:
        """Return whether semcut can have written rows of these bytes, as far as searches rely on it."""
        return not self.pairs or are_packed(np.frombuffer(data, self.dtype).reshape(-1, *self.shape), self.values)


def names_of(config: IndexConfig) -> tuple[str, ...]:
    """Return the names of the columns of an index, in the order of `NAMES`."""
    return (*_ALWAYS, *(_OF_ATTRIBUTES if config.attributes else ()), *(_OF_KEYS if config.string_ids else ()))


def specs(config: IndexConfig) -> dict[str, Spec]:
    """Return the spec of every column of an index, in the order of `NAMES`."""
    found = {
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
    if types := config.attributes:
        found["attributes"] = Spec(np.dtype("u1"), (row_dtype(types).itemsize,), types=types)
        found["vocabulary"] = Spec(np.dtype("u1"), (), 1 << 16, types=types)
    if config.string_ids:
        found["key_ends"] = Spec(np.dtype("<i8"), ())
        found["key_bytes"] = Spec(np.dtype("u1"), (), 1 << 16)
    return found


def _probabilities(config: IndexConfig) -> Spec:
    if config.stored_probabilities == config.classes:
        return Spec(np.dtype("<f4"), (config.classes,))
    return Spec(np.dtype("<u2"), (2 * config.stored_probabilities,), values=config.classes, pairs=True)
