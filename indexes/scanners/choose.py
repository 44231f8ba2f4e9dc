"""Which engine searches an index, and how: the one place that knows the engines by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DeviceError
from semcut.indexes.scanners import faiss_flat
from semcut.indexes.scanners.faiss_ivf import IvfScanner
from semcut.indexes.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from semcut.indexes.scanners.gpu_features import GpuFeatures
    from semcut.indexes.scanners.numba_lists import NumbaScanner
    from semcut.indexes.scanners.segments import SegmentedScanner

AnyScanner: TypeAlias = "IvfScanner | NumbaScanner | SegmentedScanner[Any]"

_LOAD_ROWS = 1 << 18


def devices_of(name: str, device: str) -> tuple[str, ...]:
    """The devices that an engine is to use.

    Raises:
        DeviceError: they are not there.
    """
    if name == "torch":
        from semcut.indexes.scanners import torch_gpu

        return torch_gpu.devices_named(device)
    return faiss_flat.devices_named(device)


def engine_of(state: Snapshot, name: str, device: str) -> AnyScanner:
    """An engine, of a name that `hamming.chosen` gave, with the codes of all records.

    Raises:
        DeviceError: the device is not there, or out of memory.
    """
    engine, rows = _empty(name, state.cells.config.bits, device), state.live
    codes, cells = state.columns.codes, state.columns.cells
    if isinstance(engine, IvfScanner):
        _load(engine, state, rows)
    elif len(rows) == len(state.columns):
        engine.add(codes, rows, cells)
    else:
        engine.add(codes[rows], rows, cells[rows])
    return engine


def changed(before: Snapshot, after: Snapshot) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that a later state of the same generation has added, and those of the earlier state that it removed."""
    rows = np.arange(len(before.columns), len(after.columns))
    gone = after.columns.removed[len(before.columns.removed) :]
    return rows[~np.isin(rows, gone)], gone[gone < len(before.columns)]


def advance(engine: AnyScanner, state: Snapshot, added: NDArray[np.int64], gone: NDArray[np.int64]) -> None:
    """Bring an engine to a state, from the one that these rows are added to and removed from."""
    engine.remove(gone, state.columns.cells[gone])
    _load(engine, state, added)


def _load(engine: AnyScanner, state: Snapshot, rows: NDArray[np.int64]) -> None:
    for start in range(0, len(rows), _LOAD_ROWS):
        part = rows[start : start + _LOAD_ROWS]
        engine.add(state.columns.codes[part], part, state.columns.cells[part])


def _empty(name: str, bits: int, device: str) -> AnyScanner:
    if name == "compiled":
        from semcut.indexes.scanners.numba_lists import NumbaScanner

        return NumbaScanner(bits)
    if name == "torch":
        from semcut.indexes.scanners.torch_gpu import TorchScanner

        return TorchScanner(bits, devices_of(name, device))
    if name == "flat":
        return faiss_flat.FlatScanner(bits, devices_of(name, device))
    return IvfScanner(bits)


def features_of(state: Snapshot, device: str) -> GpuFeatures | None:
    """What will have the features of an index on a card, the first if there are several; None where there is none, or
    no torch that can use it."""
    if device == "cpu" or find_spec("torch") is None:
        return None
    from semcut.indexes.scanners import torch_gpu
    from semcut.indexes.scanners.gpu_features import GpuFeatures

    try:
        return GpuFeatures(torch_gpu.devices_named(device)[0], state.cells.config.dim)
    except DeviceError:
        return None
