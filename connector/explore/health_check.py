"""`HealthCheck`: reads the index to find out whether the server can answer, without waiting behind other work.

Whether the server runs is asked without a token, so any number of requests share one check, in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semcut.connector.daemon_threads import DaemonThreads
from semcut.indexes import ServerError

CHECK_SECONDS = 2.0
"""How long a check may take until the answer is that the index cannot be read."""


class HealthCheck:
    """Runs one check at a time.

    Args:
        check: reads the index; raises an error if it cannot be read.
    """

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._thread = DaemonThreads(1, "health")
        self._running: asyncio.Future[object] | None = None
        self._began = 0.0

    async def wait(self) -> None:
        """Wait for the check that runs, or for a new one.

        Raises:
            ServerError: the check takes too long.
            SemcutError: the index cannot be read.
        """
        loop = asyncio.get_running_loop()
        running = self._running  # another request may start the next check while this one waits
        if running is None or running.done():
            running = asyncio.wrap_future(self._thread.submit(self._check))
            running.add_done_callback(_retrieve)
            self._running, self._began = running, loop.time()
        left = max(0.0, self._began + CHECK_SECONDS - loop.time())
        if not (await asyncio.wait({running}, timeout=left))[0]:
            raise ServerError(f"the server runs, but reading the index takes longer than {CHECK_SECONDS:g} seconds")
        running.result()


def _retrieve(check: asyncio.Future[object]) -> None:
    """Look at how a check ended, which asyncio would report if nobody waited for it any more."""
    if not check.cancelled():
        check.exception()
