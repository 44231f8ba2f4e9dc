"""Copy the files beside an index, such as the link to its network, to its backup.

The directory may come from someone else: a file can be one hole of a terabyte, or a program that waits to be run.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from semcut.indexes.regular_files import open_binary, stored_bytes
from semcut.indexes.storage.kept_modes import give_mode


def copy_file(source: Path, target: Path) -> None:
    """Copy the content and the times of a regular file, in place of a file that an interrupted backup left.

    The copy is as private as the file, but it can never be executed, and has no other attributes: a program in an index
    from someone else must not run with the rights of the user who makes the backup.

    Raises:
        OSError: a file cannot be read or written, or is sparse.
    """
    target.unlink(missing_ok=True)
    with open_binary(source) as read:
        found = os.fstat(read.fileno())
        if stored_bytes(found) < found.st_size:
            raise OSError(errno.EFBIG, f"{source} is a sparse file of {found.st_size:,} bytes: move it away")
        mode = (found.st_mode & 0o666) | 0o600
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as write:
            give_mode(target, found, os.fstat(write.fileno()).st_mode & 0o777, owner=False)
            shutil.copyfileobj(read, write)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


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
