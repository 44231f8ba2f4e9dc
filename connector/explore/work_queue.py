"""`WorkQueue`: threads for one kind of work, with a queue that refuses work when it is full.

Each kind of work has threads of its own, so none waits behind another: searches, comparisons with every record, images
that are queries, and pictures of records. A thread cannot be stopped, so work whose client has left goes on, and counts
until it has ended; only a server that ends waits for none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from semcut.connector.daemon_threads import DaemonThreads

_T = TypeVar("_T")


class BusyError(Exception):
    """The queue is full. The message is a sentence for the client, who may try again."""


class WorkQueue:
    """Runs calls in worker threads.

    Args:
        name: what the calls do, in the plural, for messages.
        threads: number of calls that run at the same time.
        waiting: number of calls that may wait for a thread.
    """

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self._name, self._most = name, threads + waiting
        self._threads = DaemonThreads(threads, name)
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, call: Callable[[], _T]) -> asyncio.Future[_T]:
        """Start a call as soon as a thread is free; call this in the event loop. A call that waits can be cancelled.

        Raises:
            BusyError: too many calls wait.
        """
        with self._lock:
            if self._count >= self._most:
                raise BusyError(f"the server has {self._count} {self._name} to do already: try again in a moment")
            self._count += 1
        future = self._threads.submit(call)
        future.add_done_callback(self._ended)
        return asyncio.wrap_future(future)

    def _ended(self, future: Future[_T]) -> None:
        with self._lock:
            self._count -= 1
