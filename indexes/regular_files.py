"""Open files that may come from someone else: regular files only, without waiting, and of a bounded size.

A directory that was received can contain anything under the name of an index's or a network's file: a FIFO, on which
an ordinary `open` waits for ever; a device such as /dev/zero, which never ends; a link to a file elsewhere, which a
writer would overwrite; a file of any size. So every file that semcut reads from an index, a model, a data set or a list
is opened here.

All functions raise `OSError` with a `strerror` that completes the sentence "cannot read FILE: ".
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import IO

JSON_BYTES = 16 << 20
"""The largest JSON file that is read by default: 16 MiB, many times the largest that semcut writes."""

_MOST_COMPRESSED, _SPARSE_BYTES = 256, 1 << 20
_ANY_BYTES, _MOST_HOLES = 16 << 20, 64
"""The largest file that may be one hole, and how many times the data of a larger one its size may be."""
_PIECE_BYTES = 1 << 18


def open_descriptor(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open a regular file and return its descriptor.

    Args:
        path: the file.
        flags: flags of `os.open`.
        follow: whether the last part of the path may be a symbolic link, as for files that a user names.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    extra = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags | extra, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a symbolic link, expected a file", os.fspath(path)) from None
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a FIFO without a reader, a socket or a directory
            raise _not_regular(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def _not_regular(path: str | os.PathLike[str]) -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def open_binary(path: str | os.PathLike[str], *, max_bytes: int | None = None, follow: bool = False) -> IO[bytes]:
    """Open a regular file for reading.

    Args:
        path: the file.
        max_bytes: the largest size; None for any size. A file that states a smaller size than it has, as those of
            /proc do, or grows meanwhile, is an `OSError` while it is read. A file above 16 MiB of which less than 1/64
            is data is refused, since the rest are holes, which occupy nothing.
        follow: as for `open_descriptor`.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is larger.
    """
    descriptor = open_descriptor(path, follow=follow)
    if max_bytes is None:
        return os.fdopen(descriptor, "rb")
    size = os.fstat(descriptor).st_size
    if size > max_bytes:
        os.close(descriptor)
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, expected at most {max_bytes:,}", os.fspath(path))
    if _is_hollow(descriptor):
        os.close(descriptor)
        raise OSError(errno.EFBIG, f"most of its {size:,} bytes are holes, which hold nothing", os.fspath(path))
    return io.BufferedReader(_BoundedFile(descriptor, max_bytes, os.fspath(path)))


class _BoundedFile(io.FileIO):
    """A file of which no byte behind a limit is returned."""

    def __init__(self, descriptor: int, most: int, path: str | bytes) -> None:
        super().__init__(descriptor, "rb")
        self._most, self._path = most, path

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        """Fill a part of the buffer."""
        count = super().readinto(buffer)
        if count and self.tell() > self._most:
            raise OSError(errno.EFBIG, f"it has more than {self._most:,} bytes", self._path)
        return count

    def readall(self) -> bytes:
        """Read up to the end, in pieces, because those of `FileIO` are not counted."""
        found, piece = bytearray(), bytearray(_PIECE_BYTES)
        while count := self.readinto(memoryview(piece)):
            found += memoryview(piece)[:count]
        return bytes(found)


class BoundedReads:
    """A file of a zip archive, of which no more than a directory of records is read at once.

    `zipfile` reads the whole directory, and makes an object for each record, before anyone can count them.

    Args:
        stream: the file.
        most: bytes that are read at once.

    Attributes:
        most: as given; may be raised when the directory has been read.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self.most = stream, most
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or to the end; `ValueError` if this is more than `most`."""
        found = self._stream.read(size if 0 <= size <= self.most else self.most + 1)
        if len(found) > self.most:
            raise ValueError(f"its list of records has more than {self.most:,} bytes")
        return found


def _is_hollow(descriptor: int) -> bool:
    """Return whether a file is large, and nearly all of it holes.

    A file system that compresses, or that allocates later, counts fewer blocks than a file has data: so a small number
    of blocks is only a reason to look for holes.
    """
    found = os.fstat(descriptor)
    size = found.st_size
    if size <= _ANY_BYTES or _MOST_HOLES * 512 * found.st_blocks >= size:
        return False
    hollow = _MOST_HOLES * data_bytes(descriptor, size) < size
    os.lseek(descriptor, 0, os.SEEK_SET)
    return hollow


def data_bytes(descriptor: int, size: int) -> int:
    """Count the bytes that are not in holes, among the first `size` bytes of a file; moves its position.

    A file system that knows no holes says that all is data.
    """
    data = position = 0
    try:
        while position < size:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            data += max(0, min(position, size) - start)
    except OSError as error:
        return data if error.errno == errno.ENXIO else size  # ENXIO: nothing but a hole follows
    return data


def stored_bytes(found: os.stat_result) -> int:
    """Return the size of a file, or less if most of it is a hole: what a few stored bytes may count as.

    A file of a terabyte can be one hole, which occupies nothing, so its size must not decide how much is read. File
    systems that compress store up to 256 bytes in one.
    """
    return min(found.st_size, _SPARSE_BYTES + _MOST_COMPRESSED * 512 * found.st_blocks)


def read_bytes(path: str | os.PathLike[str], max_bytes: int, *, follow: bool = False) -> bytes:
    """Read a regular file of at most `max_bytes`, even if it grows meanwhile; arguments as for `open_binary`.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
    """
    with open_binary(path, max_bytes=max_bytes, follow=follow) as stream:
        return stream.read(max_bytes + 1)  # and find that there is no more


def read_json(path: str | os.PathLike[str], max_bytes: int = JSON_BYTES, *, follow: bool = False) -> object:
    """Read a JSON file; arguments as for `open_binary`.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger.
        ValueError: the content is not JSON, or is nested too deeply.
    """
    content = read_bytes(Path(path), max_bytes, follow=follow)
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
