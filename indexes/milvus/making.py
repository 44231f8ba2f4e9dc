"""Making the collections of an index in Milvus, all or none."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from indexes.encodings import Encodings
from indexes.errors import (
    DamagedIndexError,
    FormatVersionError,
    IndexExistsError,
    InvalidParameterError,
    NotAnIndexError,
)
from indexes.milvus import catalogue
from indexes.milvus.catalogue import catalogue_name
from indexes.milvus.layout import CODES, RECORDS, Collection, Layout, field_names
from indexes.milvus.server import Server, among


def collections(layout: Layout) -> list[Collection]:
    """All collections of an index: the catalogue is the first to be made and the last to go."""
    return [catalogue.collection(layout.name, layout.config.classes), *layout.collections()]


def make(server: Server, layout: Layout) -> None:
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
                catalogue.read_config(server, layout.name)
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
    catalogue.write_config(server, layout)


def drop(server: Server, name: str) -> None:
    """Delete an index, also one that was not made completely.

    Raises:
        NotAnIndexError: there is none.
    """
    if not catalogue.is_catalogue(server, name):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    own = {f"{name}_records": RECORDS, name: CODES}
    for one, fields in own.items():
        if server.call("has_collection", one) and fields <= field_names(server, one):
            server.call("drop_collection", one)
    server.call("drop_collection", catalogue_name(name))


def _is(server: Server, one: Collection) -> bool:
    """Whether the collection that is there has the fields of this one."""
    return field_names(server, one.name) == {name for name, *_ in [*one.scalars, *one.vectors]}


def _finds_by_partition(server: Server, layout: Layout) -> bool:
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
