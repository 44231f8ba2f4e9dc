"""Define how Milvus stores the records of an index: collections, fields, and the conversion of encodings to rows.

There are three kinds of schemas; what the server can store decides which one is used (see `layout`):

    whole        one collection `name`: BINARY_VECTOR `code` (HAMMING), FLOAT_VECTORs `feature` and `probabilities`.
                 For Milvus 2.4 and newer, where a collection may have several vector fields.
    apart        two collections, since Milvus 2.3 allows one vector field per collection: `name` with the codes, and
                 `name_records`, where FLOAT_VECTOR `record` has the feature, the probabilities and the code's bytes.
    floats       as `whole`, with FLOAT_VECTOR `code` of -1 and +1 (L2, four times the Hamming distance). For
                 milvus-lite, which has no BINARY_VECTOR.

The collection `name` decides which records exist. Its other fields are

    id           INT64, the primary key. Milvus 2.3 loses the largest INT64 in pages and lists, so that id is stored
                 as -1.
    row          INT64, different for every write of a record. The rows of a batch are consecutive, so a range of rows
                 identifies the batch (see `shared_state`). It is the primary key of `name_records`: an upsert writes a
                 new row there, then points the id to that row in one step, then deletes the previous row. No reader
                 sees a mixture.
    cell         INT64, the number of the record's cell (see `pruning.cell_table`)
    dominant     INT64, the record's dominant class; the partition key if the index was created with one
    flags        INT8: 1 if the feature is not L2-normalised, plus 2 if there is a uri
    uri          VARCHAR; in `name_records` if that collection exists
    key          VARCHAR, if the index has keys (see `key_field`); `name_records` has it, too
    attribute_*  the attributes (see `attribute_fields`), which filters read; `name_records` has them, too, so that a
                 record is read whole

Vectors are indexed by FLAT and BIN_FLAT, which are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings, is_unnormalised
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError, shown
from semcut.indexes.milvus.attribute_fields import (
    attribute_fields,
    check_floats,
    field_of,
    read_attributes,
    stored_fields,
    text_bytes,
)
from semcut.indexes.milvus.collection import Collection, Scalar, Vector
from semcut.indexes.milvus.key_field import BYTES_PER_CHARACTER, KEY, key_fields, read_keys
from semcut.indexes.milvus.layout import Kind
from semcut.indexes.milvus.pymilvus_internals import (
    DataType,
    binary_vectors,
    float_vectors,
    int_column,
    text_column,
)
from semcut.indexes.pruning.cell_table import cell_numbers
from semcut.indexes.stored_values import norm_tolerance

UNNORMALISED, WITH_URI = 1, 2
"""Bits of `flags`."""

MAX_URI = 65_535
"""The largest number of bytes of a uri."""

CODE_FIELDS, RECORD_FIELDS = {"id", "row", "cell", "dominant", "flags", "code"}, {"row", "id", "flags", "uri", "record"}
"""Fields by which the collections `name` and `name_records` are recognised."""

_MAX_DIM = 32_768  # values of a vector
_MAX_FIELDS = 64  # of a collection
_LARGEST_ID = np.iinfo(np.int64).max
_PARTITIONS = 64
_CALL_BYTES = 1 << 23  # bytes of vectors in one call


@dataclass(frozen=True)
class Schema:
    """The collections of one index.

    Attributes:
        name: the name of the collection that decides which records exist; the names of the others start with it.
        kind: "whole", "apart" or "floats", see the description of this module.
        config: the configuration of the index.
        partition_key: whether `dominant` is the partition key.
    """

    name: str
    kind: Kind
    config: IndexConfig
    partition_key: bool = False

    @property
    def record_collection(self) -> str:
        """The name of the collection that stores whole records."""
        return f"{self.name}_records" if self.kind == "apart" else self.name

    @property
    def record_key(self) -> str:
        """The primary key of the collection that stores whole records."""
        return "row" if self.kind == "apart" else "id"

    @property
    def record_vectors(self) -> list[str]:
        """The vector fields of a whole record, which contain the whole record except for its id and uri."""
        return ["record"] if self.kind == "apart" else ["code", "feature", "probabilities"]

    @property
    def record_fields(self) -> list[str]:
        """The fields of a whole record, for `encodings`."""
        return ["id", "flags", "uri", *self.key_field, *map(field_of, self.config.attributes), *self.record_vectors]

    @property
    def key_field(self) -> list[str]:
        """The field of the keys; none if the index has no keys."""
        return [KEY] if self.config.string_ids else []

    @property
    def indexed_fields(self) -> list[str]:
        """The fields of the collection `name` that have an index of their own. milvus-lite reads all rows anyway."""
        return [] if self.kind == "floats" else ["cell"]

    @property
    def metric(self) -> str:
        """The metric by which codes are searched."""
        return "L2" if self.kind == "floats" else "HAMMING"

    @property
    def rows_per_call(self) -> int:
        """The largest number of records in one call."""
        return max(16, min(4096, _CALL_BYTES // self._vector_bytes))

    @property
    def _vector_bytes(self) -> int:
        """An upper bound for the bytes of a record's vectors."""
        return 4 * (self.config.dim + self.config.classes + self.config.bits)

    def collections(self) -> list[Collection]:
        """Define the collections that store the records.

        Raises:
            InvalidParameterError: the records are too wide for Milvus, or have too many attributes.
        """
        config = self.config
        width = config.dim + config.classes + config.bits // 8
        if self.kind == "apart" and width > _MAX_DIM:
            raise InvalidParameterError(
                f"{config.dim} feature values, {config.classes} classes and {config.bits // 8} bytes of code are "
                f"{width} values together, but at most {_MAX_DIM} fit on Milvus 2.3: use Milvus 2.4 or newer"
            )
        if config.dim > _MAX_DIM:
            raise InvalidParameterError(f"Milvus stores at most {_MAX_DIM} feature values, not {config.dim}")
        key: dict[str, Any] = {"is_partition_key": True} if self.partition_key else {}
        options: dict[str, Any] = {"num_partitions": _PARTITIONS} if self.partition_key else {}
        flags: Scalar = ("flags", DataType.INT8, {})
        uri: Scalar = ("uri", DataType.VARCHAR, {"max_length": MAX_URI})
        chosen = [*key_fields(config.string_ids), *attribute_fields(config.attributes)]
        scalars: list[Scalar] = [
            ("id", DataType.INT64, {"is_primary": True}),
            ("row", DataType.INT64, {}),
            ("cell", DataType.INT64, {}),
            ("dominant", DataType.INT64, key),
            flags,
            *chosen,
        ]
        most = _MAX_FIELDS - (len(scalars) - len(config.attributes)) - 4  # uri, code, feature, probabilities
        if len(config.attributes) > most:
            raise InvalidParameterError(
                f"there are {len(config.attributes)} attributes, but at most {most} fit on Milvus: leave some out"
            )
        code: Vector = ("code", DataType.BINARY_VECTOR, config.bits, "BIN_FLAT", "HAMMING")
        if self.kind == "floats":
            code = ("code", DataType.FLOAT_VECTOR, config.bits, "FLAT", "L2")
        if self.kind == "apart":
            key_and_id: list[Scalar] = [("row", DataType.INT64, {"is_primary": True}), ("id", DataType.INT64, {})]
            record: Vector = ("record", DataType.FLOAT_VECTOR, width, "FLAT", "L2")
            return [
                Collection(self.record_collection, [*key_and_id, flags, uri, *chosen], [record], {}),
                Collection(self.name, scalars, [code], options),
            ]
        feature: Vector = ("feature", DataType.FLOAT_VECTOR, max(2, config.dim), "FLAT", "L2")
        probabilities: Vector = ("probabilities", DataType.FLOAT_VECTOR, config.classes, "FLAT", "L2")
        return [Collection(self.name, [*scalars, uri], [code, feature, probabilities], options)]

    # encodings to rows

    def call_slices(self, encodings: Encodings) -> Iterator[slice]:
        """Divide a batch into slices that are small enough for one call each."""
        uris = encodings.uris if encodings.uris is not None else [None] * len(encodings)
        keys = encodings.keys if encodings.keys is not None else [""] * len(encodings)
        texts = text_bytes(encodings.attributes, self.config.attributes, len(encodings))
        ends = np.cumsum(
            [
                self._vector_bytes + BYTES_PER_CHARACTER * (len(uri or "") + len(key)) + size
                for uri, key, size in zip(uris, keys, texts, strict=True)
            ]
        )
        start = 0
        while start < len(uris):
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + _CALL_BYTES, side="right"))
            stop = min(max(stop, start + 1), start + self.rows_per_call)
            yield slice(start, stop)
            start = stop

    def check_storable(self, encodings: Encodings) -> None:
        """Raise `InvalidEncodingsError` if a uri is too long for Milvus, or a float marks missing values there."""
        check_floats(self.config.attributes, encodings.attributes)
        for uri in encodings.uris or ():
            if uri is not None and len(uri) > MAX_URI // 4 and len(uri.encode()) > MAX_URI:
                raise InvalidEncodingsError(
                    f"the uri {shown(uri)} has {len(uri.encode())} bytes, at most {MAX_URI} fit into Milvus"
                )

    def query_codes(self, codes: NDArray[np.uint8]) -> list[Any]:
        """Convert codes to the vectors of the field `code`: (n, bits / 8) uint8 to n vectors."""
        if self.kind == "floats":
            return list(np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1)
        return [bytes(code) for code in codes]

    def rows(self, encodings: Encodings, first: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Convert records to rows of `name`, and to rows of `name_records` (none unless the kind is "apart").

        Args:
            encodings: n records with ids.
            first: the `row` of the first record; each further record has the next number.
        """
        assert encodings.ids is not None
        count, config = len(encodings), self.config
        cells = cell_numbers(config, encodings.probabilities)[0]
        uris = encodings.uris if encodings.uris is not None else [None] * count
        flags = is_unnormalised(encodings.features, norm_tolerance(config)) * UNNORMALISED
        flags = flags + np.array([uri is not None for uri in uris], np.int64) * WITH_URI
        scalars = {
            "id": to_keys(encodings.ids).tolist(),
            "row": range(first, first + count),
            "cell": cells.tolist(),
            "dominant": encodings.probabilities.argmax(axis=1).tolist(),
            "flags": flags.astype(int).tolist(),
        }
        chosen = {KEY: encodings.keys} if config.string_ids else {}
        chosen |= stored_fields(config.attributes, encodings.attributes, count)
        code = self.query_codes(encodings.codes)
        uri = ["" if uri is None else uri for uri in uris]
        if self.kind == "apart":
            record = np.hstack([encodings.features, encodings.probabilities, encodings.codes.astype(np.float32)])
            records = {name: scalars[name] for name in ("row", "id", "flags")} | {"uri": uri, "record": record}
            return _dicts(scalars | chosen | {"code": code}), _dicts(records | chosen)
        feature = np.pad(encodings.features, ((0, 0), (0, max(0, 2 - config.dim))))
        whole = {"uri": uri, "code": code, "feature": feature, "probabilities": encodings.probabilities}
        return _dicts(scalars | chosen | whole), []

    # rows to encodings

    def columns(self, rows: Any) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Return the probabilities, codes and features of rows of `record_collection` with all `record_vectors`."""
        config = self.config
        if self.kind == "apart":
            whole = float_vectors(rows, "record", config.dim + config.classes + config.bits // 8)
            parts = np.split(whole, [config.dim, config.dim + config.classes], axis=1)
            return parts[1], parts[2].astype(np.uint8), parts[0]
        if self.kind == "floats":
            codes = np.packbits(float_vectors(rows, "code", config.bits) > 0, axis=1)
        else:
            codes = binary_vectors(rows, "code", config.bits // 8)
        features = float_vectors(rows, "feature", max(2, config.dim))[:, : config.dim]
        return float_vectors(rows, "probabilities", config.classes), codes, features

    def encodings(self, rows: Any) -> Encodings:
        """Convert rows of `record_collection`, with all `record_fields`, to a batch in their order.

        Raises:
            SemcutError: a row is no valid record.
        """
        probabilities, codes, features = self.columns(rows)
        uris = [
            uri if flag & WITH_URI else None
            for uri, flag in zip(text_column(rows, "uri"), int_column(rows, "flags").tolist(), strict=True)
        ]
        ids = to_ids(int_column(rows, "id"))
        return Encodings(
            probabilities=probabilities,
            codes=codes,
            features=features,
            ids=ids,
            uris=uris if any(uri is not None for uri in uris) else None,
            attributes=read_attributes(self.config.attributes, rows),
            keys=read_keys(rows, ids) if self.config.string_ids else None,
            any_mass=True,
        )


def check_name(name: str) -> str:
    """Check the name of a collection and return it.

    Raises:
        InvalidParameterError: Milvus would refuse the name.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name):
        raise InvalidParameterError(
            f"collection = {shown(name)}, expected up to 200 letters, digits and underscores, no digit first"
        )
    return name


def to_keys(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Convert ids to primary keys: the largest INT64 becomes -1."""
    return np.where(ids == _LARGEST_ID, -1, ids)


def to_ids(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Convert primary keys to ids: -1 becomes the largest INT64."""
    return np.where(keys == -1, _LARGEST_ID, keys)


def _dicts(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert columns of the same length to one dict per row."""
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
