"""Stop a training in the middle of an epoch."""

from __future__ import annotations

from semcut.indexes.progress import Progress


class Stop(Exception):
    """Raised by a progress callback to stop a training, as a crash would."""


def stop_in(epoch: int) -> Progress:
    """Return a callback that stops a training in the second half of an epoch, counted from 0."""

    def progress(done: int, total: int, task: str = "") -> None:
        current, epochs = map(int, task.partition(",")[0].removeprefix("epoch ").split("/"))
        images = total // epochs
        if current == epoch + 1 and done - epoch * images > images // 2:
            raise Stop

    return progress
