"""The torch engine: Hamming distance as a product of matrices of signs, on a card or, for tests, on the processor.

For codes of signs +1 and -1, a . b = bits - 2 Hamming(a, b), and a product of matrices is what a card does best. Codes
stay packed in its memory; those that a block of queries asks for are unpacked when they are multiplied. Queries that
follow each other are taken together, since a search brings them in the order of their classes: they ask for like cells.
A code is multiplied with the whole block, and left out again for the queries that do not keep its cell.

Products of signs are whole numbers up to `bits` in size, which float16 holds exactly up to 2048.

Source: the seam is that of `hamming`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.indexes.errors import DeviceError
from semcut.indexes.scanners.segments import Answer, Segment, SegmentedScanner, devices_among

_PAIRS = {"cuda": 1 << 27, "cpu": 1 << 21}  # of a query and a code at a time


class _Held(NamedTuple):
    """Codes (n, bits / 8) uint8, and (n,) bool which of them are there, None for all; on a device."""

    packed: torch.Tensor
    there: torch.Tensor | None = None


def devices_named(name: str) -> tuple[str, ...]:
    """Torch's names of the devices that a name of `hamming.chosen` stands for: one, or for "cuda" all cards.

    Raises:
        DeviceError: there is no such card.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return devices_among(name, cards, "torch finds no card that it can use")


class TorchScanner(SegmentedScanner[_Held]):
    """Codes of an index, in the memory of devices.

    Args:
        bits: length of a code.
        devices: names of torch's, like "cuda:0"; codes are divided among them.
    """

    deepest = 1 << 60
    block = 32

    def __init__(self, bits: int, devices: Sequence[str] = ("cpu",)) -> None:
        super().__init__(bits, devices)

    def hold(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> _Held:
        """The codes on the device."""
        try:
            return _Held(torch.from_numpy(codes).to(device, copy=device != "cpu"))
        except torch.OutOfMemoryError as error:
            raise _full(device, error) from None

    def mask(self, held: _Held, places: NDArray[np.int64]) -> _Held:
        """The same without the codes in these places."""
        packed, there = held
        there = torch.ones_like(packed[:, 0], dtype=torch.bool) if there is None else there.clone()
        there[torch.from_numpy(places).to(packed.device)] = False
        return _Held(packed, there)

    def nearest(
        self,
        segment: Segment[_Held],
        codes: NDArray[np.uint8],
        asked: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], Answer] | None:
        """Multiply, and have the device select; cards work while the next one is told what to do."""
        at, which = segment.places(asked)
        if not len(at):
            return None
        held, device = segment.held, segment.held.packed.device
        try:
            places, of, may, queries = (torch.from_numpy(array).to(device) for array in (at, which, allowed, codes))
            signs = _signs(queries, self._bits)
            step = max(1, _PAIRS["cpu" if device.type == "cpu" else "cuda"] // len(codes))
            best: tuple[torch.Tensor, torch.Tensor] | None = None
            for start in range(0, len(at), step):
                some = places[start : start + step]
                left_out = ~may[:, of[start : start + step]]
                if held.there is not None:
                    left_out |= ~held.there[some]
                apart = (self._bits - signs @ _signs(held.packed[some], self._bits).T) / 2
                apart = apart.masked_fill_(left_out, torch.inf)
                apart, order = apart.topk(min(depth, len(some)), dim=1, largest=False)
                found = (apart, some[order])
                best = found if best is None else _better(best, found, depth)
        except torch.OutOfMemoryError as error:
            raise _full(str(device), error) from None
        assert best is not None
        distances, where = best
        return lambda: (distances.float().cpu().numpy(), where.cpu().numpy())


def _better(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor], depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest of two selections."""
    apart, places = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    apart, order = apart.topk(min(depth, apart.shape[1]), dim=1, largest=False)
    return apart, places.gather(1, order)


def _signs(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """(n, bits / 8) packed codes as (n, bits) of 1 and -1, in the type that the device multiplies fast."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    ones = (packed[:, :, None] >> shifts) & 1
    kind = torch.float32 if packed.device.type == "cpu" else torch.float16
    return ones.view(len(packed), bits).to(kind).mul_(2).sub_(1)


def _full(device: str, error: BaseException) -> DeviceError:
    return DeviceError(
        f"{device} is out of memory ({str(error).splitlines()[0]}): use more cards, smaller batches of queries, or "
        'device="cpu"'
    )
