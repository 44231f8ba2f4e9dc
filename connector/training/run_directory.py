"""Begin a run directory: record the training images, and leave nothing behind if no epoch is finished.

A run that is stopped before its first state is written has nothing to resume. Its directory would only keep the same
command from being given again, so what the run has written is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from semcut.connector.models.checkpoint import (
    MOST_IMAGES,
    TRAINING_DIGESTS,
    TRAINING_IMAGES,
    TrainingDigests,
    write_digests,
)
from semcut.connector.training.run_state import STATE
from semcut.indexes.errors import DataError
from semcut.indexes.storage.atomic_write import replacing


@contextmanager
def begun_run(path: Path, files: Sequence[str], digests: TrainingDigests) -> Iterator[None]:
    """Make the run directory and record the training images; remove both if the block fails before its first epoch.

    Args:
        path: the run directory.
        files: paths of all images, for people.
        digests: digests of the images, by which they are recognised.

    Raises:
        DataError: there are more images than a run directory records.
    """
    if len(files) > MOST_IMAGES:
        raise DataError(f"there are {len(files):,} images to train on, expected at most {MOST_IMAGES:,}: choose some")
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    empty = path in missing or not any(path.iterdir())
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_lines(path / TRAINING_IMAGES, files)
        write_digests(path, digests)
        yield
    except BaseException:
        if empty and not os.path.lexists(path / STATE):
            for name in (TRAINING_IMAGES, TRAINING_DIGESTS):
                with suppress(OSError):
                    (path / name).unlink()
            for folder in missing:
                with suppress(OSError):  # something else is in it
                    folder.rmdir()
        raise


def write_lines(file: Path, lines: Sequence[str]) -> None:
    """Write lines to a text file, in one step; replace the file if it exists."""
    with replacing(file) as scratch:
        scratch.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
