"""Measure how long near-duplicates of many records take, and how many pairs the comparison of neighbours finds.

    python scripts/bench_duplicates.py [--records 1000000] [--classes 100] [--dim 128] [--everywhere] [--json]

The records are generated: features spread around the centre of a class, or between those of up to three, along
directions of falling variance. Probabilities and codes follow from the feature, so that a copy with a little noise gets
other values of all three. One record in twenty is such a copy. The recall is the share of the pairs of the first
`--recall` records, found by comparing all of them, that are found among neighbours. With a lower `--sharpness`, classes
are less certain; `--noise` is how far copies are from their originals.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from semcut.indexes import Encodings, FaissIndex, IndexConfig, near_duplicates
from semcut.indexes.progress import silent
from semcut.indexes.search.record_pairs import RecordPairs
from semcut.indexes.search_defaults import DEFAULT_DUPLICATE_BITS, DEFAULT_DUPLICATE_DISTANCE

BATCH, COPIES, SPREAD, SHARE = 50_000, 20, 0.8, 0.2


def batches(
    rng: np.random.Generator, records: int, config: IndexConfig, sharpness: float, noise: float
) -> list[Encodings]:
    """Generate the records; the last twentieth of each batch are copies of its first records, with noise."""
    centres = rng.standard_normal((config.classes, config.dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    axes = np.linalg.qr(rng.standard_normal((config.dim, config.dim)))[0] / np.sqrt(1 + np.arange(config.dim))[:, None]
    axes *= SPREAD / np.linalg.norm(axes)
    planes = rng.standard_normal((config.dim, config.bits))
    made = []
    for start in range(0, records, BATCH):
        count = min(BATCH, records - start)
        shares = rng.dirichlet(np.full(3, SHARE), count)[:, :, None]
        features = (shares * centres[rng.integers(0, config.classes, (count, 3))]).sum(axis=1)
        features += rng.standard_normal((count, config.dim)) @ axes
        copies = count // COPIES
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        moved = rng.standard_normal((copies, config.dim)) * noise / np.sqrt(config.dim)
        features[count - copies :] = features[:copies] + moved
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        powers = np.exp(sharpness * (features @ centres.T))
        made.append(
            Encodings(
                probabilities=(powers / powers.sum(axis=1, keepdims=True)).astype(np.float32),
                codes=np.packbits(features @ planes > 0, axis=1),
                features=features.astype(np.float32),
                ids=np.arange(start, start + count),
            )
        )
    return made


def pair_keys(index: FaissIndex, *, everywhere: bool) -> NDArray[np.int64]:
    """Return all pairs among the records of an index, each as one number."""
    found = RecordPairs(index.snapshot, DEFAULT_DUPLICATE_BITS, DEFAULT_DUPLICATE_DISTANCE, compiled=True)
    labels, keys = np.arange(len(index), dtype=np.int32), [np.empty(0, np.int64)]
    for a, b in found.pairs(labels, everywhere=everywhere, progress=silent):
        keys.append(np.minimum(a, b) * len(index) + np.maximum(a, b))
    return np.unique(np.concatenate(keys))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--recall", type=int, default=100_000)
    parser.add_argument("--sharpness", type=float, default=9.0)
    parser.add_argument("--noise", type=float, default=0.06)
    parser.add_argument("--everywhere", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    config = IndexConfig(classes=args.classes, bits=args.bits, dim=args.dim)
    made = batches(np.random.default_rng(0), args.records, config, args.sharpness, args.noise)
    facts: dict[str, float] = {"records": args.records, "classes": args.classes}
    with FaissIndex.create(None, config, engine="compiled") as index:
        for batch in made[: max(1, args.recall // BATCH)]:
            index.add(batch[: args.recall])
        everywhere, neighbours = pair_keys(index, everywhere=True), pair_keys(index, everywhere=False)
        facts["records of the recall"] = len(index)
        facts["pairs"] = len(everywhere)
        facts["recall"] = len(np.intersect1d(everywhere, neighbours)) / max(1, len(everywhere))
        for batch in made[max(1, args.recall // BATCH) :]:
            index.add(batch)
        start = time.perf_counter()
        groups = near_duplicates(index, everywhere=args.everywhere)
        facts["seconds"] = time.perf_counter() - start
        facts["groups"], facts["records in groups"] = len(groups), len(groups.ids)
    if args.json:
        print(json.dumps(facts, indent=2))
        return
    table = Table("", "", title="near-duplicates")
    for name, value in facts.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
