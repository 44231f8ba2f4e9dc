"""How an index lies in Milvus: collections, their fields, and encodings as their rows and back.

    whole        one collection `name`: BINARY_VECTOR `code` (HAMMING), FLOAT_VECTORs `feature` and `probabilities`.
                 Where a collection may have several vector fields: Milvus 2.4 and newer.
    apart        two collections, for one vector field is all that Milvus 2.3 allows: `name` with the codes, and
                 `name_records`, where FLOAT_VECTOR `record` is the feature, the probabilities and the code's bytes.
    floats       as `whole`, with FLOAT_VECTOR `code` of -1 and +1 (L2, four times the Hamming distance). Where there
                 is no BINARY_VECTOR: milvus-lite.

The collection `name` says which records there are. Its other fields:

    id           INT64, the primary key. Milvus 2.3 loses the largest INT64 in pages and lists; that id is kept as -1.
    row          INT64, unique to one writing of the record. Rows of a batch are consecutive, so that a batch can be
                 named by a range, see `catalogue`. It is the primary key of `name_records`: an upsert writes a new row
                 there, then points to it in one step, then deletes the old one, and is never seen in between.
    cell         INT64, the number of the record's cell (`indexes.partitions`)
    dominant     INT64, its class; the partition key, if that was asked for
    flags        INT8: 1 the feature is not of length 1, 2 there is a uri
    uri          VARCHAR

Vectors are indexed by FLAT and BIN_FLAT, which are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings, is_unnormalised
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError, SemcutError, shown
from semcut.indexes.milvus.client import DataType, MilvusClient
from semcut.indexes.milvus.connection import Server, bits, floats, integers, texts
from semcut.indexes.pruning.cell_table import cell_numbers

Kind = Literal["whole", "apart", "floats"]

LOOSE, WITH_URI = 1, 2
MAX_URI = 65_535
"""Bytes of a uri that fit."""

CODES, RECORDS = {"id", "row", "cell", "dominant", "flags", "code"}, {"row", "id", "flags", "uri", "record"}
"""Fields that the collections have by which they are known: `name`, and `name_records`."""

_MAX_DIM = 32_768
_LARGEST = np.iinfo(np.int64).max
_PARTITIONS = 64
_CALL_BYTES = 1 << 23  # of vectors in one call


Scalar = tuple[str, DataType, dict[str, Any]]
"""A field: name, type, options."""

Vector = tuple[str, DataType, int, str, str]
"""A field: name, type, dim, kind of index, metric."""


@dataclass(frozen=True)
class Collection:
    """A collection to be made.

    Attributes:
        name, scalars, vectors, options: of it.
    """

    name: str
    scalars: list[Scalar]
    vectors: list[Vector]
    options: dict[str, Any]

    def __str__(self) -> str:
        """Its fields."""
        fields = [f"{name} {kind.name}" for name, kind, _ in self.scalars]
        return ", ".join(fields + [f"{name} {kind.name}({dim}) {index}" for name, kind, dim, index, _ in self.vectors])

    def create(self, server: Server) -> None:
        """Make it. It cannot be used before `prepare`."""
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description="semcut")
        for name, kind, extra in self.scalars:
            schema.add_field(name, kind, **extra)
        for name, kind, dim, _, _ in self.vectors:
            schema.add_field(name, kind, dim=dim)
        server.call("create_collection", self.name, schema=schema, consistency_level="Session", **self.options)

    def prepare(self, server: Server) -> None:
        """Index its vectors and load it, which takes seconds."""
        indexes = MilvusClient.prepare_index_params()
        for name, _, _, index, metric in self.vectors:
            indexes.add_index(field_name=name, index_type=index, metric_type=metric)
        server.call("create_index", self.name, indexes)
        server.call("load_collection", self.name)


@dataclass(frozen=True)
class Schema:
    """The collections of one index.

    Attributes:
        name: of the collection; the others are named after it.
        kind: see above.
        config: the shape of the index.
        partition_key: whether `dominant` is the partition key.
    """

    name: str
    kind: Kind
    config: IndexConfig
    partition_key: bool = False

    @property
    def records(self) -> str:
        """The collection with whole records."""
        return f"{self.name}_records" if self.kind == "apart" else self.name

    @property
    def key(self) -> str:
        """Its primary key."""
        return "row" if self.kind == "apart" else "id"

    @property
    def vectors(self) -> list[str]:
        """Its vector fields, which together hold a record but for id and uri."""
        return ["record"] if self.kind == "apart" else ["code", "feature", "probabilities"]

    @property
    def metric(self) -> str:
        """Of codes."""
        return "L2" if self.kind == "floats" else "HAMMING"

    @property
    def batch(self) -> int:
        """Records that go into one call."""
        width = 4 * (self.config.dim + self.config.classes + self.config.bits)
        return max(16, min(4096, _CALL_BYTES // width))

    def collections(self) -> list[Collection]:
        """What the index consists of, but for its catalogue.

        Raises:
            InvalidParameterError: records are too wide for it.
        """
        config = self.config
        whole = config.dim + config.classes + config.bits // 8
        if self.kind == "apart" and whole > _MAX_DIM:
            raise InvalidParameterError(
                f"{config.dim} feature values, {config.classes} classes and {config.bits // 8} bytes of code are "
                f"{whole} together, at most {_MAX_DIM} fit on Milvus 2.3: use 2.4 or newer"
            )
        if config.dim > _MAX_DIM:
            raise InvalidParameterError(f"Milvus holds at most {_MAX_DIM} feature values, not {config.dim}")
        key: dict[str, Any] = {"is_partition_key": True} if self.partition_key else {}
        options: dict[str, Any] = {"num_partitions": _PARTITIONS} if self.partition_key else {}
        flags: Scalar = ("flags", DataType.INT8, {})
        uri: Scalar = ("uri", DataType.VARCHAR, {"max_length": MAX_URI})
        scalars: list[Scalar] = [
            ("id", DataType.INT64, {"is_primary": True}),
            ("row", DataType.INT64, {}),
            ("cell", DataType.INT64, {}),
            ("dominant", DataType.INT64, key),
            flags,
        ]
        code: Vector = ("code", DataType.BINARY_VECTOR, config.bits, "BIN_FLAT", "HAMMING")
        if self.kind == "floats":
            code = ("code", DataType.FLOAT_VECTOR, config.bits, "FLAT", "L2")
        if self.kind == "apart":
            key_and_id: list[Scalar] = [("row", DataType.INT64, {"is_primary": True}), ("id", DataType.INT64, {})]
            record: Vector = ("record", DataType.FLOAT_VECTOR, whole, "FLAT", "L2")
            return [
                Collection(self.records, [*key_and_id, flags, uri], [record], {}),
                Collection(self.name, scalars, [code], options),
            ]
        feature: Vector = ("feature", DataType.FLOAT_VECTOR, max(2, config.dim), "FLAT", "L2")
        probabilities: Vector = ("probabilities", DataType.FLOAT_VECTOR, config.classes, "FLAT", "L2")
        return [Collection(self.name, [*scalars, uri], [code, feature, probabilities], options)]

    def parts(self, encodings: Encodings) -> Iterator[slice]:
        """A batch in parts, each of which goes into one call."""
        config = self.config
        uris = encodings.uris if encodings.uris is not None else [None] * len(encodings)
        width = 4 * (config.dim + config.classes + config.bits)
        ends = np.cumsum(
            [width + (0 if uri is None else 4 * len(uri)) for uri in uris]
        )  # a character is 4 bytes or less
        start = 0
        while start < len(uris):
            done = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, done + _CALL_BYTES, side="right"))
            stop = min(max(stop, start + 1), start + self.batch)
            yield slice(start, stop)
            start = stop

    # encodings to rows

    def check(self, encodings: Encodings) -> None:
        """Raise `InvalidEncodingsError` if there is a uri that is too long."""
        for uri in encodings.uris or ():
            if uri is not None and len(uri) > MAX_URI // 4 and len(uri.encode()) > MAX_URI:
                raise InvalidEncodingsError(
                    f"the uri {shown(uri)} has {len(uri.encode())} bytes, at most {MAX_URI} fit into Milvus"
                )

    def rows(self, encodings: Encodings, first: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """A batch with ids as rows of `name`, and of `name_records` (none if that is the same).

        Args:
            encodings: n records.
            first: their rows start there.
        """
        assert encodings.ids is not None
        count, config = len(encodings), self.config
        cells = cell_numbers(config, encodings.probabilities)[0]
        uris = encodings.uris if encodings.uris is not None else [None] * count
        flags = (
            is_unnormalised(encodings.features) * LOOSE
            + np.array([uri is not None for uri in uris], np.int64) * WITH_URI
        )
        scalars = {
            "id": to_keys(encodings.ids).tolist(),
            "row": range(first, first + count),
            "cell": cells.tolist(),
            "dominant": encodings.probabilities.argmax(axis=1).tolist(),
            "flags": flags.astype(int).tolist(),
        }
        code: Any = [bytes(row) for row in encodings.codes]
        if self.kind == "floats":
            code = np.unpackbits(encodings.codes, axis=1).astype(np.float32) * 2 - 1
        uri = ["" if uri is None else uri for uri in uris]
        if self.kind == "apart":
            record = np.hstack([encodings.features, encodings.probabilities, encodings.codes.astype(np.float32)])
            records = {name: scalars[name] for name in ("row", "id", "flags")} | {"uri": uri, "record": record}
            return _dicts(scalars | {"code": code}), _dicts(records)
        feature = np.pad(encodings.features, ((0, 0), (0, max(0, 2 - config.dim))))
        whole = {"uri": uri, "code": code, "feature": feature, "probabilities": encodings.probabilities}
        return _dicts(scalars | whole), []

    # rows to encodings

    def columns(self, rows: Any) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Probabilities, codes and features of rows of `records` with all `vectors`."""
        config = self.config
        if self.kind == "apart":
            whole = floats(rows, "record", config.dim + config.classes + config.bits // 8)
            parts = np.split(whole, [config.dim, config.dim + config.classes], axis=1)
            return parts[1], parts[2].astype(np.uint8), parts[0]
        if self.kind == "floats":
            codes = np.packbits(floats(rows, "code", config.bits) > 0, axis=1)
        else:
            codes = bits(rows, "code", config.bits // 8)
        features = floats(rows, "feature", max(2, config.dim))[:, : config.dim]
        return floats(rows, "probabilities", config.classes), codes, features

    def encodings(self, rows: Any) -> Encodings:
        """Rows of `records` with id, flags, uri and all `vectors`, as a batch in the same order.

        Raises:
            SemcutError: what is there is no valid record.
        """
        probabilities, codes, features = self.columns(rows)
        uris = [
            uri if flag & WITH_URI else None
            for uri, flag in zip(texts(rows, "uri"), integers(rows, "flags").tolist(), strict=True)
        ]
        return Encodings(
            probabilities=probabilities,
            codes=codes,
            features=features,
            ids=to_ids(integers(rows, "id")),
            uris=uris if any(uri is not None for uri in uris) else None,
        )


def choose(server: Server) -> Kind:
    """What the server can do.

    Raises:
        SemcutError: it is older than Milvus 2.3.
    """
    if server.embedded:
        return "floats"
    if server.release < (2, 3):
        raise SemcutError(f"this is Milvus {server.version}, expected 2.3 or newer: upgrade it")
    return "apart" if server.release < (2, 4) else "whole"


def field_names(server: Server, name: str) -> set[str]:
    """The fields of a collection that is there."""
    return {field["name"] for field in server.call("describe_collection", name)["fields"]}


def check_name(name: str) -> str:
    """The name of a collection.

    Raises:
        InvalidParameterError: Milvus would not take it.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name):
        raise InvalidParameterError(
            f"collection = {shown(name)}, expected up to 200 letters, digits and underscores, no digit first"
        )
    return name


def to_keys(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Primary keys of ids."""
    return np.where(ids == _LARGEST, -1, ids)


def to_ids(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of primary keys."""
    return np.where(keys == -1, _LARGEST, keys)


def _dicts(columns: dict[str, Any]) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
