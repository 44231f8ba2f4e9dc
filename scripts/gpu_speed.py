"""Measure the speed of the engines on a GPU, for `gpu_check.py`, which describes what is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from bench_core import Generator
from numpy.typing import NDArray
from rich.console import Console

from semcut.connector.models.heads import total_loss
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.scanners import hamming_faiss_gpu, hamming_torch_gpu
from semcut.indexes.scanners.gpu_segments import SegmentedScanner
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST

CUTOFF, SHORTLIST, K = DEFAULT_CUTOFF, DEFAULT_SHORTLIST, DEFAULT_K
KINDS: dict[str, Any] = {"torch": (hamming_torch_gpu.TorchScanner, hamming_torch_gpu.devices_named),
                         "flat": (hamming_faiss_gpu.FlatScanner, hamming_faiss_gpu.devices_named)}  # fmt: skip
ALL_CODES = "one flat index over all codes"
ERR = Console(stderr=True)


def rate(call: Callable[[], object], items: int, seconds: float) -> float:
    """Measure items per second, by the mean duration of the faster half of the calls.

    Args:
        call: called once for warm-up, then until `seconds` have passed, at least 3 times.
        items: items that one call processes.
        seconds: duration of the measurement.
    """
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return items / float(np.mean(sorted(times)[: -(-len(times) // 2)]))


def wait(device: str) -> None:
    """Wait until the GPU has finished its work."""
    if device != "cpu":
        torch.cuda.synchronize()


def measure_limits(device: str, seconds: float) -> dict[str, float]:
    """Measure the bytes/s that the device reads when it copies, and its operations/s when it multiplies matrices."""
    place, dtype = ("cpu", torch.float32) if device == "cpu" else ("cuda:0", torch.float16)
    size = 1 << (26 if device == "cpu" else 30)
    block = torch.zeros(size, dtype=torch.uint8, device=place)
    target = torch.empty_like(block)
    side = 1024 if device == "cpu" else 8192
    matrix = torch.zeros(side, side, dtype=dtype, device=place)

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


def measure_speed(
    engines: dict[str, tuple[str, ...]], limits: dict[str, float], classes: int, args: Any
) -> list[dict[str, Any]]:
    """Measure queries/s with a number of classes, for every number of records and every batch size."""
    ERR.print(f"{classes} classes", markup=False)
    first, *larger = sorted(args.records)
    config = IndexConfig(classes=classes, bits=args.bits, dim=128)
    generator = Generator(classes, args.bits, 128, 9, seed=0)
    cpu_index = FaissIndex.create(None, config)
    parts = []
    for start in range(0, first, 50_000):
        parts.append(generator(min(50_000, first - start)))
        cpu_index.add(parts[-1])
    queries = generator(max(args.batches))
    snapshot = cpu_index.snapshot
    kept = snapshot.cells.prune(queries.probabilities.astype(np.float64), CUTOFF)
    order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")  # the order in which a search scans
    query_codes, query_cells = queries.codes[order], kept.cells[order]
    record_codes, record_cells = snapshot.columns.codes, snapshot.columns.cells
    rows = []
    for records in (first, *larger):
        ERR.print(f"  {records:,} records", markup=False)
        codes = repeat_codes(record_codes, records)
        cells = np.resize(record_cells, records)
        methods = {
            f"{name}, shortlists": fill_engine(name, devices, codes, cells, args.bits)
            for name, devices in engines.items()
        }
        methods["CPU, shortlists"] = fill_engine("CPU", ("cpu",), codes, cells, args.bits)
        flat = flat_index(args.device, codes, args.bits)
        for batch in args.batches:
            scanned = float(kept.codes[order][:batch].mean()) * records / first
            row: dict[str, Any] = {"classes": classes, "records": records, "batch": batch, "scanned": scanned}
            some_codes, some_cells = query_codes[:batch], query_cells[:batch]
            for name, engine in methods.items():
                row[name] = rate(partial(engine.search, some_codes, some_cells, SHORTLIST), batch, args.seconds)
            if flat is not None:
                row[ALL_CODES] = rate(partial(flat.search, some_codes, SHORTLIST), batch, args.seconds)
            row["limit, reading"] = limits["bytes/s"] / (scanned * args.bits / 8)
            row["limit, multiplying"] = limits["operations/s"] / (scanned * 2 * args.bits)
            if records == first:
                row |= measure_searches(engines, cpu_index, parts, queries[:batch], config, args)
            rows.append(row)
    return rows


def repeat_codes(codes: NDArray[np.uint8], records: int) -> NDArray[np.uint8]:
    """Repeat codes until there are `records`; every repetition has 5 % of its bits flipped."""
    repeated = np.resize(codes, (records, codes.shape[1]))
    rng = np.random.default_rng(1)
    for start in range(len(codes), records, len(codes)):
        part = repeated[start : start + len(codes)]
        part ^= np.packbits(rng.random((len(part), 8 * codes.shape[1]), dtype=np.float32) < 0.05, axis=1)
    return repeated


def fill_engine(
    name: str, devices: tuple[str, ...], codes: NDArray[np.uint8], cells: NDArray[np.int32], bits: int
) -> SegmentedScanner[Any] | Any:
    """Create an engine and add these codes to it."""
    if name == "CPU":
        from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner

        engine: Any = NumbaScanner(bits)
    else:
        engine = KINDS[name][0](bits, devices)
    engine.add(codes, np.arange(len(codes)), cells)
    return engine


_GPU_RESOURCES: list[Any] = []
"""Resources of FAISS's GPU indexes, which must live as long as the indexes."""


