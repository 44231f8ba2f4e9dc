"""Measure how fast images are indexed, against the bare network on the same images in memory.

    python scripts/bench_index.py tiny-imagenet/val --model MODEL [--count 2000] [--rounds 3] [--json]

The two take turns: the bare network runs on decoded pixels, batch by batch; indexing decodes the files, encodes them
and adds them to a new stored index. The resident memory is the largest of the process, pixels of the bare network
included.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from semcut import Connector
from semcut.connector.data.images import read_batches
from semcut.connector.data.sources import load
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.device import images_at_once, keep_freed_memory
from semcut.connector.models.inference import NetworkRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="a folder, an archive or a list of images")
    parser.add_argument("--model", required=True, help="a directory of a network")
    parser.add_argument("--count", type=int, default=2000, help="how many of the images")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    keep_freed_memory()  # as commands do
    files = load(args.images).files[: args.count]
    runner = NetworkRunner(Checkpoint.load(args.model).net)
    size = images_at_once(runner.device, runner.bytes_per_image(), 128)
    pixels = [batch.pixels for batch in read_batches(files, runner.net.architecture.image_size, size, 2)]
    bare, indexed = [], []
    for number in range(args.rounds + 1):
        start = time.perf_counter()
        for batch in pixels:
            runner.run(batch)
        between = time.perf_counter()
        with tempfile.TemporaryDirectory() as place, Connector.create(Path(place) / "index", args.model) as connector:
            connector.add_files(files)
        if number:  # the first round warms up
            bare.append(len(files) / (between - start))
            indexed.append(len(files) / (time.perf_counter() - between))
    found = {
        "images": len(files),
        "bare network, images/s": float(np.median(bare)),
        "indexing, images/s": float(np.median(indexed)),
        "ratio": float(np.median(np.array(indexed) / np.array(bare))),
        "resident MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:>24}: {value:,.2f}")


if __name__ == "__main__":
    main()
