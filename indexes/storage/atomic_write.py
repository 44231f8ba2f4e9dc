"""Write a file so that a crash leaves its previous content or its new content, never a part of either.

The new content is written to a scratch file in the same directory, and the scratch file is forced to the disk. Then the
scratch file is renamed to the name of the file in one step. Finally the directory is forced to the disk too, so that
the rename survives a power failure.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semcut.indexes.storage.kept_modes import give_mode


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path to write to; when the block ends, the scratch file replaces the file at `path`.

    An exception in the block, or a block that writes nothing, deletes the scratch file and leaves `path` as it was. A
    file that is replaced keeps its mode.

    Raises:
        OSError: the disk refuses, also if a library in the block has an error of its own for that; it names `path`.
    """
    # Nobody can have put a link there: the name cannot be guessed.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        previous = _regular(path)
        if previous is not None:
            _create_private(scratch)
        yield scratch
        if previous is not None:
            _require_written(scratch)
        sync_to_disk(scratch)
        if previous is not None:
            give_mode(scratch, previous, previous.st_mode & 0o777, owner=True)
        os.replace(scratch, path)
    except BaseException as error:
        scratch.unlink(missing_ok=True)
        number = _refused(error, scratch)
        if number is not None:
            raise OSError(number, os.strerror(number), os.fspath(path)) from None
        raise
    sync_to_disk(path.parent)


@contextmanager
def replacing_named(path: Path) -> Iterator[Path]:
    """As `replacing`, for a file that a user names: a link is followed, and a device or a pipe is written to itself.

    Raises:
        OSError: also if nobody reads from the pipe, which would be waited for without end.
    """
    if path.is_fifo():
        with _pipe_with_reader(path):
            yield path
        return
    if path.exists() and not path.is_file():
        yield path
        return
    with replacing(Path(os.path.realpath(path))) as scratch:
        yield scratch


@contextmanager
def _pipe_with_reader(path: Path) -> Iterator[None]:
    """Keep a pipe open, so that its reader does not see its end before the block has written."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a pipe that nobody reads from", os.fspath(path)) from None
        raise
    try:
        yield
    finally:
        os.close(handle)


def _regular(path: Path) -> os.stat_result | None:
    """Return the state of a regular file; None if there is none."""
    with suppress(OSError):
        found = os.lstat(path)
        return found if stat.S_ISREG(found.st_mode) else None
    return None


def _create_private(scratch: Path) -> None:
    """Create an empty file that nobody else may read, with a time that shows whether it was written to."""
    os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.utime(scratch, ns=(0, 0))


def _require_written(scratch: Path) -> None:
    found = os.stat(scratch)
    if not found.st_size and not found.st_mtime_ns:
        raise FileNotFoundError(errno.ENOENT, "nothing was written", os.fspath(scratch))


def _refused(error: BaseException | None, scratch: Path) -> int | None:
    """Return the number of the error of the operating system by which a disk refused a file, None for others."""
    if isinstance(error, OSError) and error.errno and error.filename in (None, scratch, os.fspath(scratch)):
        return error.errno
    if error is not None and (found := re.search(r"\(os error (\d+)\)", str(error))):  # what Rust's libraries say
        return int(found[1])
    # closing a zip file fails in its own way after a write has failed
    return _refused(error.__context__, scratch) if isinstance(error, ValueError) else None


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


def write_file(path: Path, content: bytes | str) -> None:
    """Replace the file at `path`, in one step; text is written as UTF-8.

    Raises:
        OSError: the disk refuses.
    """
    with replacing(path) as scratch:
        scratch.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: object) -> None:
    """Replace the file at `path` by `content` as indented JSON, in one step.

    Raises:
        OSError: the disk refuses.
    """
    write_file(path, json.dumps(content, indent=2) + "\n")
