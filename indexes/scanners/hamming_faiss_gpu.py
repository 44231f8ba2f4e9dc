"""The "flat" scanner: FAISS's flat binary indexes, one for each run of cells; on a GPU `GpuIndexBinaryFlat`.

A flat index compares a query with all of its codes. So the codes of a segment are divided into several flat indexes of
whole cells, with at least `MIN_CODES` codes each. Cells of one class mostly follow each other: a large partition has
flat indexes of its own, and small partitions share one. A query is compared with all codes of every flat index that has
one of its cells. Codes of other cells are not relevant to the query, since pruning has excluded these cells, and the
cutoff drops them record by record.

What `GpuIndexBinaryFlat` cannot do, and how this module deals with it:
- it has no ids: it returns positions in the index, which are added to the position of its first code;
- it cannot remove codes: a search requests as many additional codes as were removed, `MAX_MASKED` at most, and drops
  the removed ones;
- it returns 2048 codes at most: `deepest` leaves a margin for removed codes; where a search must go deeper, it compares
  all rows of the cells;
- each `add` rebuilds it: an index is filled once;
- the process aborts when an empty index is searched: no index is empty;
- several threads must not use it at the same time: a lock prevents that, and there is one resources object per GPU.

On device "cpu", `IndexBinaryFlat` is used in its place, for tests.

Source: faiss/gpu/GpuIndexBinaryFlat.h.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DeviceError
from semcut.indexes.faiss_library import faiss
from semcut.indexes.scanners.gpu_segments import MAX_MASKED, Segment, SegmentedScanner, SegmentHits, devices_among

MIN_CODES = 4096
"""The smallest number of codes in a flat index, except for the last index of a segment."""
_MAX_RESULTS = 2048
"""The largest number of codes that `GpuIndexBinaryFlat` returns."""


class _FlatIndex(NamedTuple):
    """A flat index of a run of cells.

    Attributes:
        index: FAISS's index.
        start: the position of its first code in the segment.
        cells: its first cell, and the cell behind its last one.
    """

    index: Any
    start: int
    cells: tuple[int, int]


class _FlatCodes(NamedTuple):
    """The codes of a segment on a device.

    Attributes:
        indexes: the flat indexes, in the order of their codes.
        present: (n,) bool, which codes were not removed; None if no code was removed.
    """

    indexes: list[_FlatIndex]
    present: NDArray[np.bool_] | None = None


def devices_named(name: str) -> tuple[str, ...]:
    """Return the names of the devices that the parameter `device` means: one, or for "cuda" all GPUs.

    Raises:
        DeviceError: there is no such GPU, or this FAISS was built without GPUs.
    """
    return devices_among(name, faiss.get_num_gpus(), "FAISS finds no GPU, or faiss-cpu is installed")


class FlatScanner(SegmentedScanner[_FlatCodes]):
    """The codes of an index in FAISS's flat indexes.

    Args:
        bits: length of a code.
        devices: "cpu", or names of GPUs like "cuda:0", among which codes are divided.
    """

    deepest = _MAX_RESULTS - MAX_MASKED
    block = 1 << 16

    def __init__(self, bits: int, devices: Sequence[str] = ("cpu",)) -> None:
        super().__init__(bits, devices)
        self._resources: dict[str, Any] = {}
        self._using = threading.Lock()

    def upload(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> _FlatCodes:
        """Fill flat indexes with codes; see `SegmentedScanner.upload`."""
        indexes, first = [], 0
        while first < len(codes):
            cell = int(np.searchsorted(starts, first, side="right")) - 1  # the cell of the first code
            end = min(int(np.searchsorted(starts, first + MIN_CODES)), len(starts) - 1)
            part = np.ascontiguousarray(codes[first : starts[end]])
            indexes.append(_FlatIndex(self._filled(part, device), first, (cell, end)))
            first = int(starts[end])
        return _FlatCodes(indexes)

    def _filled(self, codes: NDArray[np.uint8], device: str) -> Any:
        with self._using:
            try:
                index = self._empty(device)
                index.add(codes)
            except RuntimeError as error:  # FAISS reports errors of CUDA as RuntimeError
                raise _failed(device, error) from None
        return index

    def _empty(self, device: str) -> Any:
        gpu = re.fullmatch(r"cuda:(\d+)", device)
        if gpu is None:
            return faiss.IndexBinaryFlat(self._bits)
        if device not in self._resources:
            self._resources[device] = faiss.StandardGpuResources()
        config = faiss.GpuIndexBinaryFlatConfig()
        config.device = int(gpu[1])
        return faiss.GpuIndexBinaryFlat(self._resources[device], self._bits, config)

    def mask(self, on_device: _FlatCodes, positions: NDArray[np.int64]) -> _FlatCodes:
        """Return the codes without those at these positions."""
        count = on_device.indexes[-1].start + on_device.indexes[-1].index.ntotal
        present = np.ones(count, bool) if on_device.present is None else on_device.present.copy()
        present[positions] = False
        return _FlatCodes(on_device.indexes, present)

    def nearest(
        self,
        segment: Segment[_FlatCodes],
        codes: NDArray[np.uint8],
        cells: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], SegmentHits] | None:
        """Search each flat index that has any of the cells, for the queries that search one of its cells."""
        distances = np.full((len(codes), depth), np.inf, np.float32)
        positions = np.zeros((len(codes), depth), np.int64)
        present = segment.on_device.present
        for flat in segment.on_device.indexes:
            first, end = np.searchsorted(cells, flat.cells)
            queries = np.flatnonzero(allowed[:, first:end].any(axis=1))
            if not len(queries):
                continue
            size = flat.index.ntotal
            removed = 0
            if present is not None:
                removed = size - int(np.count_nonzero(present[flat.start : flat.start + size]))
            with self._using:
                try:
                    hamming, found = flat.index.search(codes[queries], min(depth + removed, size))
                except RuntimeError as error:
                    raise _failed("the GPU", error) from None
            at = found.astype(np.int64) + flat.start
            hamming = hamming.astype(np.float32)
            if present is not None:
                hamming[~present[at]] = np.inf
            both = np.concatenate([distances[queries], hamming], axis=1)
            order = np.argsort(both, axis=1, kind="stable")[:, :depth]
            distances[queries] = np.take_along_axis(both, order, axis=1)
            both_positions = np.concatenate([positions[queries], at], axis=1)
            positions[queries] = np.take_along_axis(both_positions, order, axis=1)
        return lambda: (distances, positions)


def _failed(device: str, error: BaseException) -> DeviceError:
    return DeviceError(f'{device} failed ({str(error).splitlines()[0]}): use more GPUs, or device="cpu"')
