"""Which Milvus is meant: the address of a server, or the file of an embedded one."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from urllib.parse import urlsplit

from semcut.indexes.errors import InvalidParameterError, MissingDependencyError, NotAnIndexError


def address_of(uri: str | os.PathLike[str] | None) -> str:
    """The address that is meant.

    Raises:
        InvalidParameterError: there is none, or one that cannot be.
    """
    given = os.environ.get("MILVUS_URI") if uri is None else uri
    if not given:
        raise InvalidParameterError(
            "no Milvus is given: pass a uri such as http://localhost:19530, or a file name that ends in .db, "
            "or set MILVUS_URI"
        )
    wrong = InvalidParameterError(
        "the uri of Milvus cannot be understood: expected http://host:port, https://host:port, or a file name "
        "that ends in .db"
    )
    if not isinstance(given, str | os.PathLike):
        raise wrong
    address = os.fspath(given)
    try:
        if not isinstance(address, str):
            raise wrong
        address.encode()
        if is_file(address):
            if not os.path.isdir(os.path.dirname(os.path.abspath(address))):
                raise InvalidParameterError("the directory of the embedded Milvus file does not exist: make it first")
            return address
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https", "tcp", "unix") or (parts.scheme != "unix" and not parts.hostname):
            raise wrong
        if parts.port is not None and parts.port < 1:
            raise wrong
    except UnicodeEncodeError:
        raise wrong from None
    except ValueError as error:  # what urlsplit and its parts raise
        raise (error if isinstance(error, InvalidParameterError) else wrong) from None
    return address


def is_file(address: str) -> bool:
    """Whether the address is that of an embedded Milvus."""
    return address.endswith(".db") and not re.match(r"[a-z]+://", address)


def check_there(uri: str | os.PathLike[str] | None) -> None:
    """Raise `NotAnIndexError` where an embedded Milvus would have to be made to be opened."""
    address = address_of(uri)
    if is_file(address) and not os.path.exists(address):
        raise NotAnIndexError("there is no such embedded Milvus file: create an index, or check its name")


_files: Counter[str] = Counter()
_files_lock = threading.Lock()


def take(address: str) -> str:
    """An embedded Milvus is used once more in this process: what to give to `let_go`."""
    try:
        import milvus_lite  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "a file is an embedded Milvus, which needs milvus-lite: run `pip install 'semcut[milvus-lite]'`"
        ) from None
    path = os.path.abspath(address)
    with _files_lock:
        _files[path] += 1
    return path


def let_go(path: str) -> None:
    """An embedded Milvus is used once less. Unless it is let go of at the end, no other process can open it."""
    from milvus_lite.server_manager import server_manager_instance

    with _files_lock:
        _files[path] -= 1
        if not _files[path]:
            del _files[path]
            server_manager_instance.release_server(path)
