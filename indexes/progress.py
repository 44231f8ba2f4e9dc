"""`Progress`: the callback by which long operations report their progress, the same in the whole package."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A callback that a long operation calls repeatedly, from the thread in which the operation runs.

    Within one `task`, `done` never decreases, and is `total` at the end. To show a progress bar, pass a function with
    these parameters. An exception that the function raises stops the operation, which then leaves no partial result.
    """

    def __call__(self, done: int, total: int, task: str = "") -> None:
        """Report progress.

        Args:
            done: number of units that are finished: records, images, bytes or searches, as the operation documents.
            total: number of units in all.
            task: name of the current part, for an operation of several parts; empty for an operation of one part.
        """


def silent(done: int, total: int, task: str = "") -> None:
    """Ignore progress: the `Progress` to pass where none is shown."""
