"""`IndexState`: reads an index so that each response describes one version of it.

Another process may change a stored index, or a Milvus collection, at any time. A read therefore notes the version
before and after; if the index has changed meanwhile, the read is repeated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from semcut.indexes import IndexStats, ServerError, UnknownIdError
from semcut.indexes.index import SemanticIndex

_ATTEMPTS = 5
_STATS_SECONDS = 60.0  # how long the size of an index is used again, if counting its records is slow

_T = TypeVar("_T")


class IndexState:
    """Reads an index, always in its latest version. Several threads may use an `IndexState` at once.

    Args:
        index: open index; it is not closed here.
        replaced: number of indexes that were served before it; it makes the names of its versions differ from theirs.
    """

    def __init__(self, index: SemanticIndex, replaced: int = 0) -> None:
        self.index = index
        self._suffix = f".{replaced}" if replaced else ""
        self._counting = threading.Lock()
        self._counted: tuple[str, float, IndexStats] | None = None  # version, time of counting, size

    def version(self) -> str:
        """Read the latest version of the index and return its name."""
        self.index.refresh()
        return self._name()

    def _name(self) -> str:
        return f"{self.index.version}{self._suffix}"

    def read(self, call: Callable[[str], _T]) -> _T:
        """Call a function with the latest version until the index has not changed during the call.

        Raises:
            ServerError: the index changed during every attempt.
            UnknownIdError: the call raised it, and the index has not changed meanwhile.
        """
        for _ in range(_ATTEMPTS):
            version = self.version()
            try:
                found = call(version)
            except UnknownIdError:
                if self._name() == version:
                    raise
                continue
            if self._name() == version:
                return found
        raise ServerError("the index changes faster than it can be read: try again")

    def stats(self, version: str) -> IndexStats:
        """Return the size of the index in this version.

        If counting has to read every record, the result may be up to a minute out of date.
        """
        with self._counting:
            if self._counted is not None:
                counted_version, when, stats = self._counted
                recent = time.monotonic() < when + _STATS_SECONDS
                if counted_version == version or (recent and not self.index.capabilities.cheap_stats):
                    return stats
            stats = self.index.stats()
            self._counted = version, time.monotonic(), stats
            return stats
