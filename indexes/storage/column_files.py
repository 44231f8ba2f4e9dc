"""Append-only column files with checksums, memory-mapped for reading: what an index consists of.

One file per column, rows in order of arrival, little-endian, no header. How many rows count is kept elsewhere (the
catalogue), and so is the CRC-32 of every block of rows; what lies beyond the rows that count is the remainder of an
append that never completed, is never read, and is cut off by the next append.

    column          one row                                                                  rows in a block
    ids             int64                                                                    128
    codes           bits / 8 x uint8                                                         128
    probabilities   C x float32                                                              128
    features        D x float32                                                              128
    cells           int32, position of the record's cell in the catalogue                    128
    uri_ends        int64, where the record's uri ends in uri_bytes                          128
    uri_bytes       one byte; uris as UTF-8, a zero byte behind each; nothing for no uri     65,536
    removed         int64, a row whose record was removed, in order of removal               128

A block is compared with its checksum before the first of its rows is used: so a damaged file is an error, not a wrong
answer. A block that this process wrote counts as compared. A `MemoryColumn` takes the same calls and has neither file
nor checksums.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import ClosedIndexError, DamagedIndexError, StorageError

_WRITE = 1 << 24
_HUGE = 1 << 22
_MAP_NORESERVE = 0x4000  # Linux; Python's mmap names it from 3.13 on

NAMES = ("ids", "codes", "probabilities", "features", "cells", "uri_ends", "uri_bytes", "removed")
PER_RECORD = NAMES[:6]
"""The columns with one row per record; the other two have their own lengths."""


class Spec(NamedTuple):
    """Dtype and shape of one row of a column, and how many rows share a checksum."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    block: int = 128

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


def specs(config: IndexConfig) -> dict[str, Spec]:
    """What every column of an index looks like."""
    return {
        "ids": Spec(np.dtype("<i8"), ()),
        "codes": Spec(np.dtype("u1"), (config.bits // 8,)),
        "probabilities": Spec(np.dtype("<f4"), (config.classes,)),
        "features": Spec(np.dtype("<f4"), (config.dim,)),
        "cells": Spec(np.dtype("<i4"), ()),
        "uri_ends": Spec(np.dtype("<i8"), ()),
        "uri_bytes": Spec(np.dtype("u1"), (), 1 << 16),
        "removed": Spec(np.dtype("<i8"), ()),
    }


@dataclass(frozen=True, eq=False)
class Extent:
    """The part of a column that counts.

    Attributes:
        rows: how many rows.
        crcs: (blocks,) uint32: the CRC-32 of every block, the last of which may be partly filled. Empty in memory.
    """

    rows: int = 0
    crcs: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))


