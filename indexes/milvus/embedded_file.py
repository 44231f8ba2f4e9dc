"""Share an embedded Milvus file (milvus-lite) between the connections of one process.

milvus-lite runs one server per file inside the process and locks the file. This module counts the connections, and the
server stops when the last connection closes: until then no other process can open the file.
"""

from __future__ import annotations

import os
import threading
from collections import Counter

from semcut.indexes.errors import MissingDependencyError, install_hint
from semcut.indexes.milvus.pymilvus_internals import stop_embedded_server

_connections: Counter[str] = Counter()
_lock = threading.Lock()


def acquire(address: str) -> str:
    """Count a new connection to the file.

    Returns:
        The absolute path, which `release` takes.

    Raises:
        MissingDependencyError: milvus-lite is not installed.
    """
    try:
        import milvus_lite  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            f"an embedded Milvus file needs milvus-lite, which is not installed: {install_hint('milvus-lite')}"
        ) from None
    path = os.path.abspath(address)
    with _lock:
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
