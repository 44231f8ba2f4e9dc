"""The "torch" scanner: Hamming distance as a product of matrices of signs, on a GPU or, for tests, on the CPU.

With bits written as signs +1 and -1, a . b = bits - 2 Hamming(a, b), and a GPU is fastest at products of matrices.
Codes stay packed in the memory of the GPU; the codes that a block of queries searches are unpacked for the product. A
block has consecutive queries, which have most of their cells in common, since a search sorts queries by class. Each
code is multiplied with the whole block, and masked for the queries that do not search its cell.

Products are integers from -bits to bits, and bits is at most 1024; float16 represents integers exactly up to 2048.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.indexes.errors import DeviceError
from semcut.indexes.scanners.gpu_segments import Segment, SegmentedScanner, SegmentHits, devices_among

_PAIRS = {"cuda": 1 << 27, "cpu": 1 << 21}
"""The largest number of pairs of a query and a code in one product, by kind of device."""


class _PackedCodes(NamedTuple):
    """The codes of a segment on a device.

    Attributes:
        packed: (n, bits / 8) uint8.
        present: (n,) bool, which codes were not removed; None if no code was removed.
    """

    packed: torch.Tensor
    present: torch.Tensor | None = None


def devices_named(name: str) -> tuple[str, ...]:
    """Return torch's names of the devices that the parameter `device` means: one, or for "cuda" all GPUs.

    Raises:
        DeviceError: there is no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return devices_among(name, gpus, "torch finds no GPU that it can use")


class TorchScanner(SegmentedScanner[_PackedCodes]):
    """The codes of an index in the memory of GPUs, or of the CPU for tests.

    Args:
        bits: length of a code.
        devices: torch's names of the devices among which codes are divided, such as "cuda:0".
    """

    deepest = 1 << 60
    block = 32

    def __init__(self, bits: int, devices: Sequence[str] = ("cpu",)) -> None:
        super().__init__(bits, devices)

    def upload(self, codes: NDArray[np.uint8], starts: NDArray[np.int64], device: str) -> _PackedCodes:
        """Copy codes to a device; see `SegmentedScanner.upload`."""
        try:
            return _PackedCodes(torch.from_numpy(codes).to(device, copy=device != "cpu"))
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(device, error) from None

    def mask(self, on_device: _PackedCodes, positions: NDArray[np.int64]) -> _PackedCodes:
        """Return the codes without those at these positions."""
        packed, present = on_device
        present = torch.ones_like(packed[:, 0], dtype=torch.bool) if present is None else present.clone()
        present[torch.from_numpy(positions).to(packed.device)] = False
        return _PackedCodes(packed, present)

    def nearest(
        self,
        segment: Segment[_PackedCodes],
        codes: NDArray[np.uint8],
        cells: NDArray[np.int64],
        allowed: NDArray[np.bool_],
        depth: int,
    ) -> Callable[[], SegmentHits] | None:
        """Compute Hamming distances by products of signs, and select the smallest, all on the device.

        The call does not wait for a GPU, so several GPUs work at the same time.
        """
        at, which = segment.positions(cells)
        if not len(at):
            return None
        packed, present = segment.on_device
        device = packed.device
        try:
            positions, cell_of, may, queries = (
                torch.from_numpy(array).to(device) for array in (at, which, allowed, codes)
            )
            signs = _signs(queries, self._bits)
            step = max(1, _PAIRS["cpu" if device.type == "cpu" else "cuda"] // len(codes))
            best: tuple[torch.Tensor, torch.Tensor] | None = None
            for start in range(0, len(at), step):
                some = positions[start : start + step]
                left_out = ~may[:, cell_of[start : start + step]]
                if present is not None:
                    left_out |= ~present[some]
                hamming = (self._bits - signs @ _signs(packed[some], self._bits).T) / 2
                hamming = hamming.masked_fill_(left_out, torch.inf)
                hamming, order = hamming.topk(min(depth, len(some)), dim=1, largest=False)
                found = (hamming, some[order])
                best = found if best is None else _merge(best, found, depth)
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(str(device), error) from None
        assert best is not None
        distances, where = best
        return lambda: (distances.float().cpu().numpy(), where.cpu().numpy())


def _merge(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor], depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest codes of two selections, each with distances and positions."""
    distances, positions = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    distances, order = distances.topk(min(depth, distances.shape[1]), dim=1, largest=False)
    return distances, positions.gather(1, order)


def _signs(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Unpack (n, bits / 8) codes to (n, bits) signs 1 and -1, in the type that the device multiplies fastest."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    ones = (packed[:, :, None] >> shifts) & 1
    kind = torch.float32 if packed.device.type == "cpu" else torch.float16
    return ones.view(len(packed), bits).to(kind).mul_(2).sub_(1)


def _out_of_memory(device: str, error: BaseException) -> DeviceError:
    return DeviceError(
        f"{device} is out of memory ({str(error).splitlines()[0]}): use more GPUs, smaller batches of queries, or "
        'device="cpu"'
    )
