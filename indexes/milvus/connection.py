"""A connection to Milvus: what the server can do, calls that end in time, and errors in words.

Every call to Milvus goes through `Server.call`, which gives it a deadline, repeats it with growing pauses while the
error is one that can pass (a node that restarts, a rate limit), and turns what is left into one semcut error. pymilvus
logs a traceback for every error; the log is kept quiet during these calls.

**Consistency.** A read sees all that this process has written to the collection: pymilvus sends the time of the last
write along. Servers do not tell the time of a deletion, so the first read after one asks for the newest state, which
takes up to 0.2 s on Milvus 2.3.

Addresses and tokens never occur in messages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import ClosedIndexError, InvalidParameterError, NotAnIndexError, ServerError, shown
from semcut.indexes.milvus.address import address_of, is_file, let_go, take
from semcut.indexes.milvus.client import MilvusClient, MilvusException

PAGE = 16_384
"""Results that Milvus gives at once, at most."""

_PASSING = {2, 4, 8, 101, 103, 106, 400, 401, 500, 501, 503, 600, 601, 602, 901, 902, 903, 904, 905}
"""Codes of errors of Milvus that can pass: unavailable, busy, rate limits, recovering, channels, segments, nodes."""

_NO_COLLECTION, _NOT_LOADED = 100, 101
_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

_quiet: ContextVar[bool] = ContextVar("semcut is calling Milvus", default=False)


class TooLargeError(ServerError):
    """What was sent or asked for is too much for one request."""


class Server:
    """A connection.

    Args:
        uri: such as "http://localhost:19530", or a file name that ends in ".db" for an embedded one (milvus-lite);
            None takes the environment variable MILVUS_URI.
        token: "user:password" or an API key; None takes MILVUS_TOKEN, if it is set.
        database: the database; None for the default one.
        timeout: seconds that one call may take, repetitions included.

    Raises:
        InvalidParameterError: no uri, or one that cannot be.
        ServerError: no server answers there, or it does not accept the token.
        MissingDependencyError: a file is given, and milvus-lite is not installed.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str] | None,
        *,
        token: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout < 1e6:
            raise InvalidParameterError(f"timeout = {shown(timeout)}, expected a number of seconds above 0")
        self.timeout = float(timeout)
        address = address_of(uri)
        token = os.environ.get("MILVUS_TOKEN") if token is None else token
        for name, value in (("token", token), ("database", database)):
            if value is not None and (not isinstance(value, str) or not (value.isascii() and value.isprintable())):
                raise InvalidParameterError(f"the {name} is not a string of printable ASCII characters")
        self._secrets = [text for text in (token, address) if text]
        self._newest: dict[str, int] = {}  # collections whose next read must see the newest state
        self._lock = threading.Lock()
        self.version = ""
        self._client: Any = None
        self._ended = False
        self._file = take(address) if is_file(address) else None
        try:
            self._client = self._within("connect", lambda left: self._connect(address, token, database, left))
            self.version = str(self.call("get_server_version"))
            self.embedded = "lite" in self.version and not self.version.startswith("v")
            numbers = re.findall(r"\d+", self.version)
            self.release = (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str, token: str | None, database: str | None, left: float) -> MilvusClient:
        # Of its own, since a shared one would not notice another database or timeout.
        return MilvusClient(address, token=token or "", db_name=database or "", timeout=left, dedicated=True)

    def close(self) -> None:
        """Let go of the connection. Closing twice is allowed."""
        self._ended = True
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception), _silence():
                client.close()
        if self._file is not None:
            let_go(self._file)
            self._file = None

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `MilvusClient`, within the timeout.

        Raises:
            ServerError: Milvus does not answer in time, or refuses.
            NotAnIndexError: the collection is not there.
        """
        client = self._client
        if client is None:
            raise _closed()
        collection = args[0] if args and isinstance(args[0], str) else None
        return self._within(name, lambda left: getattr(client, name)(*args, timeout=left, **kwargs), collection)

    def _within(self, name: str, attempt: Callable[[float], Any], collection: str | None = None) -> Any:
        deadline, pause = time.monotonic() + self.timeout, _FIRST_PAUSE
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                with _silence():
                    return attempt(left)
            except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError, ValueError) as error:
                if self._ended or "Cannot invoke RPC" in str(error):
                    raise _closed() from None
                if isinstance(error, ValueError):
                    raise
                if not _passes(error) or time.monotonic() + pause > deadline:
                    raise self._described(name, error) from None
                if getattr(error, "code", 0) == _NOT_LOADED and collection is not None and name != "load_collection":
                    with contextlib.suppress(MilvusException, grpc.RpcError), _silence():
                        self._client.load_collection(collection, timeout=left)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _described(self, name: str, error: Exception) -> Exception:
        code = (
            error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else getattr(error, "code", 0)
        )
        text = str(getattr(error, "message", "") or getattr(error, "details", lambda: "")() or "no reason given")
        for secret in self._secrets:
            text = text.replace(secret, "...")
        text = " ".join(text.split())[:300]
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED or "larger than max" in text or "results exceed" in text:
            return TooLargeError(f"Milvus refused ({name}), since it is too much for one request: {text}")
        if "Open local milvus failed" in text:
            return ServerError(
                "the embedded Milvus cannot be opened: another process has it open, or it is damaged; only one process "
                "at a time can use it"
            )
        if code == _NO_COLLECTION or "collection not found" in text or "can't find collection" in text:
            return NotAnIndexError("the collection is not on the server, or no longer: create it, or check its name")
        if _unauthenticated(error) or "auth check failure" in text or "unauthenticated" in text.lower():
            return ServerError("Milvus does not accept the token: pass token=, or set MILVUS_TOKEN")
        late = isinstance(error, grpc.FutureTimeoutError) or code in (
            grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE
        )  # fmt: skip
        if late or "Retry timeout" in text or "Fail connecting" in text or "DEADLINE_EXCEEDED" in text:
            return ServerError(
                f"Milvus did not answer within {self.timeout:g} s ({name}): check that it runs, its address, and raise "
                "timeout= if it is only slow"
            )
        return ServerError(f"Milvus refused ({name}): {text}")

    # reading and writing

    def read(self, name: str, collection: str, *, strong: bool = False, bounded: bool = False, **kwargs: Any) -> Any:
        """`query` or `search` so that it sees what this process has written; all that anyone has, if `strong`; what
        anyone had a few seconds ago, without waiting, if `bounded`."""
        with self._lock:
            newest = self._newest.get(collection, 0)
        level = "Strong" if strong or newest else "Bounded" if bounded else "Session"
        result = self.call(name, collection, consistency_level=level, **kwargs)
        if newest:
            with self._lock:
                if self._newest.get(collection) == newest:
                    del self._newest[collection]
        return result

    def pages(
        self, collection: str, key: str, condition: str, fields: list[str], *, size: int = PAGE, strong: bool = False
    ) -> Iterator[dict[str, NDArray[np.int64]]]:
        """The key and integer fields of all rows that meet a condition on numbers, page by page, in order of the key.

        Args:
            collection: which.
            key: its INT64 primary key.
            condition: on numbers.
            fields: further INT64 fields.
            size: rows in a page, at most; 16,384 at most.
            strong: whether the newest state is asked for.
        """
        self.count(collection, f"{key} in [0]", strong=strong)  # pages cannot ask for a state; this read waits for it
        last: int | None = None
        while True:
            here = condition if last is None else f"({condition}) and {key} > {last}"
            rows = self.call(
                "query", collection, filter=here, output_fields=[key, *fields], limit=min(size, PAGE),
                iterator="True", reduce_stop_for_best="True",
            )  # fmt: skip
            if not len(rows):
                return
            keys = integers(rows, key)
            order = np.argsort(keys)[:size]  # Milvus 2.3 gives more, if there are several segments
            last = int(keys[order[-1]])
            yield {name: integers(rows, name)[order] for name in (key, *fields)}

    def count(self, collection: str, condition: str, *, strong: bool = False) -> int:
        """How many rows meet a condition on numbers."""
        found = self.read("query", collection, filter=condition, output_fields=["count(*)"], strong=strong)
        return int(found[0]["count(*)"])

    def delete(self, collection: str, condition: str, *, noticed: bool = True) -> None:
        """Delete the rows that meet a condition on numbers; `noticed`: the next read of the collection sees it."""
        self.call("delete", collection, filter=condition)
        if noticed:
            with self._lock:
                self._newest[collection] = self._newest.get(collection, 0) + 1

    def delete_found(self, collection: str, key: str, condition: str) -> None:
        """As `delete`, for any condition: the rows are looked up in the newest state, and deleted by INT64 key."""
        for page in list(self.pages(collection, key, condition, [], strong=True)):
            self.delete(collection, among(key, page[key]))


def among(field: str, values: Sequence[int] | NDArray[np.integer[Any]]) -> str:
    """The condition that a field has one of these values. Only integers get into a condition."""
    return f"{field} in [{','.join(map(str, np.asarray(values, np.int64).tolist()))}]"


def integers(rows: Any, field: str) -> NDArray[np.int64]:
    """(n,) int64: an integer field of rows."""
    return np.fromiter((row[field] for row in list.__iter__(rows)), np.int64, len(rows))  # not decoding vectors


def texts(rows: Any, field: str) -> list[str]:
    """A text field of rows."""
    return [row[field] for row in list.__iter__(rows)]


def floats(rows: Any, field: str, dim: int) -> NDArray[np.float32]:
    """(n, dim) float32: a field of float vectors of rows."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == field:
            return _packed(data.vectors.float_vector).reshape(-1, dim)
    return np.array([row[field] for row in rows], np.float32).reshape(-1, dim)


