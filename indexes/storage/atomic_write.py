"""Write a file so that a crash leaves its old content or its new content, never a part of either.

The new content goes to a scratch file in the same directory, which is forced to the disk; then it takes the file's name
in one step; then the directory is forced to the disk too, so that the new name survives a power failure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a scratch path to write to; when the block ends, the scratch file replaces the file at `path`.

    An exception in the block deletes the scratch file and leaves `path` as it was.

    Raises:
        OSError: the disk refuses.
    """
    scratch = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        yield scratch
        sync_to_disk(scratch)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Force a file or a directory to the disk, as it is now.

    Raises:
        OSError: the disk refuses.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, content: object) -> None:
    """Replace the file at `path` by `content` as indented JSON, in one step.

    Raises:
        OSError: the disk refuses.
    """
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2) + "\n")
