"""Measure searches that are limited by a filter or by ids, against the same searches without a limit.

    python scripts/bench_filters.py RUN/data/fitted-1000000x100-64bits [--rounds 7] [--json]

The directory is a data set of a run of `semcut benchmark`; each of its records gets a random price from 0 to 1. Every
filter is measured when it is new (the filter is evaluated for all records, and the codes of those that match are
copied) and when it was searched before. The methods take turns; medians are reported. Compare ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from semcut.indexes import Among, Encodings, FaissIndex, IndexConfig, attribute

QUERIES = 1024
SHARES = (0.1, 0.01, 0.001)
AMONG = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with FaissIndex.open(args.data / "queries") as stored:
        queries = next(iter(stored.iterate(QUERIES)))
    index = with_prices(args.data / "index")
    times = measured(index, queries, args.rounds)
    ratios = {
        size: {name: value / medians["no limit"] for name, value in medians.items()} for size, medians in times.items()
    }
    if args.json:
        print(json.dumps({"microseconds": times, "ratios": ratios}, indent=2))
        return
    table = Table(title=f"{len(index):,} records: microseconds a query, and ratios to no limit")
    table.add_column("")
    for size in times:
        table.add_column(size, justify="right")
        table.add_column("x", justify="right")
    for name in next(iter(times.values())):
        cells = [text for size in times for text in (f"{times[size][name]:.1f}", f"{ratios[size][name]:.2f}")]
        table.add_row(name, *cells)
    Console().print(table)


def with_prices(path: Path) -> FaissIndex:
    """Return a copy in memory of a stored index, each of whose records has a price."""
    rng = np.random.default_rng(0)
    with FaissIndex.open(path) as stored:
        config = IndexConfig(**{**stored.config.model_dump(), "attributes": {"price": "float"}})
        index = FaissIndex.create(None, config, engine="compiled")
        for batch in stored.iterate(50_000):
            index.load(replace(batch, attributes={"price": rng.random(len(batch)).tolist()}, any_mass=True))
    index.compact()
    return index


def measured(index: FaissIndex, queries: Encodings, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median microseconds a query of each method, for the whole batch, and for one query at a time."""
    changes = itertools.count(1)
    rng = np.random.default_rng(1)
    among = Among(rng.choice(index.ids(), min(AMONG, len(index)), replace=False))

    def limited(share: float, new: bool) -> Callable[[], Any]:
        # A bound that differs in its last digits makes a new filter of the same selectivity.
        return lambda: attribute("price") < (share + next(changes) * 1e-12 if new else share)

    limits: dict[str, Callable[[], dict[str, Any]]] = {"no limit": dict}
    for share, new in itertools.product(SHARES, (False, True)):
        where = limited(share, new)
        limits[f"{100 * share:g} % match{', new' if new else ''}"] = partial(settings, where)
    limits[f"among {AMONG:,} ids"] = lambda: {"among": among}
    found: dict[str, dict[str, float]] = {}
    for size, count in (("batch of 1,024", 1), ("one query", 64)):
        batches = [queries] if count == 1 else [queries[row : row + 1] for row in range(count)]
        times: dict[str, list[float]] = {name: [] for name in limits}
        for number in range(rounds + 1):
            for name, limit in limits.items():
                if not name.endswith("new"):
                    index.search(batches[0], **limit())  # new filters have displaced it
                start = time.perf_counter()
                for batch in batches:
                    index.search(batch, **limit())
                spent = (time.perf_counter() - start) / sum(map(len, batches))
                if number:  # the first round warms up
                    times[name].append(1e6 * spent)
        found[size] = {name: float(np.median(values)) for name, values in times.items()}
    return found


def settings(where: Callable[[], Any]) -> dict[str, Any]:
    """Return the filter of the next search."""
    return {"where": where()}


if __name__ == "__main__":
    main()
