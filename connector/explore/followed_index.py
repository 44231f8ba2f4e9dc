"""`FollowedIndex`: answers requests with the index that is in a directory, also after it was deleted or replaced.

An open index can be read even if its directory is gone, so a server would answer from it for ever, and nobody would
notice. Before every request, `FollowedIndex` therefore asks whether the directory still holds the same catalogue. If
another index of the same shape, made by the same network, is there now, it is opened and answers from then on. If there
is none, or another kind, requests fail with a sentence that says so, until there is one again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typing_extensions import Self

from semcut.connector.explore.open_index import OpenedIndex, reopen_stored
from semcut.connector.explore.service import ExploreService
from semcut.indexes import FaissIndex, SemcutError, StorageError

_ATTEMPT_SECONDS = 1.0  # between attempts to open what is in the directory

_T = TypeVar("_T")


class _Served:
    """An open index, the service that reads it, and the number of requests that use it now."""

    def __init__(self, opened: OpenedIndex, replaced: int = 0) -> None:
        self.opened, self.replaced, self.users = opened, replaced, 0
        self.service = ExploreService(
            opened.index,
            opened.class_names,
            opened.encode,
            replaced=replaced,
            defaults=opened.defaults,
            root=opened.root,
        )

    @property
    def in_place(self) -> bool:
        """Whether the directory still holds the index."""
        return not isinstance(self.opened.index, FaissIndex) or self.opened.index.in_place


class FollowedIndex:
    """The index in a directory. Several threads may use it at once; a context manager that closes the index.

    Args:
        path: the directory.
        opened: the index that was opened there; it is closed here.
    """

    def __init__(self, path: Path, opened: OpenedIndex) -> None:
        self._path, self._served = path, _Served(opened)
        self._lock = threading.Lock()
        self._failure, self._next_attempt = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._served.opened.index.close()

    def use(self, call: Callable[[ExploreService], _T]) -> _T:
        """Call a function with the service of the index that is in the directory now, and return the result.

        Raises:
            StorageError: the index was deleted, or replaced by something that cannot be served in its place.
        """
        with self._lock:
            if not self._served.in_place:
                self._follow()
            served = self._served
            served.users += 1
        try:
            return call(served.service)
        finally:
            with self._lock:
                served.users -= 1
                self._close_unless_used(served)

    def _follow(self) -> None:
        """Serve what is in the directory now."""
        if time.monotonic() < self._next_attempt:
            raise StorageError(self._failure)
        before = self._served
        try:
            self._served = _Served(reopen_stored(self._path, before.opened), before.replaced + 1)
        except SemcutError as error:
            self._next_attempt = time.monotonic() + _ATTEMPT_SECONDS
            self._failure = (
                f"the index {self._path} was deleted or replaced, and what is there now cannot be served in its place "
                f"({error}): put an index of the same network there, or start the server again"
            )
            raise StorageError(self._failure) from None
        self._next_attempt = 0.0
        self._close_unless_used(before)

    def _close_unless_used(self, served: _Served) -> None:
        if served is not self._served and not served.users:
            served.opened.index.close()
