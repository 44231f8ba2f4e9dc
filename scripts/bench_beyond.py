"""Measure searches that fill places, and searches without a cutoff, against the search and the scan that they replace.

    python scripts/bench_beyond.py RUN/data/fitted-1000000x100-64bits [--rounds 5] [--json]

The directory is a data set of a run of `semcut benchmark`. The methods take turns, in batches of 1,024 queries; medians
are reported. Compare ratios, not microseconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from semcut.indexes import FaissIndex
from semcut.indexes.search_defaults import DEFAULT_K, DEFAULT_SHORTLIST

QUERIES = 1024
UNPRUNED = 64  # queries of the slowest search
FEW = 0.99  # a cutoff above which most queries have fewer than k records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with FaissIndex.open(args.data / "queries") as stored:
        queries = next(iter(stored.iterate(QUERIES)))
    with FaissIndex.open(args.data / "index", engine="compiled") as index:
        records = [(batch.codes, batch.features) for batch in index.iterate()]
        codes, features = (np.concatenate([batch[place] for batch in records]) for place in (0, 1))
        del records
        flat = faiss.IndexBinaryFlat(index.config.bits)
        flat.add(codes)
        few = index.search(queries, cutoff=FEW, fill=False).ids[:, -1] < 0
        queries = queries[np.flatnonzero(few)]

        def searching(count: int = len(queries), **settings: Any) -> Callable[[], object]:
            return lambda: index.search(queries[:count], **settings)

        def reranked() -> None:
            near = flat.search(queries.codes, DEFAULT_SHORTLIST)[1]
            for start in range(0, len(queries), 64):
                rows = near[start : start + 64]
                away = features[rows] - queries.features[start : start + 64, None]
                np.take_along_axis(rows, np.argsort(np.vecdot(away, away), axis=1)[:, :DEFAULT_K], axis=1)

        methods = {
            "t = 0.2, fused": searching(ranking="fused", fill=False),
            "no cutoff, fused": searching(ranking="fused", cutoff=None),
            "no cutoff, relevance": searching(ranking="relevance", cutoff=None),
            "filled, fused": searching(ranking="fused", cutoff=FEW),
            "filled, relevance": searching(ranking="relevance", cutoff=FEW),
            "every record scored, fused": searching(UNPRUNED, ranking="fused", cutoff=0.0, shortlist=None, fill=False),
            "filled, distance": searching(cutoff=FEW),
            "IndexBinaryFlat, re-ranked": reranked,
        }
        times: dict[str, list[float]] = {name: [] for name in methods}
        for number in range(args.rounds + 1):
            for name, method in methods.items():
                start = time.perf_counter()
                method()
                spent = (time.perf_counter() - start) / (UNPRUNED if name.startswith("every") else len(queries))
                if number:  # the first round warms up
                    times[name].append(1e6 * spent)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    pairs = [
        ("no cutoff, fused", "t = 0.2, fused"),
        ("filled, fused", "every record scored, fused"),
        ("filled, relevance", "every record scored, fused"),
        ("filled, distance", "IndexBinaryFlat, re-ranked"),
    ]
    ratios = {f"{name} / {base}": medians[name] / medians[base] for name, base in pairs}
    if args.json:
        print(json.dumps({"queries": len(queries), "microseconds": medians, "ratios": ratios}, indent=2))
        return
    for title, values, unit in (("microseconds a query", medians, ".1f"), ("ratios", ratios, ".3f")):
        table = Table(title=f"{title}, {len(queries)} queries")
        table.add_column("")
        table.add_column("", justify="right")
        for name, value in values.items():
            table.add_row(name, format(value, unit))
        Console().print(table)


if __name__ == "__main__":
    main()
