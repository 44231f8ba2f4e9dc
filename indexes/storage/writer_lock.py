"""The writer's lock of a stored index: an `flock` on its file `lock`, whose content names the process with the lock.

The operating system releases the lock when this process ends, even by a crash, and `filelock` makes sure that a forked
child does not inherit the lock. So the file may remain and never needs deleting; its content is meaningful only while
the file is locked.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from semcut.indexes.errors import LockedError, StorageError
from semcut.indexes.regular_files import open_descriptor, read_json

NAME = "lock"
_OWNER_BYTES = 10_000  # upper limit for the content of the file


class WriterLock:
    """The lock of the index in a directory; `acquire` takes it."""

    def __init__(self, path: Path) -> None:
        self._path = path / NAME
        self._file: list[os.stat_result] = []  # the file that was locked last
        took = partial(_write_owner, self._file)
        self._lock = FileLock(
            self._path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=took, mode=0o666
        )

    @property
    def held(self) -> bool:
        """Whether this process holds the lock through this object."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock, or fail at once.

        Raises:
            LockedError: another index object, in this or another process, holds the lock; the message names the
                process. Or the index was replaced while the lock was taken.
            StorageError: the file system refuses, or this process was forked after the index was opened.
        """
        try:
            if os.path.lexists(self._path):
                os.close(open_descriptor(self._path))  # otherwise locking would empty what a link leads to
            self._lock.acquire()
            self._require_in_place()
        except Timeout:
            raise LockedError(
                f"{self._path.parent} is being written to by {self._owner()}: only one writer can change an index, "
                "from its first change until it closes the index; close the index there, then try again"
            ) from None
        except RuntimeError:
            raise StorageError(
                f"the index {self._path.parent} was opened before this process was forked: open it again here"
            ) from None
        except OSError as error:
            raise StorageError(
                f"cannot lock {self._path}: {error.strerror}; the index can be read, not changed"
            ) from None

    def _require_in_place(self) -> None:
        """Raise `LockedError` if another command replaced the index just before its file was locked."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self._path), self._file[-1]):
                return
        self.release()
        raise LockedError(f"{self._path.parent} was replaced or deleted by another process just now: try again")

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        if self.held:
            self._lock.release()

    def _owner(self) -> str:
        """Describe the process that holds the lock, as far as the file can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner: Any = read_json(self._path, _OWNER_BYTES)
            here = " (this process)" if owner["pid"] == os.getpid() and owner["host"] == socket.gethostname() else ""
            return f"process {owner['pid']}{here} on {owner['host']}, since {owner['since']}: {owner['command']}"
        return "another process"


def _write_owner(locked: list[os.stat_result], handle: int) -> None:
    """Describe this process in the lock file, which it has just locked, and note which file that is."""
    locked[:] = [os.fstat(handle)]
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(sys.argv)[:500],
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)
