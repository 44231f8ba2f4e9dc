"""The flat engine: FAISS's flat binary indexes, on a card `GpuIndexBinaryFlat`, one for each stretch of cells.

Such an index compares a query with all of its codes, so codes are cut into shelves, stretches of whole cells of at
least `SHELF` codes; cells come class by class, so a large partition has shelves of its own and small ones share. A
query is compared with the shelves that hold a cell of its own, and with all that is on them: what comes from other
cells is not relevant, since its cell was pruned, and is dropped record by record as everything that is not.

What `GpuIndexBinaryFlat` cannot do, and how that is dealt with:
- it has no ids: what it gives are places on its shelf;
- it cannot remove: removed codes are asked for as well, `MASKED` at most, and left out;
- it gives 2048 codes at most: `deepest` leaves room for removed ones, and a search goes on with all rows of the cells;
- each `add` makes it anew: a shelf is filled once;
- an empty one ends the process when it is searched: there are no empty shelves;
- it must not be used by several threads at once: a lock sees to that, and there is one resources object per card.

Source: faiss/gpu/GpuIndexBinaryFlat.h. The seam is that of `hamming`.
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
from semcut.indexes.scanners.segments import MASKED, Answer, Segment, SegmentedScanner, devices_among

SHELF = 4096
_MOST = 2048


class _Shelf(NamedTuple):
    """An index, its first place in the segment, and its first cell and the one behind its last."""

    index: Any
    start: int
    cells: tuple[int, int]


class _Held(NamedTuple):
    """Shelves of a segment, ascending, and (n,) bool which codes are there, None for all."""

    shelves: list[_Shelf]
    there: NDArray[np.bool_] | None = None


def devices_named(name: str) -> tuple[str, ...]:
    """Names of the devices that a name of `hamming.chosen` stands for: one, or for "cuda" all cards.

    Raises:
        DeviceError: there is no such card, or this FAISS is not for cards.
    """
    return devices_among(name, faiss.get_num_gpus(), "FAISS finds no card, or is faiss-cpu")


class FlatScanner(SegmentedScanner[_Held]):
    """Codes of an index, in FAISS's flat indexes.

    Args:
        bits: length of a code.
        devices: "cpu", or cards; codes are divided among them.
    """

    deepest = _MOST - MASKED
    block = 1 << 16

    def __init__(self, bits: int, devices: Sequence[str] = ("cpu",)) -> None:
        super().__init__(bits, devices)
        self._resources: dict[str, Any] = {}
        self._using = threading.Lock()

    def hold(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> _Held:
        """The codes on shelves."""
        shelves, first = [], 0
        while first < len(codes):
            cell = int(np.searchsorted(starts, first, side="right")) - 1  # the first with a code
            end = min(int(np.searchsorted(starts, first + SHELF)), len(starts) - 1)
            part = np.ascontiguousarray(codes[first : starts[end]])
            shelves.append(_Shelf(self._filled(part, device), first, (cell, end)))
            first = int(starts[end])
        return _Held(shelves)

    def _filled(self, codes: NDArray[np.uint8], device: str) -> Any:
        with self._using:
            try:
                index = self._empty(device)
                index.add(codes)
            except RuntimeError as error:  # what FAISS makes of CUDA's errors
                raise _full(device, error) from None
        return index

    def _empty(self, device: str) -> Any:
        card = re.fullmatch(r"cuda:(\d+)", device)
        if card is None:
            return faiss.IndexBinaryFlat(self._bits)
        if device not in self._resources:
            self._resources[device] = faiss.StandardGpuResources()
        config = faiss.GpuIndexBinaryFlatConfig()
        config.device = int(card[1])
        return faiss.GpuIndexBinaryFlat(self._resources[device], self._bits, config)

    def mask(self, held: _Held, places: NDArray[np.int64]) -> _Held:
        """The same without the codes in these places."""
        count = held.shelves[-1].start + held.shelves[-1].index.ntotal
        there = np.ones(count, bool) if held.there is None else held.there.copy()
        there[places] = False
        return _Held(held.shelves, there)

    def nearest(
        self,
        segment: Segment[_Held],
        codes: NDArray[np.uint8],
        asked: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], Answer] | None:
        """Search all shelves with a cell that is asked for, each with the queries that ask for it."""
        apart = np.full((len(codes), depth), np.inf, np.float32)
        places = np.zeros((len(codes), depth), np.int64)
        there = segment.held.there
        for shelf in segment.held.shelves:
            first, end = np.searchsorted(asked, shelf.cells)
            queries = np.flatnonzero(allowed[:, first:end].any(axis=1))
            if not len(queries):
                continue
            size = shelf.index.ntotal
            gone = 0 if there is None else size - int(np.count_nonzero(there[shelf.start : shelf.start + size]))
            with self._using:
                try:
                    distances, found = shelf.index.search(codes[queries], min(depth + gone, size))
                except RuntimeError as error:
                    raise _full("the card", error) from None
            at = found.astype(np.int64) + shelf.start
            distances = distances.astype(np.float32)
            if there is not None:
                distances[~there[at]] = np.inf
            both = np.concatenate([apart[queries], distances], axis=1)
            order = np.argsort(both, axis=1, kind="stable")[:, :depth]
            apart[queries] = np.take_along_axis(both, order, axis=1)
            places[queries] = np.take_along_axis(np.concatenate([places[queries], at], axis=1), order, axis=1)
        return lambda: (apart, places)


def _full(device: str, error: BaseException) -> DeviceError:
    return DeviceError(f'{device} cannot do this ({str(error).splitlines()[0]}): use more cards, or device="cpu"')
