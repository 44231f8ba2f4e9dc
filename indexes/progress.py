"""`Progress`: how long work tells its caller how far it is. The one protocol of the whole package."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that long work calls now and then, from the thread that does the work.

    `done` never falls while the same `task` runs and ends at `total`. Whoever wants a progress bar passes a function
    with these parameters; an exception that it raises stops the work, which then leaves nothing half done.
    """

    def __call__(self, done: int, total: int, task: str = "") -> None:
        """Take note.

        Args:
            done: units of work that are finished: records, images, bytes or searches, as the caller documents.
            total: units of work in all.
            task: what is being done, for work of several parts; empty where there is one part.
        """


def silent(done: int, total: int, task: str = "") -> None:
    """The `Progress` of work that nobody watches."""
