"""Store the records of an index in append-only column files with checksums, memory-mapped for reading.

There is one file per column (`column_specs`). The number of valid rows is stored in the catalogue, and so is the CRC-32
of every block of rows. Bytes after the valid rows remain from an append that was never committed: they are never read,
and the next append cuts them off.

A block is compared with its checksum before any of its rows is used for the first time. So a damaged file leads to an
error, never to a wrong answer. A block that this process wrote counts as compared. An index in memory uses
`memory_column.MemoryColumn` in place of `Column`, without a file and without checksums.
"""

from __future__ import annotations

import errno
import os
import weakref
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import ClosedIndexError, DamagedIndexError, StorageError
from semcut.indexes.regular_files import open_descriptor
from semcut.indexes.storage.column_specs import Spec
from semcut.indexes.storage.cut_files import map_file

_WRITE_BYTES = 1 << 24  # largest single write


@dataclass(frozen=True, eq=False)
class Extent:
    """The valid part of a column.

    Attributes:
        rows: number of valid rows.
        crcs: (blocks,) uint32, the CRC-32 of every block; the last block may be partly filled. Empty for an index in
            memory.
    """

    rows: int = 0
    crcs: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))


class Column:
    """One column file.

    Args:
        path: the file.
        spec: dtype and shape of its rows.
        create: create the file, which must not exist.
        writable: open the file for appending too.

    Raises:
        DamagedIndexError: the file is missing.
        StorageError: the file cannot be opened or created.
    """

    def __init__(self, path: Path, spec: Spec, *, create: bool = False, writable: bool = True) -> None:
        self.path, self.spec = path, spec
        flags = os.O_RDWR if writable else os.O_RDONLY
        try:
            self._fd = open_descriptor(path, flags | (os.O_CREAT | os.O_EXCL if create else 0))
        except FileNotFoundError:
            raise DamagedIndexError(f"{path} is missing: the index is damaged, restore it from a backup") from None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from None
        self._close = weakref.finalize(self, os.close, self._fd)
        self._compared = np.ones(1, bool)
        # Number of rows of the longest extent. Only this extent has a checksum of all rows of a partly filled block.
        self._longest_rows = 0

    def append(self, extent: Extent, values: NDArray[Any]) -> Extent:
        """Cut off everything after the valid rows, write rows there, and return the new extent.

        Raises:
            DamagedIndexError: the file has become too short for the valid rows.
            StorageError: the file system refuses, most often for lack of space.
        """
        self.require(extent.rows)
        data = np.ascontiguousarray(values, self.spec.dtype).reshape(-1).view(np.uint8).data
        offset = extent.rows * self.spec.row_bytes
        try:
            os.ftruncate(self._fd, offset)
            for start in range(0, len(data), _WRITE_BYTES):
                part = data[start : start + _WRITE_BYTES]
                while part:
                    written = os.pwrite(self._fd, part, offset)
                    part, offset = part[written:], offset + written
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = "free some space and try again" if full else "nothing was changed"
            raise StorageError(f"cannot write to {self.path}: {error.strerror}; {advice}, no record is lost") from None
        after = Extent(extent.rows + len(values), self._extended_crcs(extent, data))
        self._resize_compared(len(after.crcs), len(extent.crcs))
        self._longest_rows = after.rows
        return after

    def _extended_crcs(self, extent: Extent, data: memoryview) -> NDArray[np.uint32]:
        """Compute the checksums after `data` was appended; a partly filled last block continues its CRC-32."""
        size, filled = self.spec.block * self.spec.row_bytes, extent.rows % self.spec.block
        head = size - filled * self.spec.row_bytes if filled else 0
        new = [zlib.crc32(data[:head], int(extent.crcs[-1]))] if filled else []
        new += [zlib.crc32(data[start : start + size]) for start in range(head, len(data), size)]
        kept = extent.crcs[:-1] if filled else extent.crcs
        return np.concatenate([kept, np.array(new, np.uint32)])

    def _resize_compared(self, blocks: int, unchanged: int) -> None:
        """Resize `compared` to this number of blocks; blocks from `unchanged` on count as compared."""
        resized = np.ones(blocks + 1, bool)
        known = min(len(self._compared) - 1, unchanged)
        resized[:known] = self._compared[:known]
        self._compared = resized

    def mark_unverified(self, extent: Extent, first_row: int = 0) -> None:
        """Adopt an extent that another process wrote.

        The block of `first_row` and all blocks after it are compared with their checksums before they are used.
        """
        first = first_row // self.spec.block
        self._longest_rows = extent.rows
        self._resize_compared(len(extent.crcs), first)
        self._compared[first:-1] = False

    @property
    def descriptor(self) -> int:
        """The file descriptor; another file can have this number after `close`."""
        return self._fd

    @property
    def block(self) -> int:
        """Number of rows of a block."""
        return self.spec.block

    @property
    def compared(self) -> NDArray[np.bool_]:
        """(blocks + 1,) bool: whether each block was compared with its checksum. The last entry is always True: it is
        the entry of row -1, which means "no record"."""
        return self._compared

    def check(self, extent: Extent, rows: NDArray[np.int64] | None = None) -> None:
        """Compare blocks with their checksums, unless they were compared before.

        Args:
            extent: the valid part of the column.
            rows: (any shape) rows whose blocks are compared, -1 for no row; None for all blocks.

        Raises:
            DamagedIndexError: a block does not match; the message names the file and the rows.
        """
        compared = self._compared
        if rows is None:
            blocks = np.flatnonzero(~compared[: len(extent.crcs)])
        else:
            of_rows = rows // self.spec.block
            blocks = of_rows[~compared[of_rows]]
            blocks = np.unique(blocks) if len(blocks) else blocks
        for block in blocks.tolist():
            fault = self.fault(extent, block)
            if fault is not None:
                first, last = block * self.spec.block, min((block + 1) * self.spec.block, extent.rows) - 1
                repair = "; or remove or replace these records, which `semcut verify` names, and compact the index"
                raise DamagedIndexError(
                    f"{self.path} is damaged: rows {first} to {last} {fault}, restore the index "
                    f"from a backup{repair if self.path.name in ('probabilities', 'features', 'uri_ends') else ''}"
                )
            self._mark_compared(extent, block)

    def compare_around(self, extent: Extent, rows: NDArray[np.int64], around: int) -> None:
        """Compare the blocks of (n,) rows with their checksums, and some blocks before and after each.

        A block that does not match, or cannot be read, stays marked as not compared.

        Args:
            extent: the valid part of the column.
            rows: the rows.
            around: the number of blocks before each block, and after it.
        """
        near = np.unique((rows // self.spec.block)[:, None] + np.arange(-around, around + 1))
        near = near[(near >= 0) & (near < len(extent.crcs))]
        for block in near[~self._compared[near]].tolist():
            with suppress(DamagedIndexError):
                if self.fault(extent, block) is None:
                    self._mark_compared(extent, block)

    def _mark_compared(self, extent: Extent, block: int) -> None:
        if extent.rows == self._longest_rows or (block + 1) * self.spec.block <= extent.rows:
            self._compared[block] = True

    def fault(self, extent: Extent, block: int) -> str | None:
        """Read a block from the file, and return what is wrong with its rows, a verb phrase; None if nothing is.

        Raises:
            DamagedIndexError: the disk cannot read the block.
        """
        data = self.read(extent, block * self.spec.block, self.spec.block)
        if not data or zlib.crc32(data) != extent.crcs[block]:
            return "do not match their checksum"
        return None if self.spec.written(data) else "are not as semcut writes them"

    def read(self, extent: Extent, first_row: int, rows: int) -> bytes:
        """Read the bytes of some rows from the file, not through the mapping. Rows beyond the extent are left out.

        Raises:
            DamagedIndexError: the disk cannot read the rows.
            ClosedIndexError: the column was closed.
        """
        size = (min(first_row + rows, extent.rows) - first_row) * self.spec.row_bytes
        offset = first_row * self.spec.row_bytes
        try:
            data = os.pread(self._fd, size, offset)
            while len(data) < size and (more := os.pread(self._fd, size - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise self._unreadable(f"{error.strerror} at row {first_row}") from None
        self._require_open()
        return data

    def _unreadable(self, reason: str) -> DamagedIndexError:
        self._require_open()
        return DamagedIndexError(f"{self.path} cannot be read ({reason}): restore the index from a backup")

    def _require_open(self) -> None:
        """Raise `ClosedIndexError` if the column was closed.

        Call this after every read: a descriptor that was closed may belong to another file by now.
        """
        if not self._close.alive:
            raise ClosedIndexError("the index was closed: open it again")

    def written(self) -> tuple[int, int]:
        """Return the size of the file in bytes, and when it was last written to, in nanoseconds.

        Raises:
            ClosedIndexError: the column was closed.
        """
        with suppress(OSError):
            found = os.fstat(self._fd)
            self._require_open()
            return found.st_size, found.st_mtime_ns
        raise ClosedIndexError

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read a few scattered (n,) rows from the file into a new array, (n, ...), in this order.

        Raises:
            DamagedIndexError: the disk cannot read the rows.
            ClosedIndexError: the column was closed.
        """
        size = self.spec.row_bytes
        try:
            parts = [os.pread(self._fd, size, offset) for offset in (rows * size).tolist()]
            values = np.frombuffer(b"".join(parts), self.spec.dtype).reshape(len(rows), *self.spec.shape)
        except (OSError, ValueError) as error:  # a ValueError means that the file has become too short
            raise self._unreadable(str(error.strerror if isinstance(error, OSError) else "it was cut short")) from None
        self._require_open()
        return values

    def stretch(self, first: int, rows: int) -> NDArray[Any]:
        """Read consecutive rows from the file into a new array, (rows, ...).

        Raises:
            DamagedIndexError: the disk cannot read the rows, or the file is too short.
            ClosedIndexError: the column was closed.
        """
        values = np.empty((rows, *self.spec.shape), self.spec.dtype)
        left, offset = values.reshape(-1).view(np.uint8).data, first * self.spec.row_bytes
        try:
            while left and (count := os.preadv(self._fd, [left], offset)):  # Linux reads at most 2 GiB at once
                left, offset = left[count:], offset + count
        except OSError as error:
            raise self._unreadable(str(error.strerror)) from None
        self._require_open()
        if left:
            self.require(first + rows)
            raise DamagedIndexError(f"{self.path} was cut while it was read: restore the index from a backup")
        return values

    def sync(self) -> None:
        """Force the written rows of the file to the disk.

        Raises:
            StorageError: the disk refuses.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise StorageError(f"cannot write {self.path} to disk: {error.strerror}") from None

    def require(self, rows: int) -> None:
        """Raise `DamagedIndexError` if the file is too short for this number of rows; do nothing if it was closed."""
        size = rows * self.spec.row_bytes
        try:
            present = os.fstat(self._fd).st_size
        except OSError:
            present = -1
        if present < size and self._close.alive:
            raise DamagedIndexError(
                f"{self.path} has {present} bytes, expected {size} for {rows} rows: "
                "the index is damaged, restore it from a backup"
            )

    def view(self, rows: int) -> NDArray[Any]:
        """Map the first rows of the column into memory, read-only (`cut_files`). Later appends leave the view as it is.

        Raises:
            DamagedIndexError: the file is too short.
            StorageError: the system refuses the mapping.
        """
        shape = (rows, *self.spec.shape)
        size = rows * self.spec.row_bytes
        if not size:
            return np.empty(shape, self.spec.dtype)
        self.require(rows)
        try:
            mapped = map_file(self._fd, size)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(f"cannot map {size} bytes of {self.path} into memory: {error}") from None
        return mapped.view(self.spec.dtype).reshape(shape)

    def close(self) -> None:
        """Close the file. Views stay valid."""
        self._close()
