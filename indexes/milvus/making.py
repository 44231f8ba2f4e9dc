"""Making the collections of an index in Milvus, all or none."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from indexes.errors import DamagedIndexError, FormatVersionError, IndexExistsError, NotAnIndexError
from indexes.milvus import catalogue
from indexes.milvus.catalogue import catalogue_name
from indexes.milvus.layout import Collection, Layout
from indexes.milvus.server import Server


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
    names = [layout.name, f"{layout.name}_records", catalogue_name(layout.name)]
    there = [name for name in names if server.call("has_collection", name)]
    if there:
        if not catalogue.is_catalogue(server, layout.name):
            raise IndexExistsError(
                f"there is a collection {there[0]} on this server that is no index: choose another name, or drop it"
            )
        with contextlib.suppress(NotAnIndexError):  # there is a configuration unless making it was cut off
            with contextlib.suppress(DamagedIndexError, FormatVersionError):
                catalogue.read_config(server, layout.name)
            raise IndexExistsError(f"there is an index {layout.name} on this server: open it, or choose another name")
        for name in there:
            server.call("drop_collection", name)
    for one in to_make:
        one.create(server)
    with ThreadPoolExecutor(len(to_make)) as pool:
        list(pool.map(lambda one: one.prepare(server), to_make))
    catalogue.write_config(server, layout)
