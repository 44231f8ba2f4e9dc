"""Making, finding and dropping an index in Milvus, all of it or nothing.

The configuration is what makes an index: it is written last, so that one that was not made completely is none, and is
made again. The catalogue, where it is, is the first collection to be made and the last to be dropped.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import (
    DamagedIndexError,
    FormatVersionError,
    IndexExistsError,
    InvalidParameterError,
    NotAnIndexError,
)
from semcut.indexes.milvus.connection import PAGE, Server, among, integers, texts
from semcut.indexes.milvus.schema import CODES, RECORDS, Collection, Kind, Schema, check_name, choose, field_names
from semcut.indexes.milvus.shared_state import CONFIG, IDENTITY, catalogue_name, filled, row_of
from semcut.indexes.milvus.shared_state import collection as catalogue_collection

FORMAT_VERSION = 2

_PART = 16_000  # characters of a text in one row; a character has up to 4 bytes


def collections(layout: Schema) -> list[Collection]:
    """All collections of an index: the catalogue is the first to be made and the last to go."""
    return [catalogue_collection(layout.name, layout.config.classes), *layout.collections()]


def planned(server: Server | None, name: str, config: IndexConfig, partition_key: bool) -> dict[str, str]:
    """What `make` would make: each collection, and its fields.

    Args:
        server: where; None for an embedded file that is not there yet.
        name, config, partition_key: of the index.
    """
    kind = "floats" if server is None else choose(server)
    layout = Schema(check_name(name), kind, config, partition_key)
    where = "a new file" if server is None else f"Milvus {server.version}"
    return {"server": where, **{one.name: str(one) for one in collections(layout)}}


def make(server: Server, layout: Schema) -> None:
    """Make an empty index, in place of what an attempt has left that did not come to its end.

    Raises:
        IndexExistsError: there is one, or a collection of its name.
        InvalidParameterError: the server cannot hold such records.
    """
    to_make = collections(layout)
    there = [one for one in to_make if server.call("has_collection", one.name)]
    if there:
        if not all(_is(server, one) for one in there) or to_make[0] not in there:
            raise IndexExistsError(
                f"there is a collection {there[-1].name} on this server that is no index: choose another name, or "
                "drop it"
            )
        with contextlib.suppress(NotAnIndexError):  # there is a configuration unless making it was cut off
            with contextlib.suppress(DamagedIndexError, FormatVersionError):
                read_config(server, layout.name)
            raise IndexExistsError(f"there is an index {layout.name} on this server: open it, or choose another name")
        for one in reversed(there):
            server.call("drop_collection", one.name)
    for one in to_make:
        one.create(server)
    with ThreadPoolExecutor(len(to_make)) as pool:
        list(pool.map(lambda one: one.prepare(server), to_make))
    if layout.partition_key and not _finds_by_partition(server, layout):
        for one in reversed(to_make):
            server.call("drop_collection", one.name)
        raise InvalidParameterError(
            f"Milvus {server.version} puts upserted records into wrong partitions, where a search would not find them: "
            "leave partition_key out, or use a newer one"
        )
    write_config(server, layout)


def drop(server: Server, name: str) -> None:
    """Delete an index, also one that was not made completely.

    Raises:
        NotAnIndexError: there is none.
    """
    if not is_catalogue(server, name):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    own = {f"{name}_records": RECORDS, name: CODES}
    for one, fields in own.items():
        if server.call("has_collection", one) and fields <= field_names(server, one):
            server.call("drop_collection", one)
    server.call("drop_collection", catalogue_name(name))


def _is(server: Server, one: Collection) -> bool:
    """Whether the collection that is there has the fields of this one."""
    return field_names(server, one.name) == {name for name, *_ in [*one.scalars, *one.vectors]}


def _finds_by_partition(server: Server, layout: Schema) -> bool:
    """Whether records are found by their class after they were written, and written again with another class.

    Milvus 2.3.5 is known to lose them: its upsert does not look at the partition key.
    """
    classes = min(layout.config.classes, 100)
    for shift in (0, 1):
        number = (np.arange(classes) + shift) % classes
        records = Encodings(
            probabilities=np.eye(layout.config.classes, dtype=np.float32)[number],
            codes=np.zeros((classes, layout.config.bits // 8), np.uint8),
            features=np.zeros((classes, layout.config.dim), np.float32),
            ids=np.arange(classes),
        )
        server.call("upsert", layout.name, layout.rows(records, 0)[0])
    found = [server.count(layout.name, among("dominant", [number]), strong=number == 0) for number in range(classes)]
    server.delete(layout.name, "id >= 0")
    return found == [1] * classes


def write_config(server: Server, layout: Schema) -> None:
    """Write the configuration, which makes the index exist."""
    content = {
        "format": FORMAT_VERSION,
        "kind": layout.kind,
        "partition_key": layout.partition_key,
        "config": layout.config.model_dump(mode="json"),
    }
    text = json.dumps(content)
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    rows = [row_of(key=number, cell=CONFIG, text=part, low=len(parts)) for number, part in enumerate(parts)]
    rows.append(row_of(cell=IDENTITY, text=secrets.token_hex(16)))
    # The first row last: without it there is no index.
    for start in range(len(rows), 0, -100):
        server.call("upsert", catalogue_name(layout.name), filled(rows[max(0, start - 100) : start][::-1], layout))


def read_config(server: Server, name: str) -> Schema:
    """The layout of the index of this name.

    Raises:
        NotAnIndexError, FormatVersionError, DamagedIndexError: there is none, or not one that can be read.
    """
    collection = catalogue_name(name)
    if not is_catalogue(server, name):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    if not server.call("list_indexes", collection):  # it could not be loaded
        raise NotAnIndexError(f"the index {name} was not made completely: create it again")
    load(server, collection)
    rows = server.read(
        "query",
        collection,
        filter=f"cell in [{CONFIG}]",
        output_fields=["key", "text", "low"],
        limit=PAGE,
        strong=True,
    )
    parts = dict(zip(integers(rows, "key").tolist(), texts(rows, "text"), strict=True))
    if 0 not in parts:
        raise NotAnIndexError(f"the index {name} was not made completely: create it again")
    try:
        content = json.loads("".join(parts[number] for number in range(len(parts))))
        version = content["format"]
    except (KeyError, TypeError, ValueError):
        raise DamagedIndexError(f"the catalogue of {name} cannot be read: restore it, or migrate again") from None
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"the index {name} has format {version}, this version of semcut reads format {FORMAT_VERSION}"
        )
    try:
        kind: Kind = content["kind"]
        if kind not in get_args(Kind):
            raise ValueError
        return Schema(name, kind, IndexConfig(**content["config"]), bool(content["partition_key"]))
    except (KeyError, TypeError, ValueError):  # an `InvalidParameterError` is one
        raise DamagedIndexError(f"the catalogue of {name} cannot be read: restore it, or migrate again") from None


def is_catalogue(server: Server, name: str) -> bool:
    """Whether the collection of the catalogue is there and has the fields that it should have."""
    if not server.call("has_collection", catalogue_name(name)):
        return False
    return field_names(server, catalogue_name(name)) == {"key", "cell", "low", "text", "envelope"}


def load(server: Server, collection: str) -> None:
    """Have the server load a collection, if it has not."""
    state = server.call("get_load_state", collection)["state"]
    if "Loaded" not in str(state):
        server.call("load_collection", collection)
