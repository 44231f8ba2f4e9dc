"""Measure `semcut sync` of a folder of which nothing has changed: the whole command, as a user waits for it.

    python scripts/bench_sync.py [--files 100000] [--place .]

The files are of a few bytes, in 100 class folders, and the encodings are random: neither is read by the command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from semcut.connector.retrieval.indexed_files import IndexedFiles, observed
from semcut.connector.retrieval.model_link import write_link
from semcut.indexes import Encodings, FaissIndex, IndexConfig

LONG_AGO = 1_600_000_000
BATCH = 10_000


def make(place: Path, count: int) -> None:
    """Make a folder of files and its index."""
    folder, rng = place / "photos", np.random.default_rng(0)
    uris = [f"class{number % 100:02d}/{number:08d}.png" for number in range(count)]
    for number in range(100):
        (folder / f"class{number:02d}").mkdir(parents=True)
    for number, uri in enumerate(uris):
        (folder / uri).write_text(str(number))
        os.utime(folder / uri, (LONG_AGO + number, LONG_AGO + number))
    with FaissIndex.create(place / "index", IndexConfig(classes=100, bits=64, dim=128), engine="faiss") as index:
        link = {"model": "none", "sha256": "0" * 64, "head": "none", "binarisation": "none"}
        write_link(place / "index", **link, roots=[str(folder)], root=str(folder))
        files = IndexedFiles(index, place / "index", str(folder))
        for start in range(0, count, BATCH):
            some = uris[start : start + BATCH]
            features = rng.standard_normal((len(some), 128)).astype(np.float32)
            batch = Encodings(
                probabilities=rng.dirichlet(np.full(100, 0.05), len(some)).astype(np.float32),
                codes=rng.integers(0, 256, (len(some), 8), dtype=np.uint8),
                features=features / np.linalg.norm(features, axis=1, keepdims=True),
                ids=np.arange(start, start + len(some)),
            )
            files.put(batch, some, [observed(str(folder / uri)) for uri in some])


def main() -> None:
    """Make a folder and its index, sync three times, and print the seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--place", type=Path, help="an existing folder, for files that are deleted at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.place) as place:
        make(Path(place), arguments.files)
        command = [Path(sys.executable).with_name("semcut"), "sync", "index", "--json"]
        for _ in range(3):
            start = time.perf_counter()
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
            unchanged = json.loads(done.stdout)["unchanged"]
            print(f"{unchanged:,} files unchanged in {seconds:.2f} s, at most {memory:.0f} MB resident")


if __name__ == "__main__":
    main()