class Column:
    """One column file.

    Args:
        path: the file, created if `create`.
        spec: its rows.
        create: make a new file, which must not exist.
        writable: open for appending too.
    """

    def __init__(self, path: Path, spec: Spec, *, create: bool = False, writable: bool = True) -> None:
        self.path, self.spec = path, spec
        flags = os.O_RDWR if writable else os.O_RDONLY
        try:
            self._fd = os.open(path, flags | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o666)
        except FileNotFoundError:
            raise DamagedIndexError(f"{path} is missing: the index is damaged, restore it from a backup") from None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from None
        self._close = weakref.finalize(self, os.close, self._fd)
        self._compared = np.ones(1, bool)  # per block, and a last entry that stands for no block
        self._newest = 0  # rows of the longest extent: only with it is a block known that is not full

    def append(self, extent: Extent, values: NDArray[Any]) -> Extent:
        """Write values behind the rows that count, cut off whatever else the file holds, and say what counts then.

        Raises:
            StorageError: the file system refused, most often for lack of space.
        """
        data = np.ascontiguousarray(values, self.spec.dtype).reshape(-1).view(np.uint8).data
        offset = extent.rows * self.spec.row_bytes
        try:
            os.ftruncate(self._fd, offset)
            for start in range(0, len(data), _WRITE):
                block = data[start : start + _WRITE]
                while block:
                    written = os.pwrite(self._fd, block, offset)
                    block, offset = block[written:], offset + written
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "free some space and try again" if full else "nothing was changed"
            raise StorageError(f"cannot write to {self.path}: {error.strerror}; {advice}, no record is lost") from None
        after = Extent(extent.rows + len(values), self._extended(extent, data))
        self._resize(len(after.crcs), len(extent.crcs))
        self._newest = after.rows
        return after

    def _extended(self, extent: Extent, data: memoryview) -> NDArray[np.uint32]:
        size, filled = self.spec.block * self.spec.row_bytes, extent.rows % self.spec.block
        head = size - filled * self.spec.row_bytes if filled else 0
        fresh = [zlib.crc32(data[:head], int(extent.crcs[-1]))] if filled else []
        fresh += [zlib.crc32(data[start : start + size]) for start in range(head, len(data), size)]
        kept = extent.crcs[:-1] if filled else extent.crcs
        return np.concatenate([kept, np.array(fresh, np.uint32)])

    def _resize(self, blocks: int, trusted_from: int) -> None:
        grown = np.ones(blocks + 1, bool)
        known = min(len(self._compared) - 1, trusted_from)
        grown[:known] = self._compared[:known]
        self._compared = grown

    def mark_unverified(self, extent: Extent, first_row: int = 0) -> None:
        """Take what another process wrote: blocks from this row on are compared before they are used."""
        first = first_row // self.spec.block
        self._newest = extent.rows
        self._resize(len(extent.crcs), first)
        self._compared[first:-1] = False

    @property
    def block(self) -> int:
        """Rows of a block."""
        return self.spec.block

    @property
    def compared(self) -> NDArray[np.bool_]:
        """(blocks + 1,) bool: which blocks have been compared with their checksums; the last entry is of none."""
        return self._compared

    def check(self, extent: Extent, rows: NDArray[np.int64] | None = None) -> None:
        """Compare the blocks of these rows (any shape, -1 for none), or all blocks, with their checksums once.

        Raises:
            DamagedIndexError: naming the file and the rows.
        """
        compared = self._compared
        if rows is None:
            blocks = np.flatnonzero(~compared[: len(extent.crcs)])
        else:
            of_rows = rows // self.spec.block
            blocks = of_rows[~compared[of_rows]]
            blocks = np.unique(blocks) if len(blocks) else blocks
        for block in blocks.tolist():
            if not self.matches(extent, block):
                first, last = block * self.spec.block, min((block + 1) * self.spec.block, extent.rows) - 1
                mend = "; or remove or replace these records, which `semcut verify` names, and compact the index"
                raise DamagedIndexError(
                    f"{self.path} is damaged: rows {first} to {last} do not match their checksum, restore the index "
                    f"from a backup{mend if self.path.name in ('probabilities', 'features', 'uri_ends') else ''}"
                )
            if extent.rows == self._newest or (block + 1) * self.spec.block <= extent.rows:
                compared[block] = True

    def matches(self, extent: Extent, block: int) -> bool:
        """Whether the file holds what was written there; reads it."""
        data = self.read(extent, block * self.spec.block, self.spec.block)
        return len(data) > 0 and zlib.crc32(data) == extent.crcs[block]

    def read(self, extent: Extent, first_row: int, rows: int) -> bytes:
        """The bytes of so many rows, fewer at the end, read from the file and not through the mapping.

        Raises:
            DamagedIndexError: the disk cannot read them.
        """
        size = (min(first_row + rows, extent.rows) - first_row) * self.spec.row_bytes
        try:
            data = os.pread(self._fd, size, first_row * self.spec.row_bytes)
        except OSError as error:
            self._check_open()
            raise DamagedIndexError(
                f"{self.path} cannot be read at row {first_row} ({error.strerror}): restore the index from a backup"
            ) from None
        self._check_open()
        return data

    def _check_open(self) -> None:
        """To be called after reading: a descriptor that was closed may be another file's by then."""
        if not self._close.alive:
            raise ClosedIndexError("the index was closed: open it again")

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """These rows, (n,) of them and few, read from the file into an array of their own.

        Raises:
            DamagedIndexError: the disk cannot read them.
        """
        size = self.spec.row_bytes
        try:
            parts = [os.pread(self._fd, size, offset) for offset in (rows * size).tolist()]
            values = np.frombuffer(b"".join(parts), self.spec.dtype).reshape(len(rows), *self.spec.shape)
        except (OSError, ValueError) as error:  # a ValueError is a file that has become too short
            self._check_open()
            reason = error.strerror if isinstance(error, OSError) else "it was cut short"
            raise DamagedIndexError(f"{self.path} cannot be read ({reason}): restore the index from a backup") from None
        self._check_open()
        return values

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise StorageError(f"cannot write {self.path} to disk: {error.strerror}") from None

    def require(self, rows: int) -> None:
        """Raise `DamagedIndexError` if the file is too short for so many rows."""
        size = rows * self.spec.row_bytes
        present = os.fstat(self._fd).st_size
        if present < size:
            raise DamagedIndexError(
                f"{self.path} has {present} bytes, expected {size} for {rows} rows: "
                "the index is damaged, restore it from a backup"
            )

    def view(self, rows: int) -> NDArray[Any]:
        """The first rows of the column, mapped and read-only; later appends leave the view as it is.

        Raises:
            DamagedIndexError: the file is shorter.
        """
        shape = (rows, *self.spec.shape)
        size = rows * self.spec.row_bytes
        if not size:
            return np.empty(shape, self.spec.dtype)
        self.require(rows)
        try:
            mapped = mmap.mmap(self._fd, size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(f"cannot map {size} bytes of {self.path} into memory: {error}") from None
        return np.frombuffer(mapped, self.spec.dtype).reshape(shape)

    def close(self) -> None:
        """Close the file. Views stay valid."""
        self._close()


class MemoryColumn:
    """One column in memory.

    It reserves as many addresses as the machine has memory, and takes memory as rows come. So it grows in place: views
    stay valid and nothing is ever copied. Large columns ask for huge pages, which makes reading rows here and there
    faster.

    Args:
        spec: its rows.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
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

    def append(self, extent: Extent, values: NDArray[Any]) -> Extent:
        """Put values behind the rows that count.

        Raises:
            StorageError: the machine has not enough memory for the column.
        """
        data = np.ascontiguousarray(values, self.spec.dtype).reshape(-1).view(np.uint8)
        start = extent.rows * self.spec.row_bytes
        end = start + len(data)
        if end > self._capacity:
            raise StorageError(f"a column of {end >> 30} GiB does not fit in memory: store the index in a directory")
        if end > max(self._advised, _HUGE) and hasattr(mmap, "MADV_HUGEPAGE"):
            ahead = min(end - end % _HUGE + 2 * _HUGE, self._capacity)  # before they are written to
            with suppress(OSError):  # a kernel without huge pages works as well, only slower
                self._map.madvise(mmap.MADV_HUGEPAGE, self._advised, ahead - self._advised)
            self._advised = ahead
        self._bytes[start:end] = data
        return Extent(extent.rows + len(values))

    def mark_unverified(self, extent: Extent, first_row: int = 0) -> None:
        """Nobody else writes to memory."""

    block = 1 << 62
    compared: NDArray[np.bool_] = np.ones(1, bool)

    def check(self, extent: Extent, rows: NDArray[np.int64] | None = None) -> None:
        """There is nothing to compare with."""

    def sync(self) -> None:
        """There is nothing to wait for."""

    def view(self, rows: int) -> NDArray[Any]:
        """The first rows of the column, read-only; later appends leave the view as it is."""
        array = self._bytes[: rows * self.spec.row_bytes].view(self.spec.dtype).reshape(rows, *self.spec.shape)
        array.flags.writeable = False
        return array

    def close(self) -> None:
        """The memory goes when the last view does."""
