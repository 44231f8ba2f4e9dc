"""Call Milvus: every call has a deadline, is repeated while its failure is transient, and raises semcut's errors.

`ServerConnection.call` repeats a call with growing pauses while the error is transient (a node that restarts, a rate
limit), and converts the last error to a semcut error. Addresses and tokens never occur in messages.

**Consistency.** A read sees everything that this process has written to the collection: pymilvus sends the time of the
last write with the request. Servers do not report the time of a deletion, so the first read after a deletion requests
the newest state, which takes up to 0.2 s on Milvus 2.3.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import ClosedIndexError, InvalidParameterError, NotAnIndexError, ServerError, shown
from semcut.indexes.milvus.address import is_file, resolve_address
from semcut.indexes.milvus.embedded_file import acquire, release
from semcut.indexes.milvus.pymilvus_internals import (
    CLIENT_ERRORS,
    PAGE_OPTIONS,
    failure_kind,
    failure_text,
    int_column,
    is_closed_channel,
    is_not_loaded,
    is_transient,
    open_client,
    silenced,
)

PAGE = 16_384
"""The largest number of results that Milvus returns at once."""

ConcurrentMap = Callable[[Callable[[Any], Any], list[Any]], list[Any]]
"""A function that calls another one for every item, several at the same time, and returns the results in order."""

_UNKNOWN_VERSION = "of unknown version"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0  # seconds between repetitions of a call


class RequestTooLargeError(ServerError):
    """A request or its answer is larger than the server allows."""


class RefusedCallError(ServerError):
    """The server has answered that it does not do what was asked."""


class ServerConnection:
    """A connection to a Milvus server or to an embedded Milvus.

    Args:
        uri: such as "http://localhost:19530", or a file name that ends in ".db" for embedded Milvus (milvus-lite);
            None takes the environment variable MILVUS_URI.
        token: "user:password" or an API key; None takes the environment variable MILVUS_TOKEN, if it is set.
        database: the database; None for the default one.
        timeout: seconds that one call may take, repetitions included.

    Attributes:
        timeout: as given.
        version: the version that the server reports; some report none.
        release: the first two numbers of `version`; (0, 0) if it has fewer.
        embedded: whether the server is milvus-lite.

    Raises:
        InvalidParameterError: there is no uri, or an argument is malformed.
        ServerError: no server answers, or the server does not accept the token.
        MissingDependencyError: a file is given, and milvus-lite is not installed.
        DamagedIndexError: a file is given, which is a directory, and something in it is a link, a FIFO or a device.
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
        address = resolve_address(uri)
        token = os.environ.get("MILVUS_TOKEN") if token is None else token
        for name, value in (("token", token), ("database", database)):
            if value is not None and (not isinstance(value, str) or not (value.isascii() and value.isprintable())):
                raise InvalidParameterError(f"the {name} is not a string of printable ASCII characters")
        self._secrets = [text for text in (token, address) if text]
        self._deletions: dict[str, int] = {}  # per collection: deletions that no read has waited for yet
        self._lock = threading.Lock()
        self.version = ""
        self._client: Any = None
        self._closed = False
        self._file = acquire(address) if is_file(address) else None
        try:
            self._client = self._repeat("connect", lambda left: open_client(address, token, database, left))
            try:
                self.version = str(self.call("get_server_version"))
            except RefusedCallError:
                self.version = _UNKNOWN_VERSION
            self.embedded = "lite" in self.version and not self.version.startswith("v")
            numbers = re.findall(r"\d+", self.version)
            self.release = (int(numbers[0]), int(numbers[1])) if len(numbers) > 1 else (0, 0)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection. Closing it twice is allowed."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception), silenced():
                client.close()
        if self._file is not None:
            release(self._file)
            self._file = None

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `MilvusClient` within the timeout.

        Raises:
            ServerError: Milvus does not answer in time, or refuses the call.
            NotAnIndexError: the collection does not exist.
            ClosedIndexError: the connection was closed.
        """
        client = self._client
        if client is None:
            raise _closed_error()
        collection = args[0] if args and isinstance(args[0], str) else None
        return self._repeat(name, lambda left: getattr(client, name)(*args, timeout=left, **kwargs), collection)

    def _repeat(self, name: str, attempt: Callable[[float], Any], collection: str | None = None) -> Any:
        """Call a function with the number of seconds left, and repeat the call while its failure is transient."""
        deadline, pause = time.monotonic() + self.timeout, _FIRST_PAUSE
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            try:
                with silenced():
                    return attempt(left)
            except (*CLIENT_ERRORS, ValueError) as error:
                if self._closed or is_closed_channel(error):
                    raise _closed_error() from None
                if isinstance(error, ValueError):
                    raise
                if not is_transient(error) or time.monotonic() + pause > deadline:
                    raise self._semcut_error(name, error) from None
                if is_not_loaded(error) and collection is not None and name != "load_collection":
                    with contextlib.suppress(*CLIENT_ERRORS), silenced():
                        self._client.load_collection(collection, timeout=left)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _semcut_error(self, name: str, error: Exception) -> Exception:
        """Return the semcut error for a failed call of the method `name`."""
        kind, reason = failure_kind(error), failure_text(error, hide=self._secrets)
        if kind == "too large":
            return RequestTooLargeError(f"Milvus refused {name}, the request or its answer is too large: {reason}")
        if kind == "file in use":
            return ServerError(
                "the embedded Milvus cannot be opened: another process has it open, or it is damaged; only one process "
                "can use it at the same time"
            )
        if kind == "no collection":
            return NotAnIndexError(
                "the collection does not exist on the server, or was dropped: create it, or check its name"
            )
        if kind == "token refused":
            return ServerError("Milvus does not accept the token: pass token=, or set MILVUS_TOKEN")
        if kind == "no answer":
            return ServerError(
                f"Milvus did not answer within {self.timeout:g} s ({name}): check that it runs, check its address, and "
                "raise timeout= if it is only slow"
            )
        return RefusedCallError(f"Milvus refused {name}: {reason}")

    # reading and writing

    def read(self, name: str, collection: str, *, strong: bool = False, bounded: bool = False, **kwargs: Any) -> Any:
        """Call `query` or `search` with a consistency level.

        Args:
            name: "query" or "search".
            collection: the collection to read.
            strong: see everything that any client has written.
            bounded: see what any client had written a few seconds ago, without waiting. Without `strong` and `bounded`,
                the read sees everything that this process has written.
            kwargs: further arguments of the method.
        """
        with self._lock:
            deletions = self._deletions.get(collection, 0)
        level = "Strong" if strong or deletions else "Bounded" if bounded else "Session"
        result = self.call(name, collection, consistency_level=level, **kwargs)
        if deletions:
            with self._lock:
                if self._deletions.get(collection) == deletions:
                    del self._deletions[collection]
        return result

    def pages(
        self, collection: str, key: str, condition: str, fields: list[str], *, size: int = PAGE, strong: bool = False
    ) -> Iterator[dict[str, NDArray[np.int64]]]:
        """Read integer fields of all rows that meet a condition, page by page, in order of the key.

        Args:
            collection: the collection to read.
            key: the INT64 primary key of the collection.
            condition: a filter on numbers.
            fields: further INT64 fields.
            size: the largest number of rows per page; a value above 16,384 acts like 16,384.
            strong: whether to see everything that any client has written.

        Yields:
            Each page as a dict from field to (n,) int64, the key included.
        """
        # pymilvus sends no consistency level with a query for a page, so the level of the collection holds, and this
        # read waits for the state that the pages must have. With several replicas, another one may answer the pages.
        self.count(collection, f"{key} in [0]", strong=strong)
        last: int | None = None
        while True:
            here = condition if last is None else f"({condition}) and {key} > {last}"
            rows = self.call(
                "query", collection, filter=here, output_fields=[key, *fields], limit=min(size, PAGE), **PAGE_OPTIONS
            )
            if not len(rows):
                return
            keys = int_column(rows, key)
            order = np.argsort(keys)[:size]  # Milvus 2.3 returns more rows if there are several segments
            last = int(keys[order[-1]])
            yield {name: int_column(rows, name)[order] for name in (key, *fields)}

    def count(self, collection: str, condition: str, *, strong: bool = False) -> int:
        """Return the number of rows that meet a condition on numbers."""
        found = self.read("query", collection, filter=condition, output_fields=["count(*)"], strong=strong)
        return int(found[0]["count(*)"])

    def delete(self, collection: str, condition: str, *, visible: bool = True) -> None:
        """Delete the rows that meet a condition on numbers.

        Args:
            collection: the collection to delete from.
            condition: a filter.
            visible: whether the next read of the collection must see the deletion.
        """
        self.call("delete", collection, filter=condition)
        if visible:
            with self._lock:
                self._deletions[collection] = self._deletions.get(collection, 0) + 1

    def delete_matching(self, collection: str, key: str, condition: str) -> None:
        """Find the rows that meet a condition on any fields, in the newest state, and delete them by INT64 key."""
        for page in list(self.pages(collection, key, condition, [], strong=True)):
            self.delete(collection, is_in(key, page[key]))


def is_in(field: str, values: Sequence[int] | NDArray[np.integer[Any]]) -> str:
    """Return the condition that a field equals one of these integers. Conditions never contain other values."""
    return f"{field} in [{','.join(map(str, np.asarray(values, np.int64).tolist()))}]"


def _closed_error() -> ClosedIndexError:
    return ClosedIndexError("the index was closed: open it again")
