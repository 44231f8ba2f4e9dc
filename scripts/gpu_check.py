"""Check the engines on a GPU: whether their results are correct, and how fast they are.

This takes less than 8 minutes and needs no network.

    python scripts/gpu_check.py [--device cuda:0] [--out gpu-check.json]
    python scripts/gpu_check.py --device cpu --records 20000 --classes 10 --batches 1,100     # a trial without a GPU

Correctness: the results of every engine that can run on the device are compared with brute force, on records of equally
frequent classes and on records that nearly all have one class.

Speed: the queries/s of the engines alone (shortlists of 100 within the cells that pruning keeps), of one flat index
over all codes, of the CPU engine, and, at the smallest size, of whole searches. Transfers to and from the GPU are
included. The larger sizes repeat the records of the smallest size with 5 % of the bits flipped. The script also reports
two limits: the queries/s if the device read codes as fast as it copies memory, and the queries/s if it compared codes
as fast as it multiplies large matrices; it measures both speeds. Training and encoding use a ResNet-18 with random
weights and random images of 128 pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_core import Generator
from gpu_speed import CUTOFF, ERR, KINDS, SHORTLIST, K, measure_limits, measure_network, measure_speed
from rich.console import Console
from rich.table import Table

from semcut.connector.benchmark.measure.machine import describe
from semcut.connector.cli.options import WrittenType
from semcut.indexes import BruteForceIndex, DeviceError, FaissIndex, IndexConfig
from semcut.indexes.storage.atomic_write import replacing_named

MARK = "semcut_gpu_check"
REPORT = WrittenType("a report of this script", b"{", mark=f'"{MARK}"'.encode())
"""The file of a report, which is replaced only by another report."""


def numbers(text: str) -> list[int]:
    """Parse whole numbers that are separated by commas; a number may be written as 1e6."""
    return [int(float(part)) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, cuda for all GPUs, or cpu")
    parser.add_argument("--records", type=numbers, default=[1_000_000, 10_000_000])
    parser.add_argument("--classes", type=numbers, default=[100, 1000])
    parser.add_argument("--batches", type=numbers, default=[1, 100, 1000, 10_000])
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds for each measurement of a speed")
    parser.add_argument("--out", type=Path, help="also write everything to this JSON file")
    args = parser.parse_args()
    reason = None if args.out is None else REPORT.refusal(args.out)
    if reason is not None:
        parser.error(reason)

    engines, missing = usable_engines(args.device)
    if not engines:
        raise SystemExit(1)
    report: dict[str, Any] = {
        MARK: 1,
        "machine": describe(),
        "device": describe_device(args.device),
        "missing": missing,
    }
    ERR.print(f"{report['device']}, engines: {', '.join(engines)}", markup=False)
    report["correct"] = {name: is_correct(name, args.device, args.bits) for name in engines}
    report["limits"] = measure_limits(args.device, args.seconds)
    report["speed"] = []
    for classes in args.classes:
        report["speed"] += measure_speed(engines, report["limits"], classes, args)
    report["network"] = measure_network("cuda:0" if args.device == "cuda" else args.device, args.seconds)
    if args.out is not None:
        with replacing_named(args.out) as scratch:
            scratch.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    if not all(report["correct"].values()):
        raise SystemExit(1)


def usable_engines(device: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Find the devices of each engine that can run, and the reason for each engine that cannot run."""
    engines, missing = {}, {}
    for name, (_, devices_named) in KINDS.items():
        try:
            engines[name] = devices_named(device)
        except DeviceError as error:  # noqa: PERF203
            missing[name] = str(error)
            ERR.print(f"{name}: {error}", markup=False, soft_wrap=True)
    return engines, missing


def describe_device(device: str) -> str:
    """Return the name of the device for the report."""
    if device == "cpu":
        return "CPU"
    count = torch.cuda.device_count() if device == "cuda" else 1
    return f"{count} x {torch.cuda.get_device_name(0 if device == 'cuda' else device)}"


def is_correct(name: str, device: str, bits: int) -> bool:
    """Check that an engine gives the results of brute force."""
    correct = True
    for skewed in (False, True):
        config = IndexConfig(classes=12, bits=bits, dim=16)
        generator = Generator(12, bits, 16, 5, seed=time.time_ns() % 2**31)
        records, queries = generator(20_000), generator(100)
        if skewed:  # nearly all records have one class
            dominant = records.probabilities.argmax(axis=1)
            records = records[(dominant == 0) | (np.arange(len(records)) % 50 == 0)]
        engine: Any = name
        with FaissIndex.create(None, config, engine=engine, device=device) as index:
            indexes = (index, BruteForceIndex(config))
            for target in indexes:
                for start in range(0, len(records), 3000):
                    target.add(records[start : start + 3000])
                assert records.ids is not None
                target.remove(records.ids[::7])
            for cutoff in (0.0, CUTOFF, 0.5):
                exact = [target.search(queries, k=K, cutoff=cutoff, shortlist=None, fill=False) for target in indexes]
                correct &= all(
                    np.array_equal(getattr(exact[0], field), getattr(exact[1], field))
                    for field in ("ids", "distances", "relevance")
                )
                shortlists = [
                    target.search(queries, k=SHORTLIST, cutoff=cutoff, shortlist=SHORTLIST, fill=False)
                    for target in indexes
                ]
                # Shortlists are compared by their Hamming distances only.
                distances, reference = (np.sort(result.hamming, axis=1) for result in shortlists)
                correct &= np.array_equal(distances, reference)
    return bool(correct)


def show(report: dict[str, Any]) -> None:
    """Print whether the engines are correct, and a table of their speed."""
    console = Console(width=160)
    for name, correct in report["correct"].items():
        console.print(f"{name}: {'' if correct else 'NOT '}the same results as brute force", markup=False)
    first = ("classes", "records", "batch", "scanned")
    names = list(dict.fromkeys(name for row in report["speed"] for name in row if name not in first))
    table = Table("classes", "records", "batch", *names, title=f"Queries/s, {report['device']}")
    for column in table.columns:
        column.justify = "right"
    for row in report["speed"]:
        shown = [f"{row[name]:,.0f}" if name in row else "" for name in names]
        table.add_row(f"{row['classes']:,}", f"{row['records']:,}", f"{row['batch']:,}", *shown)
    console.print(table)
    for name, value in {**report["limits"], **report["network"]}.items():
        console.print(f"{name}: {value:,.0f}", markup=False)


if __name__ == "__main__":
    main()
