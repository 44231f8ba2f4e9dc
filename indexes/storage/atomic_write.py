"""Write a file so that a crash leaves its previous content or its new content, never a part of either.

The new content is written to a scratch file in the same directory, and the scratch file is forced to the disk. Then the
scratch file is renamed to the name of the file in one step. Finally the directory is forced to the disk too, so that
the rename survives a power failure.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path to write to; when the block ends, the scratch file replaces the file at `path`.

    An exception in the block deletes the scratch file and leaves `path` as it was.

    Raises:
        OSError: the disk refuses.
    """
    # Nobody can have put a link there: the name cannot be guessed.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        yield scratch
        sync_to_disk(scratch)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_to_disk(path.parent)


@contextmanager
def replacing_output(path: Path) -> Iterator[Path]:
    """Do the same for a file that a user names: what a link leads to is replaced, and a device is written to itself.

    Raises:
        OSError: the disk refuses, or the path is a directory.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        yield path
        return
    with replacing(path) as scratch:
        yield scratch


def sync_to_disk(path: Path) -> None:
    """Force the current content of a file or a directory to the disk.

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
