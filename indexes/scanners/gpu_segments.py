"""Codes in segments: the common part of the scanners for GPUs, which are fast with few large arrays of codes.

A segment has codes in the order of their cells, and no codes are added to it. Each added batch becomes a new segment;
the last two segments are merged as long as the last one is at least half as large as the one before. So there are never
many segments, and adding n codes takes O(n log n) in all. Removed codes are masked; a segment is rebuilt when more than
a quarter of its codes, or more than `MAX_MASKED` codes, are masked. If there are several devices, each batch is divided
evenly among them, by cells.

A copy of the codes stays in the memory of the CPU, 8 bytes per code of 64 bits, so that segments can be merged there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DeviceError
from semcut.indexes.scanners.protocol import Nearest

MAX_MASKED = 256
"""The largest number of removed codes in a segment; with more it is rebuilt."""
_MAX_MASKED_SHARE = 0.25
"""The largest share of removed codes in a segment; with more it is rebuilt."""

DeviceCodes = TypeVar("DeviceCodes")
"""The type in which a scanner stores the codes of a segment on a device."""

SegmentHits = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Distances (nq, m), nearest first, infinite in slots without a code; and positions in the segment (nq, m)."""

Batch = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.integer[Any]]]
"""Codes (n, bits / 8), their rows (n,) and their cells (n,)."""


@dataclass(eq=False)
class Segment(Generic[DeviceCodes]):
    """Codes in the order of their cells.

    Attributes:
        codes: (n, bits / 8) uint8.
        rows: (n,) int64; -1 where the code was removed.
        starts: (cells + 1,) int64; the position of the first code of each cell, and n.
        on_device: the same codes on a device.
        removed: the number of removed codes.
    """

    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    on_device: DeviceCodes
    removed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self) -> NDArray[np.int64]:
        """Return the cell of each code: (n,) int64."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def positions(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of all codes in (m,) cells, and for each code the position of its cell in `cells`."""
        known = np.minimum(cells, len(self.starts) - 2)
        starts = self.starts[known]
        sizes = np.where(cells == known, self.starts[known + 1] - starts, 0)
        which = np.repeat(np.arange(len(cells)), sizes)
        return np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[which], which


