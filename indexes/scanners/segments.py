"""Codes in segments: what engines for cards have in common, which want their codes in few large pieces.

A segment holds codes in the order of their cells, and is not added to: a batch is a new one, and the last two are
merged as long as the last is at least half as large as the one before. So adding costs, over time, the logarithm of
their number per record, and there are never many. Removed codes are masked, and a segment is made anew when more than a
quarter of it, or `MASKED` codes, are. On several devices each batch is divided by cells, evenly.

The codes stay in the memory of the processor, too, 8 bytes each at 64 bits, so that segments can be merged there.
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

MASKED = 256
_SHARE = 0.25

Held = TypeVar("Held")
Answer = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Distances (nq, m), nearest first, infinite where there is none, and places in a segment (nq, m)."""


@dataclass(eq=False)
class Segment(Generic[Held]):
    """Codes in the order of their cells.

    Attributes:
        codes: (n, bits / 8) uint8.
        rows: (n,) int64; -1 where the code was removed.
        starts: (cells + 1,) int64; where each cell begins, and the end.
        held: what the engine has on a device of it.
        gone: how many were removed.
    """

    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    held: Held
    gone: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def cells(self) -> NDArray[np.int64]:
        """(n,) int64: the cell of each code."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def places(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the codes of (m,) cells are, and which of the cells each of them is in."""
        known = np.minimum(cells, len(self.starts) - 2)
        starts = self.starts[known]
        sizes = np.where(cells == known, self.starts[known + 1] - starts, 0)
        which = np.repeat(np.arange(len(cells)), sizes)
        return np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + starts[which], which


class SegmentedScanner(ABC, Generic[Held]):
    """An engine whose codes are in segments on devices.

    Args:
        bits: length of a code.
        devices: among which codes are divided.

    Attributes:
        deepest, patience, fused: see `hamming`.
        block: queries that are searched together.
    """

    fused = False
    patience = math.inf
    deepest: int
    block: int

    def __init__(self, bits: int, devices: Sequence[str]) -> None:
        self._bits = bits
        self._segments: dict[str, list[Segment[Held]]] = {name: [] for name in devices}

    @abstractmethod
    def hold(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> Held:
        """Have codes on a device.

        Args:
            codes: (n, bits / 8) uint8, at least one, in the order of their cells.
            starts: (cells + 1,) int64, where each cell begins.
            device: its name.

        Raises:
            DeviceError: there is no room for them.
        """

    @abstractmethod
    def mask(self, held: Held, places: NDArray[np.int64]) -> Held:
        """The same without the codes in these places."""

    @abstractmethod
    def nearest(
        self,
        segment: Segment[Held],
        codes: NDArray[np.uint8],
        asked: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], Answer] | None:
        """Begin to look for the nearest codes of a segment; what is given back waits for them.

        Args:
            segment: where to look.
            codes: (nq, bits / 8) uint8.
            asked: (m,) int64 cells, ascending.
            allowed: (nq, m) bool, which of them each query asks for.
            depth: how many.

        Returns:
            None if there is no code in these cells.

        Raises:
            DeviceError: the device is out of memory.
        """

    def add(self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Add n codes under their row numbers to the lists of their cells.

        Raises:
            DeviceError: a device is out of memory. What was there before is there still.
        """
        if not len(codes):
            return
        after = {device: list(segments) for device, segments in self._segments.items()}
        for device, part in zip(after, _divided(cells, len(after)), strict=True):
            if len(part):
                batch = (codes[part], np.asarray(rows[part], np.int64), cells[part])
                while after[device] and 2 * len(batch[0]) >= len(after[device][-1]):
                    batch = _joined(_left(after[device].pop()), batch)
                after[device].append(self._segment(*batch, device))
        self._segments = after

    def remove(self, rows: NDArray[np.int64], cells: NDArray[np.integer[Any]]) -> None:
        """Take n codes out of the lists of their cells."""
        touched = np.unique(cells).astype(np.int64)
        for device, segments in self._segments.items():
            for place, segment in enumerate(segments):
                at = segment.places(touched)[0]
                at = at[np.isin(segment.rows[at], rows)]
                if len(at):
                    segments[place] = self._without(segment, at, device)
            self._segments[device] = [segment for segment in segments if len(segment)]

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows in (m,) cells: (n,) int64, and (n,) int64 positions in `cells`, ascending, one per row."""
        found, which = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for segments in self._segments.values():
            for segment in segments:
                at, of = segment.places(cells)
                kept = segment.rows[at] >= 0
                found.append(segment.rows[at][kept])
                which.append(of[kept])
        positions = np.concatenate(which)
        order = np.argsort(positions, kind="stable")
        return np.concatenate(found)[order], positions[order]

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """The `depth` rows nearest to each query within its cells, nearest first.

        Records at the same Hamming distance come in any order, and any of them may be left out at the end.

        Raises:
            DeviceError: a device is out of memory.
        """
        found = Nearest.nothing(len(codes), depth)
        for start in range(0, len(codes), self.block):
            here = slice(start, start + self.block)
            self._search(codes[here], cells[here], found.rows[here], found.hamming[here])
        return found

    def _search(
        self, codes: NDArray[np.uint8], cells: NDArray[np.int64], rows: NDArray[np.int64], hamming: NDArray[np.int32]
    ) -> None:
        asked = np.unique(cells)
        asked = asked[asked >= 0]
        query, place = np.nonzero(cells >= 0)
        allowed = np.zeros((len(cells), len(asked)), bool)
        allowed[query, np.searchsorted(asked, cells[query, place])] = True
        codes, depth = np.ascontiguousarray(codes), rows.shape[1]
        under_way = [
            (segment, self.nearest(segment, codes, asked, allowed, depth))
            for segments in self._segments.values()
            for segment in segments
        ]
        away, found = [], []
        for segment, answer in under_way:
            if answer is not None:
                apart, at = answer()
                away.append(apart)
                found.append(np.where(np.isfinite(apart), segment.rows[at], -1))
        if not away:
            return
        apart = np.concatenate(away, axis=1)
        order = np.argsort(apart, axis=1, kind="stable")[:, :depth]
        apart = np.take_along_axis(apart, order, axis=1)
        rows[:, : order.shape[1]] = np.take_along_axis(np.concatenate(found, axis=1), order, axis=1)
        np.copyto(hamming[:, : order.shape[1]], apart, where=np.isfinite(apart), casting="unsafe")

    def _segment(
        self, codes: NDArray[np.uint8], rows: NDArray[np.int64], cells: NDArray[np.integer[Any]], device: str
    ) -> Segment[Held]:
        order = np.argsort(cells, kind="stable")
        starts = np.searchsorted(cells[order], np.arange(int(cells.max()) + 2)).astype(np.int64)
        codes = np.ascontiguousarray(codes[order])
        return Segment(codes, rows[order], starts, self.hold(codes, starts, device))

    def _without(self, segment: Segment[Held], at: NDArray[np.int64], device: str) -> Segment[Held]:
        rows, gone = segment.rows.copy(), segment.gone + len(at)
        rows[at] = -1
        if gone == len(segment):
            return Segment(segment.codes[:0], rows[:0], segment.starts, segment.held)
        if gone > min(MASKED, _SHARE * len(segment)):
            return self._segment(*_left(Segment(segment.codes, rows, segment.starts, segment.held)), device)
        return Segment(segment.codes, rows, segment.starts, self.mask(segment.held, at), gone)


Batch = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.integer[Any]]]


