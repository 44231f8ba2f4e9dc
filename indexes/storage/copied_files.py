"""Copy the files beside an index, such as the link to its network, to its backup.

The directory may come from someone else: a file can be one hole of a terabyte, or a program that waits to be run.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from semcut.indexes.regular_files import open_binary, stored_bytes
from semcut.indexes.storage.kept_modes import give_mode

_LINE_BYTES = 1 << 17
_VERSION = re.compile(rb"\[([0-9]{1,19}),")


def copy_file(source: Path, target: Path) -> None:
    """Copy the content and the times of a regular file, in place of a file that an interrupted backup left.

    The copy is as private as the file, but it can never be executed, and has no other attributes: a program in an index
    from someone else must not run with the rights of the user who makes the backup.

    Raises:
        OSError: a file cannot be read or written, or is sparse.
    """
    with _opened(source) as (read, found), _created(target, found) as write:
        shutil.copyfileobj(read, write)


def copy_lines(source: Path, target: Path, version: int) -> None:
    """Copy a file as `copy_file` does, but only the whole lines that begin with `[`, a version up to this, and a comma.

    Raises:
        OSError: as for `copy_file`.
    """
    with _opened(source) as (read, found), _created(target, found) as write:
        whole = True
        while line := read.readline(_LINE_BYTES):
            begins_here, whole = whole, line.endswith(b"\n")
            if begins_here and whole and (begin := _VERSION.match(line)) and int(begin[1]) <= version:
                write.write(line)


def write_copy(target: Path, content: bytes, state: os.stat_result) -> None:
    """Write the content that a file had, as `copy_file` writes a file in this state.

    Raises:
        OSError: the file cannot be written.
    """
    with _created(target, state) as write:
        write.write(content)


@contextmanager
def _opened(source: Path) -> Iterator[tuple[IO[bytes], os.stat_result]]:
    with open_binary(source) as read:
        found = os.fstat(read.fileno())
        if stored_bytes(found) < found.st_size:
            raise OSError(errno.EFBIG, f"{source} is a sparse file of {found.st_size:,} bytes: move it away")
        yield read, found


@contextmanager
def _created(target: Path, like: os.stat_result) -> Iterator[IO[bytes]]:
    target.unlink(missing_ok=True)
    mode = (like.st_mode & 0o666) | 0o600
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as write:
        give_mode(target, like, os.fstat(write.fileno()).st_mode & 0o777, owner=False)
        yield write
    os.utime(target, ns=(like.st_atime_ns, like.st_mtime_ns))


def begins(file: Path, other: Path) -> bool:
    """Return whether a regular file has the content of another, or its begin, as an interrupted `copy_file` leaves."""
    with suppress(OSError), open_binary(file) as one, open_binary(other) as two:
        if stored_bytes(os.fstat(one.fileno())) < os.fstat(one.fileno()).st_size:
            return False
        while part := one.read(1 << 20):
            if two.read(len(part)) != part:
                return False
        return True
    return False
