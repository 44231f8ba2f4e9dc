"""Create, open and drop an index in Milvus, completely or not at all.

An index exists once its configuration is stored. The configuration is written last, so an index whose creation was
interrupted does not exist, and can be created again. The collection of shared rows is the first to be created and the
last to be dropped: if it is missing, no other part of the index is left either.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import numpy as np

from semcut.indexes.config import IndexConfig, written_config
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import (
    DamagedIndexError,
    FormatVersionError,
    IndexExistsError,
    InvalidParameterError,
    NotAnIndexError,
)
from semcut.indexes.milvus.attribute_fields import is_attribute_field
from semcut.indexes.milvus.collection import Collection
from semcut.indexes.milvus.connection import PAGE, RefusedCallError, ServerConnection, is_in
from semcut.indexes.milvus.key_field import KEY
from semcut.indexes.milvus.layout import Kind, choose_kind
from semcut.indexes.milvus.pymilvus_internals import int_column, text_column
from semcut.indexes.milvus.scalar_index import index_scalars
from semcut.indexes.milvus.schema import CODE_FIELDS, RECORD_FIELDS, Schema, check_name
from semcut.indexes.milvus.server_filter import EVERY_RECORD
from semcut.indexes.milvus.shared_rows import (
    CONFIG,
    FIELDS,
    IDENTITY,
    shared_collection,
    shared_collection_name,
    shared_row,
)

FORMAT_VERSION, KEYED = 2, 3
"""The formats of indexes without and with keys. A version of semcut that knows no keys must not read the second one."""

_TEXT_PART = 16_000  # characters of text in one row: 65,535 bytes fit, and a character has up to 4 bytes
_ROWS_PER_CALL = 100


def planned_collections(
    server: ServerConnection | None, name: str, config: IndexConfig, partition_key: bool
) -> dict[str, str]:
    """Describe what `create_index` would create: every collection and its fields.

    Args:
        server: the server of the index; None for an embedded Milvus file that does not exist yet.
        name, config, partition_key: as for the index, see `Schema`.
    """
    kind = "floats" if server is None else choose_kind(server)
    schema = Schema(check_name(name), kind, config, partition_key)
    where = "a new file" if server is None else f"Milvus {server.version}"
    return {"server": where, **{one.name: str(one) for one in _collections(schema)}}


def create_index(server: ServerConnection, schema: Schema) -> None:
    """Create an empty index. It replaces the collections that an interrupted creation has left.

    Raises:
        IndexExistsError: there is an index, or another collection, of this name.
        InvalidParameterError: the server cannot store such records, or loses records under a partition key.
    """
    new = _collections(schema)
    leftover = [one for one in new if server.call("has_collection", one.name)]
    if leftover:
        if not all(_has_same_fields(server, one) for one in leftover) or new[0] not in leftover:
            raise IndexExistsError(
                f"there is a collection {leftover[-1].name} on this server that is not an index: choose another name, "
                "or drop the collection"
            )
        with contextlib.suppress(NotAnIndexError):  # its creation was interrupted
            with contextlib.suppress(DamagedIndexError, FormatVersionError):
                read_schema(server, schema.name)
            raise IndexExistsError(f"there is an index {schema.name} on this server: open it, or choose another name")
        _drop_collections(server, leftover)
    for one in new:
        one.create(server)

    def index_and_load(one: Collection) -> None:
        one.index(server)
        index_scalars(server, one.name, schema.indexed_fields if one.name == schema.name else [])
        one.load(server)

    with ThreadPoolExecutor(len(new)) as pool:
        list(pool.map(index_and_load, new))
    if schema.partition_key and not _finds_records_by_class(server, schema):
        _drop_collections(server, new)
        raise InvalidParameterError(
            f"Milvus {server.version} does not find upserted records by a partition key, which puts them into wrong "
            "partitions or refuses filters: "
            "leave partition_key out, or use a newer Milvus"
        )
    _write_config(server, schema)


def open_index(server: ServerConnection, name: str) -> Schema:
    """Load the collections of the index of this name, and return its schema.

    Raises:
        NotAnIndexError, FormatVersionError, DamagedIndexError: there is no index, or none that can be read.
    """
    schema = read_schema(server, check_name(name))
    for collection in {schema.name, schema.record_collection}:
        _load(server, collection)
    return schema


def drop_index(server: ServerConnection, name: str) -> None:
    """Delete an index, or the collections that an interrupted creation or deletion has left.

    Raises:
        NotAnIndexError: there is no index.
    """
    if not _has_shared_rows(server, check_name(name)):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    for collection, fields in ((f"{name}_records", RECORD_FIELDS), (name, CODE_FIELDS)):
        if server.call("has_collection", collection) and fields <= _field_names(server, collection):
            server.call("drop_collection", collection)
    server.call("drop_collection", shared_collection_name(name))


def read_schema(server: ServerConnection, name: str) -> Schema:
    """Read the configuration of the index of this name.

    Raises:
        NotAnIndexError, FormatVersionError, DamagedIndexError: there is no index, or none that can be read.
    """
    collection = shared_collection_name(name)
    if not _has_shared_rows(server, name):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    incomplete = NotAnIndexError(f"the creation of the index {name} was interrupted: create it again")
    if not server.call("list_indexes", collection):  # Milvus cannot load a collection without an index of its vectors
        raise incomplete
    _load(server, collection)
    rows = server.read(
        "query", collection, filter=f"cell in [{CONFIG}]", output_fields=["key", "text", "low"], limit=PAGE, strong=True
    )
    parts = dict(zip(int_column(rows, "key").tolist(), text_column(rows, "text"), strict=True))
    if 0 not in parts:
        raise incomplete
    damaged = DamagedIndexError(f"the configuration of {name} cannot be read: restore it, or migrate again")
    try:
        content = json.loads("".join(parts[number] for number in range(len(parts))))
        version = content["format"]
    except (KeyError, TypeError, ValueError):
        raise damaged from None
    if version not in (FORMAT_VERSION, KEYED):
        raise FormatVersionError(
            f"the index {name} has format {version}, this version of semcut reads formats {FORMAT_VERSION} and {KEYED}"
        )
    try:
        kind: Kind = content["kind"]
        config = written_config(content["config"])
        if kind not in get_args(Kind) or version != _format_of(config):
            raise ValueError
        return Schema(name, kind, config, bool(content["partition_key"]))
    except (KeyError, TypeError, ValueError):  # an `InvalidParameterError` is a ValueError
        raise damaged from None


def _format_of(config: IndexConfig) -> int:
    return KEYED if config.string_ids else FORMAT_VERSION


def _write_config(server: ServerConnection, schema: Schema) -> None:
    """Write the configuration. From then on the index exists."""
    content = {
        "format": _format_of(schema.config),
        "kind": schema.kind,
        "partition_key": schema.partition_key,
        "config": json.loads(schema.config.written()),
    }
    text, classes = json.dumps(content), schema.config.classes
    parts = [text[start : start + _TEXT_PART] for start in range(0, len(text), _TEXT_PART)]
    rows = [
        shared_row(classes, key=number, cell=CONFIG, text=part, low=len(parts)) for number, part in enumerate(parts)
    ]
    rows.append(shared_row(classes, cell=IDENTITY, text=secrets.token_hex(16)))
    # The first row is written last: without it the index does not exist.
    for start in range(len(rows), 0, -_ROWS_PER_CALL):
        part_of_rows = rows[max(0, start - _ROWS_PER_CALL) : start][::-1]
        server.call("upsert", shared_collection_name(schema.name), part_of_rows)


def _collections(schema: Schema) -> list[Collection]:
    """Define all collections of an index, in the order of their creation."""
    return [shared_collection(schema.name, schema.config.classes), *schema.collections()]


def _drop_collections(server: ServerConnection, collections: list[Collection]) -> None:
    """Drop collections, the last one first."""
    for one in reversed(collections):
        server.call("drop_collection", one.name)


def _has_same_fields(server: ServerConnection, one: Collection) -> bool:
    """Return whether the collection of this name on the server has the fields of this definition.

    Attributes and keys do not count: an interrupted creation may have been that of an index with others.
    """
    there, expected = _field_names(server, one.name), {name for name, *_ in [*one.scalars, *one.vectors]}
    return all(name == KEY or is_attribute_field(str(name)) for name in there.symmetric_difference(expected))


def _has_shared_rows(server: ServerConnection, name: str) -> bool:
    """Return whether the collection with the shared rows of an index exists and has the right fields."""
    collection = shared_collection_name(name)
    return bool(server.call("has_collection", collection)) and _field_names(server, collection) == FIELDS


def _field_names(server: ServerConnection, collection: str) -> set[str]:
    """Return the names of the fields of an existing collection."""
    return {field["name"] for field in server.call("describe_collection", collection)["fields"]}


def _load(server: ServerConnection, collection: str) -> None:
    """Load a collection unless it is loaded."""
    state = server.call("get_load_state", collection)["state"]
    if "Loaded" not in str(state):
        server.call("load_collection", collection)


def _finds_records_by_class(server: ServerConnection, schema: Schema) -> bool:
    """Write records twice, the second time with other classes, and return whether each is found by its last class.

    The records are deleted afterwards. Milvus 2.3.5 is known to lose such records: its upsert ignores the partition
    key.
    """
    classes = min(schema.config.classes, 100)
    ids: Any = [f"{number}" for number in range(classes)] if schema.config.string_ids else np.arange(classes)
    for shift in (0, 1):
        dominant = (np.arange(classes) + shift) % classes
        records = Encodings(
            probabilities=np.eye(schema.config.classes, dtype=np.float32)[dominant],
            codes=np.zeros((classes, schema.config.bits // 8), np.uint8),
            features=np.zeros((classes, schema.config.dim), np.float32),
            ids=ids,
        )
        server.call("upsert", schema.name, schema.rows(records, 0)[0])
    try:
        found = [
            server.count(schema.name, is_in("dominant", [number]), strong=number == 0) for number in range(classes)
        ]
    except RefusedCallError:  # filters of one value, on the C++ core of milvus-lite
        return False
    server.delete(schema.name, EVERY_RECORD)
    return found == [1] * classes
