"""Append-only column files, memory-mapped for reading: the arrays of an index.

One file per column, rows in order of arrival, little-endian, no header. The number of rows that count is kept
elsewhere (the catalogue); what lies beyond it in a file is the remainder of an append that never completed, is never
read, and is overwritten by the next append. A `MemoryColumn` takes the same calls and has no file.

    column          one row                           file
    ids             int64                             ids
    codes           bits / 8 x uint8                  codes
    probabilities   C x float32                       probabilities
    features        D x float32                       features
    cells           int32, number of the cell         cells
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes.errors import DamagedIndexError, StorageError
from indexes.params import IndexConfig

_BLOCK = 1 << 24
_HUGE = 1 << 25
_MAP_NORESERVE = 0x4000  # Linux; Python's mmap names it from 3.13 on


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of an index: read-only, memory-mapped, all of one length. Rows that are added later do not show."""

    ids: NDArray[np.int64]
    codes: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    cells: NDArray[np.int32]


NAMES = tuple(field.name for field in fields(Columns))


def shapes(config: IndexConfig) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Dtype and shape of one row of every column."""
    return {
        "ids": (np.dtype("<i8"), ()),
        "codes": (np.dtype("u1"), (config.bits // 8,)),
        "probabilities": (np.dtype("<f4"), (config.classes,)),
        "features": (np.dtype("<f4"), (config.dim,)),
        "cells": (np.dtype("<i4"), ()),
    }


class Column:
    """One column file.

    Args:
        path: the file, created if `create`.
        dtype, shape: of one row.
        create: make a new file, which must not exist.
        writable: open for appending too.
    """

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        *,
        create: bool = False,
        writable: bool = True,
    ) -> None:
        self._path, self._dtype, self._shape = path, dtype, shape
        self.row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        flags = os.O_RDWR if writable else os.O_RDONLY
        try:
            self._fd = os.open(path, flags | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
        except FileNotFoundError:
            raise DamagedIndexError(f"{path} is missing: the index is damaged, restore it from a backup") from None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from None
        self._close = weakref.finalize(self, os.close, self._fd)

    def append(self, rows: int, values: NDArray[Any]) -> None:
        """Write values after the first `rows` rows, and cut off whatever else the file holds.

        Raises:
            StorageError: the file system refused, most often for lack of space.
        """
        data = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data
        offset = rows * self.row_bytes
        try:
            os.ftruncate(self._fd, offset)
            for start in range(0, len(data), _BLOCK):
                block = data[start : start + _BLOCK]
                while block:
                    written = os.pwrite(self._fd, block, offset)
                    block, offset = block[written:], offset + written
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "free some space and add the batch again" if full else "the batch was not added"
            raise StorageError(
                f"cannot write to {self._path}: {error.strerror}; {advice}, earlier batches are kept"
            ) from None

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise StorageError(f"cannot write {self._path} to disk: {error.strerror}") from None

    def view(self, rows: int) -> NDArray[Any]:
        """The first rows of the column, mapped and read-only; later appends leave the view as it is.

        Raises:
            DamagedIndexError: the file is shorter.
        """
        shape = (rows, *self._shape)
        size = rows * self.row_bytes
        if not size:
            return np.empty(shape, self._dtype)
        present = os.fstat(self._fd).st_size
        if present < size:
            raise DamagedIndexError(
                f"{self._path} has {present} bytes, expected {size} for {rows} records: "
                "the index is damaged, restore it from a backup"
            )
        return np.frombuffer(mmap.mmap(self._fd, size, access=mmap.ACCESS_READ), self._dtype).reshape(shape)

    def close(self) -> None:
        """Close the file. Views stay valid."""
        self._close()


class MemoryColumn:
    """One column in memory.

    It reserves as many addresses as the machine has memory, and takes memory as rows come. So it grows in place: views
    stay valid and nothing is ever copied. Large columns ask for huge pages, which makes reading rows here and there
    faster.

    Args:
        dtype, shape: of one row.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._dtype, self._shape = dtype, shape
        self.row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._capacity = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        try:
            self._map = mmap.mmap(-1, self._capacity, flags=flags)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(
                f"cannot reserve {self._capacity >> 30} GiB of addresses for an index in memory ({error}): "
                "lift the limit on virtual memory (ulimit -v), or store the index in a directory"
            ) from None
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._advised = 0

    def append(self, rows: int, values: NDArray[Any]) -> None:
        """Put values after the first `rows` rows.

        Raises:
            StorageError: the machine has not enough memory for the column.
        """
        data = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8)
        start = rows * self.row_bytes
        end = start + len(data)
        if end > self._capacity:
            raise StorageError(f"a column of {end >> 30} GiB does not fit in memory: store the index in a directory")
        if end - self._advised >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            whole = end - end % _HUGE + _HUGE
            with suppress(OSError):  # a kernel without huge pages works as well, only slower
                self._map.madvise(mmap.MADV_HUGEPAGE, self._advised, min(whole, self._capacity) - self._advised)
            self._advised = whole
        self._bytes[start:end] = data

    def sync(self) -> None:
        """There is nothing to wait for."""

    def view(self, rows: int) -> NDArray[Any]:
        """The first rows of the column, read-only; later appends leave the view as it is."""
        array = self._bytes[: rows * self.row_bytes].view(self._dtype).reshape(rows, *self._shape)
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """The memory goes when the last view does."""
