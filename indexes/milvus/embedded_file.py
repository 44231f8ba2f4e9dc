"""Share an embedded Milvus file (milvus-lite) between the connections of one process.

milvus-lite runs one server per file inside the process and locks the file. This module counts the connections, and the
server stops when the last connection closes: until then no other process can open the file.

The "file" is a directory, and milvus-lite trusts it: it follows links when it deletes and writes, and waits for FIFOs.
So before a server starts, the directory is searched for anything but regular files and directories. What is *in* the
files is not checked: paths in them may lead out as well, so an embedded Milvus from someone else must not be opened.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from importlib.metadata import version

from semcut.indexes.errors import DamagedIndexError, MissingDependencyError, install_hint, shown
from semcut.indexes.milvus.pymilvus_internals import stop_embedded_server

_OLDEST_MAJOR = 3  # older ones open files of another format
_MOST_ENTRIES = 100_000
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
_ADVICE = "never open an embedded Milvus from someone else, exchange indexes as directories"

_connections: Counter[str] = Counter()
_lock = threading.Lock()


def acquire(address: str) -> str:
    """Count a new connection to the file.

    Returns:
        The absolute path, which `release` takes.

    Raises:
        MissingDependencyError: milvus-lite is not installed, or is too old.
        DamagedIndexError: the directory holds anything but regular files and directories, or far too many.
    """
    _require_milvus_lite()
    path = os.path.abspath(address)
    with _lock:
        if not _connections[path]:  # a server that runs has the directory open, and changes it
            _require_plain_files(path)
        _connections[path] += 1
    return path


def release(path: str) -> None:
    """Count a closed connection to the file, and stop the server after the last one.

    Args:
        path: the path that `acquire` returned.
    """
    with _lock:
        _connections[path] -= 1
        if not _connections[path]:
            del _connections[path]
            stop_embedded_server(path)


def _require_milvus_lite() -> None:
    """Raise `MissingDependencyError` unless a milvus-lite is installed that can open a file for this process alone."""
    hint = install_hint("milvus-lite")
    try:
        import milvus_lite  # noqa: F401

        installed = version("milvus-lite")
    except ImportError:  # a PackageNotFoundError is one
        raise MissingDependencyError(
            f"an embedded Milvus file needs milvus-lite, which is not installed: {hint}"
        ) from None
    if int(installed.split(".")[0]) < _OLDEST_MAJOR:
        raise MissingDependencyError(
            f"an embedded Milvus file needs milvus-lite 3.2 or newer, {installed} is installed: {hint}"
        )


def _require_plain_files(path: str) -> None:
    """Raise `DamagedIndexError` unless a directory holds only regular files and directories, at all depths.

    Only `path` itself, which the user has named, may be a link.
    """
    entries, pending = 0, [""]
    try:
        if not os.path.isdir(path):
            if os.path.exists(path):
                _require_plain("", os.stat(path))
            return
        while pending:
            folder = pending.pop()
            with os.scandir(os.path.join(path, folder)) as found:
                for entry in found:
                    entries += 1
                    if entries > _MOST_ENTRIES:
                        raise DamagedIndexError(
                            f"the embedded Milvus holds more than {_MOST_ENTRIES:,} files, expected fewer: use a "
                            f"Milvus server for so much; {_ADVICE}"
                        )
                    place = os.path.join(folder, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(place)
                    elif not entry.is_file(follow_symlinks=False):
                        _require_plain(place, entry.stat(follow_symlinks=False))
    except OSError as error:
        raise DamagedIndexError(
            f"the embedded Milvus cannot be searched for links ({error.strerror or error}), which comes before it is "
            "opened: check the permissions of its files"
        ) from None


def _require_plain(place: str, found: os.stat_result) -> None:
    """Raise `DamagedIndexError` unless what was found at a place in the directory, "" for itself, is a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
        raise DamagedIndexError(
            f"the embedded Milvus {f'holds {kind} at {shown(place)}' if place else f'is {kind}'}, expected only files "
            f"and directories: remove it if you made it; {_ADVICE}"
        )
