"""Load pymilvus, and use the parts of pymilvus and milvus-lite that have no documentation.

No other module uses such parts, so a new version of pymilvus can break this module only. The tests
(`tests/indexes/milvus/test_pymilvus_internals.py`) check that every part named here exists in the installed versions.
These parts are:

    settings.Config.MILVUS_URI     read from the environment while pymilvus loads, which fails on the name of a file
    MilvusClient(dedicated=True)   a connection of its own; a shared one ignores another database or timeout
    query(iterator=, reduce_stop_for_best=)
                                   options by which QueryIterator reads a collection page by page in order of the key
    list subclasses of results     iterating over them decodes every vector in Python; `list.__iter__` does not, and
                                   `_lazy_field_data` has the vectors of all rows as one protobuf array
    texts of exceptions            some kinds of failure can be recognised by their text only
    loggers                        pymilvus and milvus-lite log a traceback for every error that they also raise
    server_manager_instance        stops the embedded server of a file, which pymilvus never does
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import grpc
import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import MissingDependencyError, install_hint

# gRPC would write events of idle connections to standard error, bypassing Python. Failed calls raise errors anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_uri = os.environ.pop("MILVUS_URI", None)
try:
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError as error:
    raise MissingDependencyError(f"pymilvus does not load ({error}): {install_hint('milvus')}") from None
finally:
    if _uri is not None:
        os.environ["MILVUS_URI"] = _uri

__all__ = ["DataType", "MilvusClient", "MilvusException"]

TESTED_VERSIONS = {"pymilvus": ("3.0.2",), "milvus-lite": ("3.2.2",)}
"""Versions with which all tests passed. docs/milvus.md has the servers with which they did."""

PAGE_OPTIONS = {"iterator": "True", "reduce_stop_for_best": "True"}
"""Options of `MilvusClient.query` that make a limited query return the rows with the smallest keys, in order."""

CLIENT_ERRORS = (MilvusException, grpc.RpcError, grpc.FutureTimeoutError)
"""What a failed call of `MilvusClient` raises, besides the ValueError of a closed channel."""

FailureKind = Literal["too large", "file in use", "no collection", "token refused", "no answer", "refused"]
"""Kinds of failures that need different advice."""

_TRANSIENT_CODES = {2, 4, 8, 101, 103, 106, 400, 401, 500, 501, 503, 600, 601, 602, 901, 902, 903, 904, 905}
"""Milvus's codes of transient errors: unavailable, busy, rate limits, recovering, channels, segments, nodes."""

_NO_COLLECTION_CODE, _NOT_LOADED_CODE = 100, 101
_TOKEN_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_NO_ANSWER = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)

FILE_IN_USE_TEXT = "Open local milvus failed"
NO_COLLECTION_TEXT = "can't find collection"
NO_ANSWER_TEXTS = ("Retry timeout", "Fail connecting", "DEADLINE_EXCEEDED")
"""Texts of errors that pymilvus raises itself; all others come from servers."""


def open_client(address: str, token: str | None, database: str | None, timeout: float) -> MilvusClient:
    """Connect to Milvus, with a connection that no other client shares.

    Args:
        address: the URI of the server, or an embedded Milvus file.
        token, database: None for the default.
        timeout: seconds that connecting may take.
    """
    return MilvusClient(address, token=token or "", db_name=database or "", timeout=timeout, dedicated=True)


def stop_embedded_server(path: str) -> None:
    """Stop the server of an embedded Milvus file, so that another process can open the file."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(path)


# failed calls


def is_closed_channel(error: Exception) -> bool:
    """Return whether a call failed because its channel was closed."""
    return "Cannot invoke RPC" in str(error)


def is_transient(error: Exception) -> bool:
    """Return whether the failure is transient: a node that restarts, a rate limit."""
    if isinstance(error, grpc.RpcError):
        return hasattr(error, "code") and error.code() == grpc.StatusCode.UNAVAILABLE
    if not isinstance(error, MilvusException) or _is_token_refused(error):
        return False
    return error.code in _TRANSIENT_CODES or error.retriable or "not ready" in str(error.message)


def is_not_loaded(error: Exception) -> bool:
    """Return whether the call failed because the collection is not loaded."""
    return bool(getattr(error, "code", 0) == _NOT_LOADED_CODE)


def failure_kind(error: Exception) -> FailureKind:
    """Return the kind of failure that one of the `CLIENT_ERRORS` reports."""
    code, text = _code(error), failure_text(error)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED or "larger than max" in text or "results exceed" in text:
        return "too large"
    if FILE_IN_USE_TEXT in text:
        return "file in use"
    if code == _NO_COLLECTION_CODE or "collection not found" in text or NO_COLLECTION_TEXT in text:
        return "no collection"
    if _is_token_refused(error) or "auth check failure" in text or "unauthenticated" in text.lower():
        return "token refused"
    if (
        isinstance(error, grpc.FutureTimeoutError)
        or code in _NO_ANSWER
        or any(part in text for part in NO_ANSWER_TEXTS)
    ):
        return "no answer"
    return "refused"


def failure_text(error: Exception, hide: Sequence[str] = ()) -> str:
    """Return the text of a failure in one line of at most 300 characters.

    Args:
        error: one of the `CLIENT_ERRORS`.
        hide: addresses and tokens; dots replace them in the text.
    """
    text = str(getattr(error, "message", "") or getattr(error, "details", lambda: "")() or "no reason given")
    for secret in hide:
        text = text.replace(secret, "...")
    return " ".join(text.split())[:300]


def _code(error: Exception) -> Any:
    if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        return error.code()
    return getattr(error, "code", 0)


def _is_token_refused(error: BaseException | None) -> bool:
    """Return whether the token was refused.

    pymilvus reports a refused token as if the server had not answered; the reason is in the chain of causes.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error of pymilvus may be its own cause
        seen.add(id(error))
        if isinstance(error, grpc.RpcError) and hasattr(error, "code") and error.code() in _TOKEN_REFUSED:
            return True
        error = error.__cause__ or error.__context__
    return False


