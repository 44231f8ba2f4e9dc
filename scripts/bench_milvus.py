"""Speed of a migration to Milvus and of `MilvusIndex`, against raw pymilvus calls and against itself without pruning.

    python scripts/bench_milvus.py --uri http://localhost:19530 [--records 100000] [--json]

Records are those of `bench_core`. A collection is made on the server and dropped at the end. Raw calls that fetch the
same shortlists are those that a search made, repeated through `MilvusClient` one after the other, and as many at once
as the search does. A plain search asks for the nearest codes of all records and fetches those: no cutoff, and so
another shortlist. Without pruning the answers are as good, since the cutoff is applied to each record all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from bench_core import Generator, arguments, batches, medians, show
from pymilvus import MilvusClient

from semcut.connector.cli.terminal import progress_bar
from semcut.indexes import FaissIndex, IndexConfig, NotAnIndexError
from semcut.indexes.migration.copy import Journal, Migration
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import Server, among, integers
from semcut.indexes.milvus.milvus_index import _REQUESTS
from semcut.indexes.milvus.shared_state import Unseen

COLLECTION = "semcut_benchmark"


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(records=100_000)
    parser.add_argument("--uri", default=os.environ.get("MILVUS_URI"))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--cutoff", type=float, default=0.2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = measure(args, Path(folder))
        finally:
            with contextlib.suppress(NotAnIndexError):
                MilvusIndex.drop(args.uri, collection=COLLECTION)
    show(report, f"{args.records:,} records, {args.classes} classes, {args.bits} bits", as_json=args.json)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
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

    client: Any = MilvusClient(args.uri, token=os.environ.get("MILVUS_TOKEN", ""))
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    call = Server.call

    def recorded(self: Server, name: str, /, *args: Any, **kwargs: Any) -> Any:
        calls.append((name, args, kwargs))
        return call(self, name, *args, **kwargs)

    def search(count: int = args.queries) -> Any:
        return index.search(queries[:count], cutoff=args.cutoff)

    def repeat(one: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
        getattr(client, one[0])(*one[1], **one[2])

    def plain() -> None:
        key = index._layout.key
        data: Any = [bytes(code) for code in queries.codes]
        if index._layout.kind == "floats":
            data = list(np.unpackbits(queries.codes, axis=1).astype(np.float32) * 2 - 1)
        found = client.search(
            COLLECTION, data=data, anns_field="code", limit=100, output_fields=[key],
            search_params={"metric_type": index._layout.metric}, consistency_level="Session",
        )  # fmt: skip
        keys = np.unique([hit["entity"][key] for hits in found for hit in list.__iter__(hits)])
        for first in range(0, len(keys), 4096):
            rows = client.query(
                index._layout.records, filter=among(key, keys[first : first + 4096]),
                output_fields=["id", *index._layout.vectors], consistency_level="Session",
            )  # fmt: skip
            integers(rows, "id")

    prune = Unseen.prune

    def unpruned() -> Any:
        with patch.object(Unseen, "prune", lambda self, weights, cutoff: prune(self, weights, -1.0)):
            return search()

    with patch.object(Server, "call", recorded):
        pruned = search()
    few = queries[:8]
    exact = [of.search(few, cutoff=args.cutoff, shortlist=None).ids for of in (index, source)]
    assert np.array_equal(*exact)
    at_once = ThreadPoolExecutor(_REQUESTS)
    seconds = medians(
        {
            "semcut": search,
            "one by one": lambda: [repeat(one) for one in calls],
            "at once": lambda: list(at_once.map(repeat, calls)),
            "plain": plain,
            "unpruned": unpruned,
            "all": lambda: index.search(queries, cutoff=0.0),
            "single": lambda: search(1),
        },
        args.rounds,
    )
    version = index._server.version
    at_once.shutdown()
    client.close()
    index.close()
    source.close()
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
        "the same raw calls, at once, ms": 1e3 * seconds["at once"],
        "a plain search and fetch, ms": 1e3 * seconds["plain"],
        "the batch without pruning, ms": 1e3 * seconds["unpruned"],
        "the batch at cutoff 0, ms": 1e3 * seconds["all"],
        "one query, ms": 1e3 * seconds["single"],
        "batch against the same raw calls one by one": seconds["semcut"] / seconds["one by one"],
        "batch against the same raw calls at once": seconds["semcut"] / seconds["at once"],
        "batch against a plain search and fetch": seconds["semcut"] / seconds["plain"],
        "batch against no pruning": seconds["semcut"] / seconds["unpruned"],
    }


if __name__ == "__main__":
    main()
