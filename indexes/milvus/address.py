"""Check the address of Milvus: the URI of a server, or the path of a file for embedded Milvus (milvus-lite).

Nothing here imports pymilvus, so the command line can check an address without loading it. No message repeats the
address, which may contain a password.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from semcut.indexes.errors import InvalidParameterError, NotAnIndexError

_SCHEMES = ("http", "https", "tcp", "unix")


def resolve_address(uri: str | os.PathLike[str] | None) -> str:
    """Check an address and return it as a string.

    Args:
        uri: the URI of a server, or a file name that ends in ".db"; None takes the environment variable MILVUS_URI.

    Raises:
        InvalidParameterError: no address is given, or the address is malformed.
    """
    given = os.environ.get("MILVUS_URI") if uri is None else uri
    if not given:
        raise InvalidParameterError(
            "no address of Milvus is given: pass a uri such as http://localhost:19530, or a file name that ends in "
            ".db, or set MILVUS_URI"
        )
    malformed = InvalidParameterError(
        "the uri of Milvus cannot be understood: expected http://host:port, https://host:port, or a file name "
        "that ends in .db"
    )
    if not isinstance(given, str | os.PathLike):
        raise malformed
    address = os.fspath(given)
    try:
        if not isinstance(address, str):
            raise malformed
        address.encode()
        if is_file(address):
            if not os.path.isdir(os.path.dirname(os.path.abspath(address))):
                raise InvalidParameterError("the directory of the embedded Milvus file does not exist: create it first")
            return address
        parts = urlsplit(address)
        # pymilvus would replace a missing host by localhost:19530 and connect to a server that the user did not name.
        if parts.scheme not in _SCHEMES or (parts.scheme != "unix" and not parts.hostname):
            raise malformed
        if parts.port is not None and parts.port < 1:
            raise malformed
    except UnicodeEncodeError:
        raise malformed from None
    except ValueError as error:  # urlsplit and `port` raise it for a malformed address
        raise (error if isinstance(error, InvalidParameterError) else malformed) from None
    return address


def is_file(address: str) -> bool:
    """Return whether the address is a file for embedded Milvus."""
    return address.endswith(".db") and not re.match(r"[a-z]+://", address)


def require_embedded_file(uri: str | os.PathLike[str] | None) -> None:
    """Raise `NotAnIndexError` if the address is a file that does not exist.

    Connecting to a missing file creates it, which opening or dropping an index must not do.
    """
    address = resolve_address(uri)
    if is_file(address) and not os.path.exists(address):
        raise NotAnIndexError("there is no such embedded Milvus file: create an index, or check the name of the file")
