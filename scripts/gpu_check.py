"""What a card does for semcut: whether its engines are right, and how fast they are. Under 8 minutes, no network.

    python scripts/gpu_check.py [--device cuda:0] [--out gpu-check.json]
    python scripts/gpu_check.py --device cpu --records 20000 --classes 10 --batches 1,100     # a try without a card

Right: every engine that can run on the device is compared with brute force, on records of evenly distributed and of
skewed classes. Fast: queries/s of the engines alone (shortlists of 100 within the cells that pruning leaves), of one
flat index over everything, and of the processor, with what goes to the card and comes back; and of whole searches at
the smallest size. The larger sizes are copies of the smallest with 5 % of the bits flipped. Beside each stands what the
device could do at best: codes read at the speed at which it copies, or multiplied at the speed at which it multiplies
large matrices, both measured here. Training and encoding are of a ResNet-18 with random weights and random images of
128 pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from bench_core import Generator
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from semcut.connector.benchmark.measure.machine import describe
from semcut.connector.models.heads import total_loss
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes import BruteForceIndex, DeviceError, Encodings, FaissIndex, IndexConfig
from semcut.indexes.scanners import faiss_flat, torch_gpu
from semcut.indexes.scanners.segments import SegmentedScanner

CUTOFF, SHORTLIST, K = 0.2, 100, 10
KINDS: dict[str, Any] = {"torch": (torch_gpu.TorchScanner, torch_gpu.devices_named),
                         "flat": (faiss_flat.FlatScanner, faiss_flat.devices_named)}  # fmt: skip
EVERYTHING = "one flat index over everything"
ERR = Console(stderr=True)


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between, which may be written 1e6."""
    return [int(float(part)) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda:0, cuda for all cards, or cpu")
    parser.add_argument("--records", type=numbers, default=[1_000_000, 10_000_000])
    parser.add_argument("--classes", type=numbers, default=[100, 1000])
    parser.add_argument("--batches", type=numbers, default=[1, 100, 1000, 10_000])
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each time that is measured")
    parser.add_argument("--out", type=Path, help="also write everything to this JSON file")
    args = parser.parse_args()

    engines, missing = there(args.device)
    if not engines:
        raise SystemExit(1)
    report: dict[str, Any] = {"machine": describe(), "device": card(args.device), "missing": missing}
    ERR.print(f"{report['device']}, engines: {', '.join(engines)}", markup=False)
    report["right"] = {name: right(name, args.device, args.bits) for name in engines}
    report["limits"] = limits(args.device, args.seconds)
    report["speed"] = []
    for classes in args.classes:
        report["speed"] += speed(engines, report["limits"], classes, args)
    report["network"] = network("cuda:0" if args.device == "cuda" else args.device, args.seconds)
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    if not all(report["right"].values()):
        raise SystemExit(1)


def there(device: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Devices of the engines that can run, and why others cannot."""
    engines, missing = {}, {}
    for name, (_, devices_named) in KINDS.items():
        try:
            engines[name] = devices_named(device)
        except DeviceError as error:  # noqa: PERF203
            missing[name] = str(error)
            ERR.print(f"{name}: {error}", markup=False)
    return engines, missing


def card(device: str) -> str:
    """What the device is."""
    if device == "cpu":
        return "the processor"
    count = torch.cuda.device_count() if device == "cuda" else 1
    return f"{count} x {torch.cuda.get_device_name(0 if device == 'cuda' else device)}"


def right(name: str, device: str, bits: int) -> bool:
    """Whether an engine gives what brute force gives."""
    agrees = True
    for skewed in (False, True):
        config = IndexConfig(classes=12, bits=bits, dim=16)
        generator = Generator(12, bits, 16, 5, seed=time.time_ns() % 2**31)
        records, queries = generator(20_000), generator(100)
        if skewed:  # nearly all of one class
            chosen = records.probabilities.argmax(axis=1)
            records = records[(chosen == 0) | (np.arange(len(records)) % 50 == 0)]
        engine: Any = name
        with FaissIndex.create(None, config, engine=engine, device=device) as index:
            reference = BruteForceIndex(config)
            for one in (index, reference):
                for start in range(0, len(records), 3000):
                    one.add(records[start : start + 3000])
                assert records.ids is not None
                one.remove(records.ids[::7])
            for cutoff in (0.0, CUTOFF, 0.5):
                whole = [one.search(queries, k=K, cutoff=cutoff, shortlist=None) for one in (index, reference)]
                short = [
                    one.search(queries, k=SHORTLIST, cutoff=cutoff, shortlist=SHORTLIST) for one in (index, reference)
                ]
                agrees &= all(
                    np.array_equal(getattr(whole[0], field), getattr(whole[1], field))
                    for field in ("ids", "distances", "relevance")
                )
                agrees &= np.array_equal(*(np.sort(one.hamming, axis=1) for one in short))  # ties may fall either way
    return bool(agrees)


def rate(call: Callable[[], object], items: int, seconds: float) -> float:
    """Items a second: of the calls that fit in so many seconds, after one to warm up, the fastest half."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return items / float(np.mean(sorted(times)[: -(-len(times) // 2)]))


def wait(device: str) -> None:
    """Until the card is done."""
    if device != "cpu":
        torch.cuda.synchronize()


def limits(device: str, seconds: float) -> dict[str, float]:
    """Bytes a second that the device reads when it copies, and operations a second when it multiplies matrices."""
    place, kind = ("cpu", torch.float32) if device == "cpu" else ("cuda:0", torch.float16)
    size = 1 << (26 if device == "cpu" else 30)
    block = torch.zeros(size, dtype=torch.uint8, device=place)
    target = torch.empty_like(block)
    side = 1024 if device == "cpu" else 8192
    matrix = torch.zeros(side, side, dtype=kind, device=place)

    def copy() -> None:
        target.copy_(block)
        wait(device)

    def multiply() -> None:
        matrix @ matrix
        wait(device)

    return {
        "bytes/s": rate(copy, size, seconds),
        "operations/s": rate(multiply, 2 * side**3, seconds),
    }


def speed(
    engines: dict[str, tuple[str, ...]], at_best: dict[str, float], classes: int, args: Any
) -> list[dict[str, Any]]:
    """Queries a second with so many classes, at every size and batch."""
    ERR.print(f"{classes} classes", markup=False)
    first, *larger = sorted(args.records)
    config = IndexConfig(classes=classes, bits=args.bits, dim=128)
    generator = Generator(classes, args.bits, 128, 9, seed=0)
    processor = FaissIndex.create(None, config)
    parts = []
    for start in range(0, first, 50_000):
        parts.append(generator(min(50_000, first - start)))
        processor.add(parts[-1])
    queries = generator(max(args.batches))
    cells = processor._state.cells
    kept = cells.prune(queries.probabilities.astype(np.float64), CUTOFF)
    order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")  # as a search orders them
    codes, asked = queries.codes[order], kept.cells[order]
    of = processor._state.columns.cells[: len(processor)]
    found = []
    for records in (first, *larger):
        ERR.print(f"  {records:,} records", markup=False)
        held = copies(np.concatenate([part.codes for part in parts]), records)
        in_cells = np.resize(of, records)
        methods = {
            f"{name}, shortlists": filled(name, devices, held, in_cells, args.bits) for name, devices in engines.items()
        }
        methods["the processor, shortlists"] = filled("processor", ("cpu",), held, in_cells, args.bits)
        whole = everything(args.device, held, args.bits)
        for batch in args.batches:
            scanned = float(kept.codes[order][:batch].mean()) * records / first
            row: dict[str, Any] = {"classes": classes, "records": records, "batch": batch, "scanned": scanned}
            part, lists = codes[:batch], asked[:batch]
            for name, engine in methods.items():
                row[name] = rate(partial(engine.search, part, lists, SHORTLIST), batch, args.seconds)
            if whole is not None:
                row[EVERYTHING] = rate(partial(whole.search, part, SHORTLIST), batch, args.seconds)
            row["limit, reading"] = at_best["bytes/s"] / (scanned * args.bits / 8)
            row["limit, multiplying"] = at_best["operations/s"] / (scanned * 2 * args.bits)
            if records == first:
                row |= searches(engines, processor, parts, queries[:batch], config, args)
            found.append(row)
    return found


def copies(codes: NDArray[np.uint8], records: int) -> NDArray[np.uint8]:
    """So many codes: the given ones, and from the second time on with 5 % of the bits flipped."""
    held = np.resize(codes, (records, codes.shape[1]))
    rng = np.random.default_rng(1)
    for start in range(len(codes), records, len(codes)):
        part = held[start : start + len(codes)]
        part ^= np.packbits(rng.random((len(part), 8 * codes.shape[1]), dtype=np.float32) < 0.05, axis=1)
    return held


def filled(
    name: str, devices: tuple[str, ...], codes: NDArray[np.uint8], cells: NDArray[np.int32], bits: int
) -> SegmentedScanner[Any] | Any:
    """An engine with these codes."""
    if name == "processor":
        from semcut.indexes.scanners.numba_lists import NumbaScanner

        engine: Any = NumbaScanner(bits)
    else:
        engine = KINDS[name][0](bits, devices)
    engine.add(codes, np.arange(len(codes)), cells)
    return engine


def everything(device: str, codes: NDArray[np.uint8], bits: int) -> Any:
    """One flat index of FAISS's on the device; None if this FAISS has no card."""
    if device != "cpu" and not faiss.get_num_gpus():
        return None
    index = faiss_flat.FlatScanner(bits)._empty("cuda:0" if device == "cuda" else device)
    index.add(codes)
    return index


_INDEXES: dict[tuple[str, int], FaissIndex] = {}


def searches(
    engines: dict[str, tuple[str, ...]],
    processor: FaissIndex,
    parts: list[Encodings],
    queries: Encodings,
    config: IndexConfig,
    args: Any,
) -> dict[str, float]:
    """Queries a second of whole searches."""
    row = {}
    for name in engines:
        key = (name, config.classes)
        if key not in _INDEXES:
            engine: Any = name
            _INDEXES[key] = FaissIndex.create(None, config, engine=engine, device=args.device)
            for part in parts:
                _INDEXES[key].add(part)
    for name, index in [*((name, _INDEXES[name, config.classes]) for name in engines), ("the processor", processor)]:
        search = partial(index.search, queries, k=K, cutoff=CUTOFF, shortlist=SHORTLIST)
        row[f"{name}, whole searches"] = rate(search, len(queries), args.seconds)
    return row


def network(device: str, seconds: float) -> dict[str, float]:
    """Images a second of training and of encoding."""
    count = 256 if device != "cpu" else 16
    classes = tuple(map(str, range(100)))
    net = SemanticHashNet(Architecture(backbone="resnet18", classes=classes, image_size=128, head="orthohash"))
    net = net.to(device).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8)
    labels = torch.randint(0, 100, (count,)).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
    kind = torch.float16 if device != "cpu" else torch.bfloat16

    def forward() -> Any:
        with torch.autocast(device.split(":")[0], kind, enabled=device != "cpu"):
            return net(images.to(device).contiguous(memory_format=torch.channels_last))

    def step() -> None:
        output = forward()
        loss = total_loss(net.head, output.logits.float(), output.hash.float(), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        wait(device)

    def encode() -> None:
        with torch.inference_mode():
            forward().hash.cpu()

    training = rate(step, count, seconds)
    net.eval()
    return {"training, images/s": training, "encoding, images/s": rate(encode, count, seconds)}


def show(report: dict[str, Any]) -> None:
    """The short table."""
    console = Console(width=160)
    for name, is_right in report["right"].items():
        console.print(f"{name}: {'as brute force' if is_right else 'NOT AS BRUTE FORCE'}", markup=False)
    names = list(
        dict.fromkeys(
            name for row in report["speed"] for name in row if name not in ("classes", "records", "batch", "scanned")
        )
    )
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
