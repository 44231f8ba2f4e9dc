"""Measure how much the memory of this process grows within a block of code."""

from __future__ import annotations

import ctypes
import re
import threading
from contextlib import suppress
from pathlib import Path


class MemoryGrowth:
    """Growth of the process's memory within a `with` block, in bytes, relative to the start of the block.

    Private memory (RssAnon) is counted separately from pages of mapped files (RssFile), which the operating system
    takes back when other processes need memory. All figures are 0 on a system without /proc.

    Attributes:
        grown: private memory at the end of the block.
        peak: the most private memory during the block, sampled every 2 ms.
        mapped: pages of mapped files at the end of the block.
    """

    def __enter__(self) -> MemoryGrowth:
        _return_freed_memory()  # else the block would reuse freed memory, and its growth would not be measured
        self._start, self._mapped = _resident()
        self.grown = self.peak = self.mapped = 0
        self._most = self._start
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._most = max(self._most, _resident()[0])
        _return_freed_memory()
        private, mapped = _resident()
        self.peak, self.grown, self.mapped = self._most - self._start, private - self._start, mapped - self._mapped

    def _sample(self) -> None:
        while not self._stop.wait(0.002):
            self._most = max(self._most, _resident()[0])


def _resident() -> tuple[int, int]:
    """Return the bytes of RssAnon and of RssFile."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"(RssAnon|RssFile):\s+(\d+) kB", status))
    return int(found.get("RssAnon", 0)) * 1024, int(found.get("RssFile", 0)) * 1024


def _return_freed_memory() -> None:
    """Return freed memory from the C library to the operating system."""
    with suppress(AttributeError, OSError):  # for a C library without malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
