"""`semcut info`: shows size and settings of a stored index. Opens the files but does not load a search engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcut.connector.cli.options import SOURCE, json_option
from semcut.connector.cli.terminal import print_json, show_facts
from semcut.indexes.errors import DamagedIndexError, MissingDependencyError

if TYPE_CHECKING:
    from semcut.indexes.storage.snapshot import Snapshot


@click.command()
@click.argument("index", type=SOURCE)
@click.option("--uri", help="Milvus server (http://host:port) or file (name.db) where INDEX is a collection.")
@click.option("--milvus-token", envvar="MILVUS_TOKEN", help="Token for the Milvus server. Safer: set MILVUS_TOKEN.")
@json_option
def info(index: str, uri: str | None, milvus_token: str | None, as_json: bool) -> None:
    """Show the size and the settings of a stored INDEX."""
    if uri is None:
        content, partitions = _index_facts(Path(index))
    else:
        content, partitions = _collection_facts(uri, index, milvus_token), {}
    if as_json:
        print_json({**content, **partitions})
    else:
        show_facts(content, title=index)


def _index_facts(index: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Describe an index in a directory; the sizes of all its partitions come second."""
    from semcut.indexes.open_with import open_with
    from semcut.indexes.storage.store import Store
    from semcut.indexes.unfinished import unfinished

    store, made = open_with(  # opening a `FaissIndex` would also load its search engine
        lambda: Store.open(index), lambda opened: _network_facts(index, opened.snapshot)
    )
    try:
        stats, config, version = store.snapshot.stats(), store.config, store.snapshot.committed.version
    finally:
        store.close()
    missing = unfinished(index, stats.records)
    sizes = [size for size in stats.partitions if size]
    content: dict[str, object] = {
        "records": stats.records,
        **({} if missing is None else {"unfinished": missing}),
        "removed, until compacted": stats.removed,
        "changes so far": version,
        **({"ids": "strings"} if config.string_ids else {}),
        "classes": config.classes,
        "bits": config.bits,
        "dim": config.dim,
        "normalised": stats.normalised,
        **({"attributes": config.attributes} if config.attributes else {}),
        "partitions in use": len(sizes),
        "records per partition": {"smallest": min(sizes, default=0), "largest": max(sizes, default=0)},
        "cells": stats.cells,
        **made,
        "bytes": sum(stats.column_bytes.values()),
        "bytes per column": stats.column_bytes,
    }
    return content, {"partitions": stats.partitions}


def _collection_facts(uri: str, collection: str, token: str | None) -> dict[str, object]:
    """Describe a collection, without what would need all records to be read."""
    from semcut.connector.retrieval.collection_link import read_collection_link
    from semcut.indexes.milvus import MilvusIndex

    with MilvusIndex.open(uri, collection=collection, token=token, strong=True) as index:
        config, records, link = index.config, len(index), read_collection_link(index, collection)
    made: dict[str, object] = {}
    if link is not None:
        made = {
            "network": str(link.model),
            "digest of the network": link.sha256,
            "folder of the images": link.folder,
            "cutoff of searches that name none": link.defaults.cutoff,
            "ranking of searches that name none": link.defaults.ranking,
            "shortlist of searches that name none": "all"
            if link.defaults.shortlist is None
            else link.defaults.shortlist,
        }
    return {
        "records": records,
        **({"ids": "strings"} if config.string_ids else {}),
        "classes": config.classes,
        "bits": config.bits,
        "dim": config.dim,
        **({"attributes": config.attributes} if config.attributes else {}),
        **made,
    }


def _network_facts(index: Path, snapshot: Snapshot) -> dict[str, object]:
    """Describe the link to the network of an index; nothing without a link, or without the packages of networks."""
    try:
        from semcut.connector.retrieval.model_link import network_of, read_link
        from semcut.connector.retrieval.trained_records import recorded_training
    except MissingDependencyError:  # an index of encodings is also maintained where no network can run
        return {}
    link = read_link(index)
    if link is None:
        return {}
    seen: object = "not known"
    with suppress(DamagedIndexError):  # the size of a damaged index is shown, too
        found = recorded_training(index, snapshot, link.root)
        if found.known:
            seen = {"records": found.trained, "known records": found.known}
    return {
        "network": str(network_of(index, link)),
        "cutoff of searches that name none": link.defaults.cutoff,
        "ranking of searches that name none": link.defaults.ranking,
        "shortlist of searches that name none": "all" if link.defaults.shortlist is None else link.defaults.shortlist,
        "seen in training": seen,
    }