def flat_index(device: str, codes: NDArray[np.uint8], bits: int) -> Any:
    """Create one flat FAISS index with all codes on the device; return None if the installed FAISS finds no GPU."""
    if device == "cpu":
        index: Any = faiss.IndexBinaryFlat(bits)
    elif faiss.get_num_gpus():
        config = faiss.GpuIndexBinaryFlatConfig()
        config.device = int(device.partition(":")[2] or 0)
        _GPU_RESOURCES.append(faiss.StandardGpuResources())
        index = faiss.GpuIndexBinaryFlat(_GPU_RESOURCES[-1], bits, config)
    else:
        return None
    index.add(codes)
    return index


_INDEXES: dict[tuple[str, int], FaissIndex] = {}
"""The index of each engine and number of classes, which all batch sizes share."""


def measure_searches(
    engines: dict[str, tuple[str, ...]],
    cpu_index: FaissIndex,
    parts: list[Encodings],
    queries: Encodings,
    config: IndexConfig,
    args: Any,
) -> dict[str, float]:
    """Measure queries/s of whole searches."""
    row = {}
    for name in engines:
        key = (name, config.classes)
        if key not in _INDEXES:
            engine: Any = name
            _INDEXES[key] = FaissIndex.create(None, config, engine=engine, device=args.device)
            for part in parts:
                _INDEXES[key].add(part)
    for name, index in [*((name, _INDEXES[name, config.classes]) for name in engines), ("CPU", cpu_index)]:
        search = partial(index.search, queries, k=K, cutoff=CUTOFF, shortlist=SHORTLIST)
        row[f"{name}, whole searches"] = rate(search, len(queries), args.seconds)
    return row


def measure_network(device: str, seconds: float) -> dict[str, float]:
    """Measure images/s of training and of encoding."""
    count = 256 if device != "cpu" else 16
    classes = tuple(map(str, range(100)))
    net = SemanticHashNet(Architecture(backbone="resnet18", classes=classes, image_size=128, head="orthohash"))
    net = net.to(device).to(memory_format=torch.channels_last)
    images = torch.randint(0, 256, (count, 3, 128, 128), dtype=torch.uint8)
    labels = torch.randint(0, 100, (count,)).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4)
    dtype = torch.float16 if device != "cpu" else torch.bfloat16

    def forward() -> Any:
        with torch.autocast(device.split(":")[0], dtype, enabled=device != "cpu"):
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