# columns of results


def int_column(rows: Any, field: str) -> NDArray[np.int64]:
    """Return an integer field of the rows of a query: (n,) int64. Vectors are not decoded."""
    return np.fromiter((row[field] for row in list.__iter__(rows)), np.int64, len(rows))


def float_column(rows: Any, field: str) -> NDArray[np.float32]:
    """Return a FLOAT field of the rows of a query: (n,) float32. Vectors are not decoded."""
    return np.fromiter((row[field] for row in list.__iter__(rows)), np.float32, len(rows))


def text_column(rows: Any, field: str) -> list[str]:
    """Return a text field of the rows of a query. Vectors are not decoded."""
    return [row[field] for row in list.__iter__(rows)]


def float_vectors(rows: Any, field: str, dim: int) -> NDArray[np.float32]:
    """Return a FLOAT_VECTOR field of the rows of a query: (n, dim) float32."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == field:
            return _float_array(data.vectors.float_vector).reshape(-1, dim)
    return np.array([row[field] for row in rows], np.float32).reshape(-1, dim)


def binary_vectors(rows: Any, field: str, width: int) -> NDArray[np.uint8]:
    """Return a BINARY_VECTOR field of the rows of a query: (n, width) uint8, 8 bits a byte."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == field:
            return np.frombuffer(data.vectors.binary_vector, np.uint8).reshape(-1, width)
    return np.frombuffer(b"".join(bytes(row[field][0]) for row in rows), np.uint8).reshape(-1, width)


def hit_keys(hits: Any, field: str, *, primary: bool) -> NDArray[np.int64]:
    """Return an INT64 field of the hits of one searched vector: (n,) int64, nearest first.

    Args:
        hits: the hits of one vector.
        field: the primary key, or one of the output fields.
        primary: whether the field is the primary key, which hits store separately.
    """
    if primary:
        return np.array(hits.ids, np.int64)
    return np.array([hit["entity"][field] for hit in list.__iter__(hits)], np.int64)


def hit_distances(hits: Any) -> NDArray[np.float64]:
    """Return the distances of the hits of one searched vector: (n,) float64, ascending."""
    return np.array(hits.distances, np.float64)


def _float_array(array: Any) -> NDArray[np.float32]:
    """Return the values of a protobuf FloatArray, which is serialised as a tag, a length and little-endian values.

    Reading the serialised bytes avoids one Python object per value.
    """
    count, wire = len(array.data), array.SerializeToString()
    if wire[:1] == b"\x0a" and 4 * count < len(wire) <= 4 * count + 11:
        return np.frombuffer(wire, "<f4", count, len(wire) - 4 * count).astype(np.float32, copy=False)
    return np.array(array.data, np.float32)


# logging

LOGGERS = (
    "milvus_lite.server_manager",
    *(f"pymilvus{name}" for name in ("", ".decorators", ".client.connection_manager", ".client.grpc_handler")),
    "pymilvus.milvus_client",
)
"""Loggers that log errors which the calls also raise."""

_silent: ContextVar[bool] = ContextVar("semcut is calling Milvus", default=False)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress the messages of `LOGGERS` in the block, in this thread only: the caller reports the raised error."""
    before = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(before)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not _silent.get()


logging.getLogger("milvus_lite").addHandler(logging.NullHandler())  # threads of its server log errors of calls too
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_is_wanted)
    for _handler in logging.getLogger(_name).handlers:  # filters of a logger do not see records of loggers below it
        _handler.addFilter(_is_wanted)
