"""Read the arrays of an .npz file of a benchmark: a regular file, within limits, without pickled objects.

An .npz file is a zip archive, so a small file can hold arrays of any size. The caller says which arrays there can be;
every header is compared with that before any array is read.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.regular_files import open_binary

_LISTING_BYTES = 1 << 20
"""The largest list of the arrays in a file, and room for all headers: many times the largest that semcut writes."""


class Array(NamedTuple):
    """The type and the shape that an array must have.

    Attributes:
        dtype: its type, such as "i8".
        shape: for each dimension its size, or the smallest and the largest size.
    """

    dtype: str
    shape: tuple[int | tuple[int, int], ...]

    def fits(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Return whether an array of this type and shape is one."""
        limits = [(size, size) if isinstance(size, int) else size for size in self.shape]
        return (
            dtype == np.dtype(self.dtype)
            and len(shape) == len(limits)
            and all(low <= size <= high for size, (low, high) in zip(shape, limits, strict=True))
        )

    def __str__(self) -> str:
        sizes = [str(size) if isinstance(size, int) else f"{size[0]} to {size[1]}" for size in self.shape]
        return f"{np.dtype(self.dtype)} of shape ({', '.join(sizes)})"


def read_arrays(
    path: Path, expected: Callable[[str], Array | None], required: Collection[str], max_bytes: int
) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file.

    Args:
        path: the file.
        expected: says what an array of a name must be; None if there is none of that name.
        required: names that must be there.
        max_bytes: largest sum of the arrays, in bytes.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
        ValueError: the file is damaged, or has other arrays.
    """
    with open_binary(path, max_bytes=max_bytes + _LISTING_BYTES) as file:
        try:
            with zipfile.ZipFile(_SmallReads(file)) as archive:
                entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
                missing = sorted(set(required) - entries.keys())
                if missing:
                    raise ValueError(f"it has no array {missing[0]!r}")
                left = max_bytes
                for name, entry in entries.items():
                    left -= _checked_bytes(archive, entry, name, expected(name))
                    if left < 0:
                        raise ValueError(f"its arrays have more than {max_bytes:,} bytes")
                return {name: _array(archive, entry) for name, entry in entries.items()}
        except Exception as error:  # a damaged archive raises many kinds of errors from zipfile, zlib and numpy
            raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from None


def _checked_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str, wanted: Array | None) -> int:
    """Return the bytes of an array by its header; raise a `ValueError` if it is not the one that is wanted."""
    if wanted is None:
        raise ValueError(f"it has an array {name[:60]!r}, which semcut does not write there")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack far more from fewer bytes
        raise ValueError(f"its array {name[:60]!r} is compressed in another way than numpy does")
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if not wanted.fits(dtype, shape):
        raise ValueError(f"its array {name!r} is {str(dtype)[:60]} of shape {str(shape)[:60]}, expected {wanted}")
    return dtype.itemsize * math.prod(shape)


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


class _SmallReads:
    """A file of which little is read at once: zipfile makes an object of a kilobyte of every 50 bytes of a list."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        """Read as a file does."""
        if count > _LISTING_BYTES:
            raise ValueError(f"the list of its arrays has more than {_LISTING_BYTES:,} bytes")
        return self._file.read(count)
