"""Measure the HTTP API of `semcut explore` under load, and the same searches in the library.

    python scripts/bench_explore.py [--records 1000000] [--classes 100] [--seconds 10] [--json]

The script starts a server as a user does, on an index of synthetic records (`bench_core`). Each of several clients
sends one search after the other over one open connection. The clients run in this process, on the same cores as the
server. For comparison, the script measures the search alone, and all work of the server for a response except HTTP:
reading the query from the index, searching, and describing the records that were found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bench_core import Generator, batches
from numpy.typing import NDArray

from semcut.connector.benchmark.measure.machine import describe
from semcut.connector.cli.terminal import OUT, new_table, print_message
from semcut.connector.explore.schemas import SearchRequest
from semcut.connector.explore.service import ExploreService
from semcut.indexes import FaissIndex, IndexConfig

K = 12
HEAD = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    query_ids = rng.integers(0, args.records, 1 << 16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        with FaissIndex.create(path, IndexConfig(classes=args.classes, bits=64, dim=128), durability="close") as index:
            for batch in batches(Generator(args.classes, 64, 128, 9.0, args.seed), args.records, 50_000):
                index.add(batch)
        figures = {}
        with FaissIndex.open(path) as index:
            service, queries = ExploreService(index, None, None), index.get(query_ids[:4096])
            service.warm_up()
            figures["the library: the search alone"] = alone(
                lambda row: index.search(queries[row : row + 1], k=K), len(queries), args.seconds
            )
            figures["the library: a whole response"] = alone(
                lambda row: service.search(SearchRequest(id=int(query_ids[row]), k=K)), len(query_ids), args.seconds
            )
        with server(path) as port:
            for clients in args.clients:
                name = f"HTTP, {clients} client{'s' if clients > 1 else ''}"
                print_message(name)
                figures[name] = asyncio.run(load(port, query_ids, clients, args.seconds))
    rows = {name: summary(times, spent) for name, (times, spent) in figures.items()}
    if args.json:
        print(json.dumps({"machine": describe(), "records": args.records, "classes": args.classes, **rows}, indent=2))
        return
    title = f"{args.records:,} records, {args.classes} classes"
    table = new_table("", "searches/s", "p50, ms", "p99, ms", title=title)
    for name, row in rows.items():
        table.add_row(name, f"{row['searches/s']:,.0f}", f"{row['p50, ms']:.2f}", f"{row['p99, ms']:.2f}")
    OUT.print(table)


def alone(call: Callable[[int], object], rows: int, seconds: float) -> tuple[NDArray[np.float64], float]:
    """Make calls one after the other; return the duration of each call and the total duration, in seconds."""
    times, began = [], time.perf_counter()
    while (start := time.perf_counter()) < began + seconds:
        call(len(times) % rows)
        times.append(time.perf_counter() - start)
    return np.array(times), time.perf_counter() - began


async def load(
    port: int, query_ids: NDArray[np.int64], clients: int, seconds: float
) -> tuple[NDArray[np.float64], float]:
    """Search over several connections; return the duration of each search and the total duration, in seconds."""
    times: list[float] = []
    began = time.perf_counter()

    async def client(first: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        row = first
        while (start := time.perf_counter()) < began + seconds:
            body = json.dumps({"id": int(query_ids[row % len(query_ids)]), "k": K}).encode()
            writer.write(HEAD % len(body) + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer.lower())
            if length is None or not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the server answered {answer[:200]!r}")
            await reader.readexactly(int(length[1]))
            times.append(time.perf_counter() - start)
            row += clients
        writer.close()

    await asyncio.gather(*(client(first) for first in range(clients)))
    return np.array(times), time.perf_counter() - began


@contextmanager
def server(path: Path) -> Iterator[int]:
    """Run a server of the index at a path, and yield its port."""
    semcut = Path(sys.executable).with_name("semcut")
    process = subprocess.Popen(
        [str(semcut), "explore", str(path), "--port", "0", "--no-browser"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                yield int(found[1])
                break
        else:
            raise SystemExit("the server did not start")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def summary(times: NDArray[np.float64], seconds: float) -> dict[str, float]:
    """Return the rate of the searches, and percentiles of their durations."""
    return {
        "searches/s": len(times) / seconds,
        "p50, ms": float(1000 * np.percentile(times, 50)),
        "p99, ms": float(1000 * np.percentile(times, 99)),
    }


if __name__ == "__main__":
    main()
