"""Measure a migration to Milvus, and compare `MilvusIndex` with raw pymilvus calls and with searches without pruning.

    python scripts/bench_milvus.py --uri http://localhost:19530 [--records 100000] [--json]

The records are those of `bench_core`. An index is created on the server and dropped at the end. The raw calls repeat
the requests of one search with `MilvusClient`: one after the other, and as many concurrently as the search sends. A
plain search finds the nearest codes of all records and fetches their records; it has no cutoff, so its shortlist
differs. Without pruning the results are the same, since the cutoff is applied to each record in both cases.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from bench_core import Generator, arguments, batches, medians, show
from numpy.typing import NDArray

from semcut.connector.cli.terminal import progress_bar
from semcut.indexes import FaissIndex, IndexConfig, NotAnIndexError, SearchResult
from semcut.indexes.migration.copy import Migration
from semcut.indexes.migration.journal import Journal
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection, is_in
from semcut.indexes.milvus.lifecycle import read_schema
from semcut.indexes.milvus.milvus_index import CONCURRENT_REQUESTS
from semcut.indexes.milvus.pymilvus_internals import MilvusClient, hit_keys, int_column
from semcut.indexes.milvus.schema import Schema
from semcut.indexes.milvus.shared_state import ServerCells
from semcut.indexes.search_defaults import DEFAULT_CUTOFF

COLLECTION = "semcut_benchmark"

Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""A call of `MilvusClient`: method, arguments, keyword arguments."""


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(records=100_000)
    parser.add_argument("--uri", default=os.environ.get("MILVUS_URI"))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--cutoff", type=float, default=DEFAULT_CUTOFF)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = measure(args, Path(folder))
        finally:
            with contextlib.suppress(NotAnIndexError):
                MilvusIndex.drop(args.uri, collection=COLLECTION)
    show(report, f"{args.records:,} records, {args.classes} classes, {args.bits} bits", as_json=args.json)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Create, migrate, verify and search an index, and return the figures by name."""
    generator = Generator(args.classes, args.bits, args.dim, 9, args.seed)
    config = IndexConfig(classes=args.classes, bits=args.bits, dim=args.dim)
    source = FaissIndex.create(folder / "source", config)
    for batch in batches(generator, args.records, 10_000):
        source.add(batch)
    queries = generator(args.queries)
    index = MilvusIndex.create(args.uri, config, collection=COLLECTION, timeout=120)
    migration = Migration(source, index, Journal(folder / "journal"), ("source", COLLECTION))
    with progress_bar("Copying", quiet=args.json) as progress:
        copied = migration.copy(progress)
    start = time.perf_counter()
    with progress_bar("Verifying", quiet=args.json) as progress:
        verified = migration.verify(progress=progress)
    verifying = time.perf_counter() - start
    time.sleep(10)  # the server indexes what was flushed

    def search(count: int = args.queries) -> SearchResult:
        return index.search(queries[:count], cutoff=args.cutoff, fill=False)

    def search_unpruned() -> SearchResult:
        prune = ServerCells.prune
        with patch.object(ServerCells, "prune", lambda self, weights, cutoff: prune(self, weights, -1.0)):
            return search()

    with recording() as calls:
        pruned = search()
    few = queries[:8]
    exact = [one.search(few, cutoff=args.cutoff, shortlist=None, fill=False).ids for one in (index, source)]
    assert np.array_equal(*exact)
    server = ServerConnection(args.uri)
    schema = read_schema(server, COLLECTION)
    client: Any = MilvusClient(args.uri, token=os.environ.get("MILVUS_TOKEN", ""))

    def repeat(one: Call) -> None:
        getattr(client, one[0])(*one[1], **one[2])

    with ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool:
        seconds = medians(
            {
                "semcut": search,
                "one by one": lambda: [repeat(one) for one in calls],
                "concurrently": lambda: list(pool.map(repeat, calls)),
                "plain": lambda: plain_search(client, schema, queries.codes),
                "raw": lambda: plain_search(client, schema, queries.codes, fetch=False),
                "half": lambda: index.search(queries, cutoff=0.5, fill=False),
                "raw, one": lambda: plain_search(client, schema, queries.codes[:1], fetch=False),
                "unpruned": search_unpruned,
                "all": lambda: index.search(queries, cutoff=0.0, fill=False),
                "single": lambda: search(1),
            },
            args.rounds,
        )
    version = server.version
    for opened in (client, server, index, source):
        opened.close()
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "server": version,
        "arguments": {name: str(value) for name, value in vars(args).items() if name != "uri"},
        "migration, records/s": copied.records_per_second,
        "verification, records/s": args.records / verifying,
        "differences found": len(verified.differences),
        "requests of a batch": len(calls),
        "cells scanned per query": float(pruned.cells.mean()),
        "batch, ms": 1e3 * seconds["semcut"],
        "the same raw calls, one by one, ms": 1e3 * seconds["one by one"],
        "the same raw calls, concurrently, ms": 1e3 * seconds["concurrently"],
        "a plain search and fetch, ms": 1e3 * seconds["plain"],
        "a raw search among all records, ms": 1e3 * seconds["raw"],
        "the batch at cutoff 0.5, ms": 1e3 * seconds["half"],
        "a raw search for one query, ms": 1e3 * seconds["raw, one"],
        "the batch without pruning, ms": 1e3 * seconds["unpruned"],
        "the batch at cutoff 0, ms": 1e3 * seconds["all"],
        "one query, ms": 1e3 * seconds["single"],
        "batch against the same raw calls one by one": seconds["semcut"] / seconds["one by one"],
        "batch against the same raw calls concurrently": seconds["semcut"] / seconds["concurrently"],
        "batch against a plain search and fetch": seconds["semcut"] / seconds["plain"],
        "batch against a raw search among all records": seconds["semcut"] / seconds["raw"],
        "batch at cutoff 0.5 against a raw search": seconds["half"] / seconds["raw"],
        "batch at cutoff 0.5 against a plain search and fetch": seconds["half"] / seconds["plain"],
        "batch against no pruning": seconds["semcut"] / seconds["unpruned"],
    }


@contextlib.contextmanager
def recording() -> Iterator[list[Call]]:
    """Record the calls to the server that are made in the block."""
    calls: list[Call] = []
    call = ServerConnection.call

    def record(self: ServerConnection, name: str, /, *args: Any, **kwargs: Any) -> Any:
        calls.append((name, args, kwargs))
        return call(self, name, *args, **kwargs)

    with patch.object(ServerConnection, "call", record):
        yield calls


def plain_search(client: Any, schema: Schema, codes: NDArray[np.uint8], *, fetch: bool = True) -> None:
    """Find the records with the 100 nearest codes for every query, among all records, and fetch them."""
    key = schema.record_key
    found = client.search(
        schema.name, data=schema.query_codes(codes), anns_field="code", limit=100, output_fields=[key],
        search_params={"metric_type": schema.metric}, consistency_level="Session",
    )  # fmt: skip
    if not fetch:
        return
    keys = np.unique(np.concatenate([hit_keys(hits, key, primary=key == "id") for hits in found]))
    for first in range(0, len(keys), 4096):
        rows = client.query(
            schema.record_collection, filter=is_in(key, keys[first : first + 4096]),
            output_fields=["id", *schema.record_vectors], consistency_level="Session",
        )  # fmt: skip
        int_column(rows, "id")


if __name__ == "__main__":
    main()
