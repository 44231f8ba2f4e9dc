"""The writer's lock of a stored index: an `flock` on its file `lock`, which says who holds it.

The operating system drops the lock when the process that holds it ends, however it ends, and a forked child does not
inherit it (filelock sees to that). So the file may stay, and never needs deleting; what it says is meaningful only
while it is locked.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from semcut.indexes.errors import LockedError, StorageError

NAME = "lock"
_OWNER_BYTES = 10_000


class WriterLock:
    """The lock of the index in a directory, not yet taken."""

    def __init__(self, path: Path) -> None:
        self._path = path / NAME
        self._lock = FileLock(
            self._path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=_sign, mode=0o666
        )

    @property
    def held(self) -> bool:
        """Whether this process holds it through this object."""
        return self._lock.is_locked

    def acquire(self) -> None:
        """Take the lock, or fail at once.

        Raises:
            LockedError: another index object has it, here or in another process; says which process.
            StorageError: the file system refuses.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise LockedError(
                f"{self._path.parent} is being written to by {self._owner()}: an index has one writer at a time, "
                "which keeps it from its first change until it is closed; close it there, then try again"
            ) from None
        except RuntimeError:
            raise StorageError(
                f"the index {self._path.parent} was opened before this process was forked: open it again here"
            ) from None
        except OSError as error:
            raise StorageError(
                f"cannot lock {self._path}: {error.strerror}; the index can be read, not changed"
            ) from None

    def release(self) -> None:
        """Let go of it; nothing happens if it is not held."""
        if self.held:
            self._lock.release()

    def _owner(self) -> str:
        with suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._path, "rb") as file:
                owner = json.loads(file.read(_OWNER_BYTES))
            here = " (this process)" if owner["pid"] == os.getpid() and owner["host"] == socket.gethostname() else ""
            return f"process {owner['pid']}{here} on {owner['host']}, since {owner['since']}: {owner['command']}"
        return "another process"


def _sign(handle: int) -> None:
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(sys.argv)[:500],
    }
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(owner).encode(), 0)
