"""Build the scanner of an index by the name of its engine, and apply the changes of the index to it.

This is the only module that knows the classes of all scanners. It imports torch and numba only when an engine needs
them.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError, DeviceError
from semcut.indexes.scanners import hamming_faiss_gpu
from semcut.indexes.scanners.hamming_faiss_cpu import IvfScanner
from semcut.indexes.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from semcut.indexes.scanners.gpu_features import GpuFeatures
    from semcut.indexes.scanners.gpu_segments import SegmentedScanner
    from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner

AnyScanner: TypeAlias = "IvfScanner | NumbaScanner | SegmentedScanner[Any]"

_LOAD_ROWS = 1 << 18
"""Codes that are copied from the columns of an index in one step."""


def device_names(engine: str, device: str) -> tuple[str, ...]:
    """Return the names of the devices that an engine is to use: one, or for "cuda" all GPUs.

    Raises:
        DeviceError: a device does not exist.
    """
    if engine == "torch":
        from semcut.indexes.scanners import hamming_torch_gpu

        return hamming_torch_gpu.devices_named(device)
    return hamming_faiss_gpu.devices_named(device)


def build_scanner(state: Snapshot, engine: str, device: str) -> AnyScanner:
    """Build a scanner with the codes of all records of a snapshot.

    Args:
        state: the snapshot.
        engine: a name that `engine_names.choose_engine` returned. "auto" builds FAISS's scanner.
        device: "cpu", "cuda:0" or "cuda".

    Raises:
        DamagedIndexError: another program has changed or cut a file of the index since it was opened.
        DeviceError: the device does not exist, or is out of memory.
    """
    scanner, rows = _empty(engine, state.cells.config.bits, device), state.live
    codes = state.columns.codes
    if isinstance(scanner, IvfScanner):
        _load(scanner, state, rows)
    elif len(rows) == len(state.columns):
        scanner.add(codes, rows, state.columns.cells)
    else:
        scanner.add(codes[rows], rows, state.columns.cells[rows])
    state.columns.require_uncut()
    state.columns.release("codes")  # the scanner has its own
    return scanner


def changed_rows(before: Snapshot, after: Snapshot) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that changed between two snapshots of one generation.

    Returns:
        (n,) int64 rows of the later snapshot that were added, and (m,) int64 rows of the earlier one that were removed.
    """
    rows = np.arange(len(before.columns), len(after.columns))
    removed = after.columns.removed[len(before.columns.removed) :]
    return rows[~np.isin(rows, removed)], removed[removed < len(before.columns)]


def apply_changes(scanner: AnyScanner, state: Snapshot, added: NDArray[np.int64], removed: NDArray[np.int64]) -> None:
    """Update a scanner from one snapshot to a later one.

    Args:
        scanner: has the codes of the earlier snapshot.
        state: the later snapshot.
        added, removed: the rows that `changed_rows` returned.

    Raises:
        DamagedIndexError: as for `build_scanner`; or the scanner does not have the codes of all removed rows.
        DeviceError: the device is out of memory.
    """
    found = scanner.remove(removed, state.columns.cells[removed])
    if found != len(removed):
        raise DamagedIndexError(
            f"the codes of {len(removed) - found} removed records are not in their cells: restore the index from a "
            "backup, then open it again"
        )
    _load(scanner, state, added)
    state.columns.require_uncut()


def _load(scanner: AnyScanner, state: Snapshot, rows: NDArray[np.int64]) -> None:
    for start in range(0, len(rows), _LOAD_ROWS):
        part = rows[start : start + _LOAD_ROWS]
        scanner.add(state.columns.codes[part], part, state.columns.cells[part])


def _empty(engine: str, bits: int, device: str) -> AnyScanner:
    """Build a scanner without codes."""
    if engine == "compiled":
        from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner

        return NumbaScanner(bits)
    if engine == "torch":
        from semcut.indexes.scanners.hamming_torch_gpu import TorchScanner

        return TorchScanner(bits, device_names(engine, device))
    if engine == "flat":
        return hamming_faiss_gpu.FlatScanner(bits, device_names(engine, device))
    return IvfScanner(bits)


def build_gpu_features(state: Snapshot, device: str) -> GpuFeatures | None:
    """Return an empty store for the features of an index, on the GPU or on the first of several.

    Returns:
        None for device "cpu", and if torch is not installed or finds no GPU that it can use.
    """
    if device == "cpu" or find_spec("torch") is None:
        return None
    from semcut.indexes.scanners import hamming_torch_gpu
    from semcut.indexes.scanners.gpu_features import GpuFeatures

    try:
        return GpuFeatures(hamming_torch_gpu.devices_named(device)[0], state.cells.config.dim)
    except DeviceError:
        return None
