"""`Faults`: make one call that touches the disk fail, in one of the modes that `faults` describes."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

MODES = ("error", "late", "broken", "stop", "kill", "power")
CALLS = ("pwrite", "ftruncate", "fsync", "rename", "mkdir", "rmdir", "unlink")


class Faults:
    """A context that counts the calls that touch the disk.

    Args:
        at: number of the call that fails, from 1; 0 for no failure.
        mode: how the call fails, one of `MODES`.

    Attributes:
        count: number of calls so far.
        commits: numbers of the calls that commit a transaction.
    """

    def __init__(self, at: int = 0, mode: str = "error") -> None:
        self.count, self._at, self._mode = 0, at, mode
        self.commits: list[int] = []
        self._originals = {name: getattr(os, name) for name in CALLS}
        self._connect = sqlite3.connect
        self._unsynced: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def __enter__(self) -> Faults:
        for name, original in self._originals.items():
            setattr(os, name, self._wrapped(name, original))
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, *arguments):
                if arguments[0] == "COMMIT":
                    faults.commits.append(faults.count + 1)
                return faults.call(lambda: super(Connection, self).execute(*arguments), "sqlite")

            def executemany(self, *arguments):
                return faults.call(lambda: super(Connection, self).executemany(*arguments), "sqlite")

        sqlite3.connect = lambda *arguments, **options: self._connect(*arguments, factory=Connection, **options)
        return self

    def __exit__(self, *exception: object) -> None:
        self._at = 0
        for name, original in self._originals.items():
            setattr(os, name, original)
        sqlite3.connect = self._connect

    def _wrapped(self, name: str, original: Callable) -> Callable:
        def call(*arguments, **options):
            done = self.call(lambda: original(*arguments, **options), name)
            if name == "pwrite":
                self._unsynced[arguments[0]].append((arguments[2], done))
            elif name == "fsync":
                self._unsynced.pop(arguments[0], None)
            return done

        return call

    def call(self, original: Callable, name: str) -> object:
        """Count a call, and make it or let it fail."""
        self.count += 1
        if self.count != self._at and not (self._mode == "broken" and 0 < self._at < self.count):
            return original()
        if self._mode in ("kill", "power"):
            if self._mode == "power":
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._mode == "late" or (self._mode in ("broken", "stop") and self.count == self._at):
            original()
        if self._mode == "stop":
            raise KeyboardInterrupt
        raise sqlite3.OperationalError("disk I/O error") if name == "sqlite" else OSError(errno.EIO, os.strerror(5))

    def finish(self) -> None:
        """Lose all unsynced bytes in mode `power`; the operation has returned, so its change must be durable."""
        if self._mode == "power":
            self._lose()

    def _lose(self) -> None:
        for handle, ranges in self._unsynced.items():
            for offset, size in ranges:
                with suppress(OSError):  # the file was closed in the meantime
                    self._originals["pwrite"](handle, bytes(size), offset)