def devices_among(name: str, cards: int, none: str) -> tuple[str, ...]:
    """The devices that a name of `hamming.chosen` stands for, where there are so many cards.

    Args:
        name: "cpu", "cuda" for all cards, or "cuda:0".
        cards: how many there are.
        none: what to say where there is none.

    Raises:
        DeviceError: there is no such card.
    """
    if name == "cpu":
        return ("cpu",)
    known = [f"cuda:{number}" for number in range(cards)]
    wanted = known if name == "cuda" else [name]
    if not known or not set(wanted) <= set(known):
        there = f"there are {', '.join(known)}" if known else none
        raise DeviceError(f'device = {name} is not here: {there}; use device="cpu"')
    return tuple(wanted)


def _left(segment: Segment[Any]) -> Batch:
    """Codes, rows and cells of what was not removed."""
    kept = segment.rows >= 0
    return segment.codes[kept], segment.rows[kept], segment.cells()[kept]


def _joined(first: Batch, second: Batch) -> Batch:
    (codes, rows, cells), (more, other, others) = first, second
    return np.concatenate([codes, more]), np.concatenate([rows, other]), np.concatenate([cells, others])


def _divided(cells: NDArray[np.integer[Any]], parts: int) -> list[NDArray[np.int64]]:
    """Positions of n codes, in so many parts of about the same size that have no cell in common."""
    if parts == 1:
        return [np.arange(len(cells))]
    sizes = np.bincount(cells)
    taken, loads = np.zeros(len(sizes), np.int64), np.zeros(parts, np.int64)
    for cell in np.argsort(-sizes, kind="stable").tolist():
        taken[cell] = loads.argmin()
        loads[taken[cell]] += sizes[cell]
    return [np.flatnonzero(taken[cells] == part) for part in range(parts)]
