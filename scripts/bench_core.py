"""Measure speed and memory of a `FaissIndex` in memory, and the speed of an `IndexBinaryFlat` over the same codes.

    python scripts/bench_core.py [--records 1000000] [--classes 100] [--json]

Records are synthetic. Their probabilities imitate the softmax outputs of a classifier that confuses each class with
five others. Their codes and features imitate outputs of the same network: they are the codes and features of the class
centres, mixed by these probabilities, with 15 % of the bits flipped and unit noise added. The methods are timed in turn
and medians are reported; compare ratios, not milliseconds. Memory is the private memory of the process, sampled while
records are added.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator

import faiss
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from semcut.connector.benchmark.measure.process_memory import MemoryGrowth
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST


class Generator:
    """A generator of synthetic encodings for a fixed set of classes; ids count up from 0."""

    def __init__(self, classes: int, bits: int, dim: int, margin: float, seed: int) -> None:
        self._rng = rng = np.random.default_rng(seed)
        self._classes, self._bits, self._margin = classes, bits, margin
        self._confused = rng.integers(0, classes, (classes, 5))
        self._codes = rng.integers(0, 2, (classes, bits)).astype(np.float32)
        self._centres = rng.standard_normal((classes, dim), dtype=np.float32)
        self._next = self.correct = 0

    def __call__(self, n: int) -> Encodings:
        """Generate the next n encodings."""
        rng, rows = self._rng, np.arange(n)
        labels = rng.integers(0, self._classes, n)
        logits = rng.standard_normal((n, self._classes), dtype=np.float32) * 1.5
        logits[rows, labels] += rng.normal(self._margin, 2.5, n).astype(np.float32)
        for column in range(5):
            logits[rows, self._confused[labels, column]] += rng.normal(0.45 * self._margin, 1.5, n).astype(np.float32)
        logits = np.exp(logits - logits.max(axis=1, keepdims=True))
        logits /= logits.sum(axis=1, keepdims=True)
        ones = logits @ self._codes  # an ambiguous image mixes the bits and features of its classes
        bits = rng.random(ones.shape, dtype=np.float32) < 0.15 + 0.7 * ones
        features = logits @ self._centres + rng.standard_normal((n, self._centres.shape[1]), dtype=np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        self._next += n
        self.correct += int(np.count_nonzero(logits.argmax(axis=1) == labels))
        return Encodings(
            probabilities=logits,
            codes=np.packbits(bits, axis=1),
            features=features,
            ids=np.arange(self._next - n, self._next),
        )


def batches(generator: Generator, records: int, size: int) -> Iterator[Encodings]:
    """Generate `records` records in batches of `size` records."""
    for start in range(0, records, size):
        yield generator(min(size, records - start))


def medians(methods: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each method. Every round runs all methods in turn; a round before them warms up."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds + 1):
        for name, method in methods.items():
            time.sleep(0.02)  # idle threads of the previous method spin for a while
            start = time.perf_counter()
            method()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(measured[1:])) for name, measured in times.items()}


def show(report: dict[str, object], title: str, *, as_json: bool) -> None:
    """Print a report as JSON, or its numbers as a table."""
    if as_json:
        print(json.dumps(report, indent=2))
        return
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in report.items():
        if isinstance(value, float | int):
            table.add_row(name, f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")
    Console().print(table)


def arguments(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmark scripts have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cutoff", type=float, default=DEFAULT_CUTOFF)
    parser.add_argument("--shortlist", type=int, default=DEFAULT_SHORTLIST)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--margin", type=float, default=9, help="mean logit of the right class over the others")
    args = parser.parse_args()
    os.environ.setdefault(ENGINE_VARIABLE, available_engines()[0])  # compile before anything is measured
    quiet = args.json

    generator = Generator(args.classes, args.bits, args.dim, args.margin, args.seed)
    config = IndexConfig(classes=args.classes, bits=args.bits, dim=args.dim, groups=args.groups)
    index = FaissIndex.create(None, config)
    flat = faiss.IndexBinaryFlat(args.bits)
    adding, peak, grown, size = 0.0, 0, 0, 50_000
    total = -(-args.records // size)
    for batch in track(batches(generator, args.records, size), "Adding", total, disable=quiet):
        with MemoryGrowth() as memory:
            start = time.perf_counter()
            index.add(batch)
            adding += time.perf_counter() - start
        peak, grown = max(peak, grown + memory.peak), grown + memory.grown
        flat.add(batch.codes)
    queries = generator(args.queries)
    weights = index.similarity.weights(queries.probabilities)

    def search(n: int) -> Callable[[], object]:
        part = queries[:n]
        return lambda: index.search(part, k=DEFAULT_K, cutoff=args.cutoff, shortlist=args.shortlist)

    cells, scanner = index.snapshot.cells, index.scanner
    kept = cells.prune(weights, args.cutoff)
    seconds = medians(
        {
            "semcut": search(args.queries),
            "flat": lambda: flat.search(queries.codes, args.shortlist),
            "prune": lambda: cells.prune(weights, args.cutoff),
            "scan": lambda: scanner.search(queries.codes, kept.cells, args.shortlist),
            "semcut, one query": search(1),
            "flat, one query": lambda: flat.search(queries.codes[:1], args.shortlist),
        },
        args.rounds,
    )
    result = index.search(queries, k=DEFAULT_K, cutoff=args.cutoff, shortlist=args.shortlist)
    column_bytes = sum(index.stats().column_bytes.values())
    per_query = 1e6 / args.queries
    report = {
        "machine": platform.machine(),
        "threads": faiss.omp_get_max_threads(),
        "arguments": vars(args),
        "top-1 accuracy of the simulated classifier": generator.correct / (args.records + args.queries),
        "add, records/s": args.records / adding,
        "cells": index.stats().cells,
        "cells scanned per query": float(result.cells.mean()),
        "codes scanned, share": float(result.codes.mean() / args.records),
        "records cut off per query": float(result.cut_off.mean()),
        "semcut, us per query in the batch": seconds["semcut"] * per_query,
        "IndexBinaryFlat, us per query in the batch": seconds["flat"] * per_query,
        "queries/s against IndexBinaryFlat": seconds["flat"] / seconds["semcut"],
        "pruning, us per query": seconds["prune"] * per_query,
        "scan of the kept cells, us per query": seconds["scan"] * per_query,
        "scan that pruning saves, us per query": (seconds["flat"] - seconds["scan"]) * per_query,
        "one query, us": seconds["semcut, one query"] * 1e6,
        "one query, IndexBinaryFlat, us": seconds["flat, one query"] * 1e6,
        "columns, bytes": column_bytes,
        "memory that adding took, peak, bytes": peak,
        "peak memory per byte of the columns": peak / column_bytes,
    }
    title = f"{args.records:,} records, {args.classes} classes, {args.bits} bits, cutoff {args.cutoff}"
    show(report, title, as_json=args.json)


if __name__ == "__main__":
    main()
