"""Measure a stored `FaissIndex`: the cost of durability, opening and removed records in time and memory.

    python scripts/bench_store.py [--records 1000000] [--folder .] [--json]

Records are those of `bench_core`. The index is created in a new folder below --folder, so --folder chooses the disk
that is measured; the folder is deleted at the end. The page cache is warm. Memory is the resident memory of a new
process, mapped files included, which opens the index and runs 1,000 searches: one by one, or in one batch.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from bench_core import Generator, arguments, batches, medians, show
from rich.progress import track

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines

READER = """
import re, sys, time
from pathlib import Path
import numpy as np
from semcut.indexes import FaissIndex, Encodings

def memory(what):
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

names = ("probabilities", "codes", "features")
queries = Encodings(**{name: np.load(Path(sys.argv[2]) / f"{name}.npy") for name in names})
before = memory("VmRSS")
start = time.perf_counter()
index = FaissIndex.open(sys.argv[1])
opened = time.perf_counter() - start
after = memory("VmRSS")
size = int(sys.argv[3])
start = time.perf_counter()
for row in range(0, len(queries), size):
    index.search(queries[row : row + size])
searched = time.perf_counter() - start
print(opened, searched / len(queries), before, after, memory("VmRSS"), memory("RssAnon"))
"""


def seconds(method: Callable[[], object]) -> float:
    """Return the duration of one call in seconds."""
    start = time.perf_counter()
    method()
    return time.perf_counter() - start


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=Path())
    args = parser.parse_args()
    os.environ.setdefault(ENGINE_VARIABLE, available_engines()[0])  # compile before anything is measured
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report = measure(args, Path(folder))
    title = f"{args.records:,} records, {args.classes} classes, {args.bits} bits, {args.dim}-d features"
    show(report, title, as_json=args.json)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Create, open, search and change a stored index, and return the figures by name."""
    generator = Generator(args.classes, args.bits, args.dim, 9, args.seed)
    config = IndexConfig(classes=args.classes, bits=args.bits, dim=args.dim)
    path, quiet = folder / "index", args.json
    report: dict[str, object] = {
        "machine": platform.machine(),
        "threads": faiss.omp_get_max_threads(),
        "arguments": {name: str(value) for name, value in vars(args).items()},
    }

    index, total = FaissIndex.create(path, config), -(-args.records // args.batch)
    times = [
        seconds(lambda batch=batch: index.add(batch))
        for batch in track(batches(generator, args.records, args.batch), "Adding", total, disable=quiet)
    ]
    report["durable add, records/s"] = args.records / sum(times)
    report["durable add, slowest batch, ms"] = 1e3 * max(times)
    ones = [generator(1) for _ in range(50)]
    report["durable add of one record, ms"] = 1e3 * float(
        np.median([seconds(lambda one=one: index.add(one)) for one in ones])
    )
    index.remove(np.concatenate([one.ids for one in ones if one.ids is not None]))
    queries = generator(1000)
    for name in ("probabilities", "codes", "features"):
        np.save(folder / name, getattr(queries, name))

    small = [generator(100) for _ in range(100)]
    with FaissIndex.create(folder / "bulk", config, durability="close") as bulk:
        bulk_seconds = sum(seconds(lambda batch=batch: bulk.add(batch)) for batch in small) + seconds(bulk.flush)
    with FaissIndex.create(folder / "single", config) as single:
        single_seconds = sum(seconds(lambda batch=batch: single.add(batch)) for batch in small)
    report["batches of 100, durability close, records/s"] = 10_000 / bulk_seconds
    report["batches of 100, durability batch, records/s"] = 10_000 / single_seconds

    sizes = index.stats().column_bytes
    index.close()
    for size in (1, 1000):
        command = [sys.executable, "-c", READER, path, folder, str(size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        opening, one, empty, opened, searched, private = map(float, done.stdout.split())
        how = "one by one" if size == 1 else "in a batch"
        report[f"first 1,000 searches after opening, {how}, ms each"] = 1e3 * one
        report[f"resident after 1,000 searches {how}, MB"] = searched / 1e6
    report["open, s"] = opening
    report["resident before opening, MB"] = empty / 1e6
    report["resident after opening, MB"] = opened / 1e6
    report["private after opening, MB"] = private / 1e6
    report["codes and ids, MB"] = (sizes["codes"] + sizes["ids"]) / 1e6

    index = FaissIndex.open(path)
    rng = np.random.default_rng(args.seed)
    ids = rng.permutation(index.ids())
    hundredth, fifth = len(ids) // 100, len(ids) // 5
    index.contains(ids[:1])
    report["refresh without a new commit, us"] = 1e6 * seconds(lambda: [index.refresh() for _ in range(1000)]) / 1000
    report["remove 1 % of the records, s"] = seconds(lambda: index.remove(ids[:hundredth]))
    index.remove(ids[hundredth:fifth])
    report["backup, records/s"] = len(ids) / seconds(lambda: index.backup(folder / "copy"))
    report["verify, records/s"] = len(ids) / seconds(lambda: check(index))
    copy = FaissIndex.open(folder / "copy")
    report["compact, records/s"] = (len(ids) - fifth) / seconds(copy.compact)

    def search(searched: FaissIndex, batch: Encodings) -> Callable[[], object]:
        return lambda: searched.search(batch)

    speed = medians(
        {
            "batch": search(index, queries),
            "batch, compacted": search(copy, queries),
            "single": lambda: [index.search(queries[row : row + 1]) for row in range(200)],
            "single, compacted": lambda: [copy.search(queries[row : row + 1]) for row in range(200)],
        },
        args.rounds,
    )
    report["batch of 1,000 with 20 % removed, us per query"] = 1e3 * speed["batch"]
    report["the same after compaction, us per query"] = 1e3 * speed["batch, compacted"]
    report["time with 20 % removed over time after compaction, batch"] = speed["batch"] / speed["batch, compacted"]
    report["time with 20 % removed over time after compaction, one query"] = (
        speed["single"] / speed["single, compacted"]
    )
    index.close()
    copy.close()
    return report


def check(index: FaissIndex) -> None:
    """Verify a stored index, which must be undamaged."""
    damage = index.verify()
    assert not damage, damage


if __name__ == "__main__":
    main()