class SegmentedScanner(ABC, Generic[DeviceCodes]):
    """A scanner whose codes are in segments on devices. See `protocol.Scanner`.

    Args:
        bits: length of a code.
        devices: the devices among which codes are divided.

    Attributes:
        deepest, patience: see `protocol.Scanner`.
        fused: False: `search/compiled` needs the codes in the memory of the CPU.
        block: number of queries that are searched together.
    """

    fused = False
    patience = math.inf
    deepest: int
    block: int

    def __init__(self, bits: int, devices: Sequence[str]) -> None:
        self._bits = bits
        self._segments: dict[str, list[Segment[DeviceCodes]]] = {name: [] for name in devices}

    @abstractmethod
    def upload(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> DeviceCodes:
        """Copy codes to a device.

        Args:
            codes: (n, bits / 8) uint8, at least one, in the order of their cells.
            starts: (cells + 1,) int64, the position of the first code of each cell, and n.
            device: the name of the device.

        Raises:
            DeviceError: the device is out of memory.
        """

    @abstractmethod
    def mask(self, on_device: DeviceCodes, positions: NDArray[np.int64]) -> DeviceCodes:
        """Return the codes without those at these positions."""

    @abstractmethod
    def nearest(
        self,
        segment: Segment[DeviceCodes],
        codes: NDArray[np.uint8],
        cells: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], SegmentHits] | None:
        """Start to search a segment, and return a function that waits for the result.

        Args:
            segment: the segment.
            codes: (nq, bits / 8) uint8, the queries.
            cells: (m,) int64, the cells of all queries together, ascending.
            allowed: (nq, m) bool, which of these cells each query searches.
            depth: the number of codes to return for each query.

        Returns:
            The function, or None if the segment has no code in these cells.

        Raises:
            DeviceError: the device is out of memory.
        """

    def add(self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Add n codes under their row numbers to their cells.

        Raises:
            DeviceError: a device is out of memory. The scanner is as it was before.
        """
        if not len(codes):
            return
        after = {device: list(segments) for device, segments in self._segments.items()}
        for device, part in zip(after, _divide(cells, len(after)), strict=True):
            if len(part):
                batch = (codes[part], np.asarray(rows[part], np.int64), cells[part])
                while after[device] and 2 * len(batch[0]) >= len(after[device][-1]):
                    batch = _join(_remaining(after[device].pop()), batch)
                after[device].append(self._segment(*batch, device))
        self._segments = after

    def remove(self, rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> int:
        """Remove n codes from their cells, and return how many of them were there.

        Raises:
            DeviceError: a device is out of memory.
        """
        touched, removed = np.unique(cells).astype(np.int64), 0
        for device, segments in self._segments.items():
            for number, segment in enumerate(segments):
                at = segment.positions(touched)[0]
                at = at[np.isin(segment.rows[at], rows)]
                if len(at):
                    segments[number] = self._without(segment, at, device)
                    removed += len(at)
            self._segments[device] = [segment for segment in segments if len(segment)]
        return removed

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all rows in (m,) cells: (n,) int64 rows, and (n,) int64 positions of their cells, ascending."""
        found, which = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for segments in self._segments.values():
            for segment in segments:
                at, of = segment.positions(cells)
                kept = segment.rows[at] >= 0
                found.append(segment.rows[at][kept])
                which.append(of[kept])
        positions = np.concatenate(which)
        order = np.argsort(positions, kind="stable")
        return np.concatenate(found)[order], positions[order]

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Return the `depth` rows nearest to each query within its cells; see `Scanner.search`.

        Raises:
            DeviceError: a device is out of memory.
        """
        found = Nearest.empty(len(codes), depth)
        for start in range(0, len(codes), self.block):
            here = slice(start, start + self.block)
            self._search(codes[here], cells[here], found.rows[here], found.hamming[here])
        return found

    def _search(
        self, codes: NDArray[np.uint8], cells: NDArray[np.int64], rows: NDArray[np.int64], hamming: NDArray[np.int32]
    ) -> None:
        """Search all segments for one block of queries: start all searches, then wait for the results."""
        searched = np.unique(cells)
        searched = searched[searched >= 0]
        query, place = np.nonzero(cells >= 0)
        allowed = np.zeros((len(cells), len(searched)), bool)
        allowed[query, np.searchsorted(searched, cells[query, place])] = True
        codes, depth = np.ascontiguousarray(codes), rows.shape[1]
        pending = [
            (segment, self.nearest(segment, codes, searched, allowed, depth))
            for segments in self._segments.values()
            for segment in segments
        ]
        all_distances, all_rows = [], []
        for segment, result in pending:
            if result is not None:
                distances, at = result()
                all_distances.append(distances)
                all_rows.append(np.where(np.isfinite(distances), segment.rows[at], -1))
        if not all_distances:
            return
        distances = np.concatenate(all_distances, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :depth]
        distances = np.take_along_axis(distances, order, axis=1)
        rows[:, : order.shape[1]] = np.take_along_axis(np.concatenate(all_rows, axis=1), order, axis=1)
        np.copyto(hamming[:, : order.shape[1]], distances, where=np.isfinite(distances), casting="unsafe")

    def _segment(
        self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]], device: str
    ) -> Segment[DeviceCodes]:
        order = np.argsort(cells, kind="stable")
        starts = np.searchsorted(cells[order], np.arange(int(cells.max()) + 2)).astype(np.int64)
        codes = np.ascontiguousarray(codes[order])
        return Segment(codes, rows[order], starts, self.upload(codes, starts, device))

    def _without(self, segment: Segment[DeviceCodes], at: NDArray[np.int64], device: str) -> Segment[DeviceCodes]:
        """Return a segment without the codes at these positions: masked, rebuilt, or empty."""
        rows, removed = segment.rows.copy(), segment.removed + len(at)
        rows[at] = -1
        if removed == len(segment):
            return Segment(segment.codes[:0], rows[:0], segment.starts, segment.on_device)
        if removed > min(MAX_MASKED, _MAX_MASKED_SHARE * len(segment)):
            remaining = _remaining(Segment(segment.codes, rows, segment.starts, segment.on_device))
            return self._segment(*remaining, device)
        return Segment(segment.codes, rows, segment.starts, self.mask(segment.on_device, at), removed)


def devices_among(name: str, gpus: int, none: str) -> tuple[str, ...]:
    """Return the names of the devices that the parameter `device` means.

    Args:
        name: "cpu", "cuda" for all GPUs, or "cuda:0" for one.
        gpus: the number of GPUs.
        none: the reason in the error message if there are no GPUs.

    Raises:
        DeviceError: there is no such GPU.
    """
    if name == "cpu":
        return ("cpu",)
    known = [f"cuda:{number}" for number in range(gpus)]
    wanted = known if name == "cuda" else [name]
    if not known or not set(wanted) <= set(known):
        there = f"there are {', '.join(known)}" if known else none
        raise DeviceError(f'device = {name} does not exist: {there}; use device="cpu"')
    return tuple(wanted)


def _remaining(segment: Segment[Any]) -> Batch:
    """Return the codes that were not removed, with their rows and cells."""
    kept = segment.rows >= 0
    return segment.codes[kept], segment.rows[kept], segment.cells()[kept]


def _join(first: Batch, second: Batch) -> Batch:
    return (
        np.concatenate([first[0], second[0]]),
        np.concatenate([first[1], second[1]]),
        np.concatenate([first[2], second[2]]),
    )


def _divide(cells: NDArray[np.integer[Any]], parts: int) -> list[NDArray[np.int64]]:
    """Divide the positions of n codes into parts of about the same size that have no cell in common."""
    if parts == 1:
        return [np.arange(len(cells))]
    sizes = np.bincount(cells)
    part_of, loads = np.zeros(len(sizes), np.int64), np.zeros(parts, np.int64)
    for cell in np.argsort(-sizes, kind="stable").tolist():
        part_of[cell] = loads.argmin()
        loads[part_of[cell]] += sizes[cell]
    return [np.flatnonzero(part_of[cells] == part) for part in range(parts)]