def bits(rows: Any, field: str, width: int) -> NDArray[np.uint8]:
    """(n, width) uint8: a field of binary vectors of rows."""
    for data in getattr(rows, "_lazy_field_data", ()):
        if data.field_name == field:
            return np.frombuffer(data.vectors.binary_vector, np.uint8).reshape(-1, width)
    return np.frombuffer(b"".join(bytes(row[field][0]) for row in rows), np.uint8).reshape(-1, width)


def _packed(array: Any) -> NDArray[np.float32]:
    """The values of a protobuf FloatArray, which on the wire is a tag, a length and the little-endian values."""
    count, wire = len(array.data), array.SerializeToString()
    if wire[:1] == b"\x0a" and 4 * count < len(wire) <= 4 * count + 11:
        return np.frombuffer(wire, "<f4", count, len(wire) - 4 * count).astype(np.float32, copy=False)
    return np.array(array.data, np.float32)


def _closed() -> ClosedIndexError:
    return ClosedIndexError("the index was closed: open it again")


def _passes(error: Exception) -> bool:
    if isinstance(error, grpc.RpcError):
        return hasattr(error, "code") and error.code() == grpc.StatusCode.UNAVAILABLE
    if not isinstance(error, MilvusException) or _unauthenticated(error):
        return False
    return error.code in _PASSING or error.retriable or "not ready" in str(error.message)


def _unauthenticated(error: BaseException | None) -> bool:
    """Whether the token was refused: pymilvus reports that as if nobody had answered, with the reason behind it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # pymilvus raises errors from themselves
        seen.add(id(error))
        if isinstance(error, grpc.RpcError) and hasattr(error, "code") and error.code() in _REFUSED:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def _heard(record: logging.LogRecord) -> bool:
    return not _quiet.get()


logging.getLogger("milvus_lite").addHandler(logging.NullHandler())  # its threads log what calls raise as well
_TALKING = ("", ".decorators", ".client.connection_manager", ".client.grpc_handler", ".milvus_client")
for _name in ("milvus_lite.server_manager", *(f"pymilvus{part}" for part in _TALKING)):
    logging.getLogger(_name).addFilter(_heard)
    for _handler in logging.getLogger(_name).handlers:  # what other loggers below log passes by here only
        _handler.addFilter(_heard)
