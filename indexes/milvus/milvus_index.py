"""`MilvusIndex`: an index of encodings on a Milvus server, on a cluster, or in an embedded file (milvus-lite).

The server stores the records (`schema`) and the state that all clients share (`shared_state`). A search is the
`VectorisedSearch` of other indexes with another scanner (`server_scanner`): pruning, cutoff, deeper scans and
re-ranking are the same code, so the results are the same numbers.

Any number of clients may read and write. The server acknowledges a change before the call returns:

    add       all or nothing: a batch stays hidden until it is complete, even if this client or the server crashes
    upsert    record by record: readers see the previous or the new version of a record, never a mixture
    remove    record by record

An `upsert` or `remove` that fails may have changed some records. Repeating the call completes it; another client can
complete a removal only with the ids that still exist. A batch whose `add` failed stays hidden, and the next change
of the same client deletes it, unless the batch was complete and only the last answer was lost. Another client replaces
the hidden batch by adding the same records. Two clients that write the same id at the same time get no error: the
record that arrives last stays.

Milvus has no snapshot for the several requests of a search. A search may or may not see changes that other clients make
while it runs, and it may miss a record that is being replaced. Unless the index is opened with `strong`, a client sees
the changes of other clients some seconds late, and may see a part of a batch during this time (see `shared_state`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.batch_checks import checked_batch, is_scored
from semcut.indexes.config import IndexConfig
from semcut.indexes.description import Capabilities, IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import ClosedIndexError, DamagedIndexError, NotAnIndexError, SemcutWarning, ServerError
from semcut.indexes.index import SemanticIndex
from semcut.indexes.milvus.address import require_embedded_file
from semcut.indexes.milvus.connection import ServerConnection
from semcut.indexes.milvus.consistent_search import ConsistentSearch
from semcut.indexes.milvus.copy_mark import mark, missing_records, unmark
from semcut.indexes.milvus.layout import choose_kind
from semcut.indexes.milvus.lifecycle import create_index, drop_index, open_index
from semcut.indexes.milvus.reader import Reader
from semcut.indexes.milvus.schema import Schema, check_name
from semcut.indexes.milvus.shared_rows import shared_collection_name
from semcut.indexes.milvus.shared_state import SharedState
from semcut.indexes.milvus.writer import Writer
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.range_result import RangeHits, RangeParams
from semcut.indexes.result import SearchResult
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_params import SearchParams

CONCURRENT_REQUESTS = 8
"""Requests that one index sends at the same time."""

_CLOSE_TIMEOUT = 5.0  # seconds that closing may take if the server no longer answers

_T = TypeVar("_T")
_U = TypeVar("_U")


class MilvusIndex(SemanticIndex):
    """An index in Milvus; `create` and `open` return one."""

    capabilities = Capabilities(counts_codes=False, cheap_stats=False)

    def __init__(self, server: ServerConnection, schema: Schema, strong: bool) -> None:
        super().__init__(schema.config)
        self._server, self._schema, self._strong = server, schema, strong
        self._shared = SharedState(server, schema, strong)
        self._changing = threading.RLock()
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(CONCURRENT_REQUESTS, "semcut-milvus")
        self._reader = Reader(server, schema, self._shared, self._concurrently, strong)
        self._writer = Writer(server, schema, self._shared, self._reader)
        self._searcher = ConsistentSearch(server, schema, self._shared, self.similarity, self._concurrently, strong)

    def _concurrently(self, function: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
        """Call a function for every item, several at the same time; return the results in the order of the items."""
        try:
            return list(self._pool.map(function, items))
        except (RuntimeError, CancelledError):  # the pool was shut down
            self._check_open()
            raise

    def _check_open(self) -> None:
        super()._check_open()
        if os.getpid() != self._process:
            raise ClosedIndexError("the index was opened before this process was forked: open it again")

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        config: IndexConfig,
        *,
        collection: str = "semcut",
        token: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
        strong: bool = False,
        partition_key: bool = False,
    ) -> Self:
        """Create an empty index on a server.

        Args:
            path: the uri of the server, such as "http://localhost:19530", or a file name that ends in ".db" for an
                embedded one. None takes the environment variable MILVUS_URI.
            config: the configuration of the index.
            collection: the name of the index on the server.
            token: "user:password" or an API key; None takes MILVUS_TOKEN, if it is set.
            database: the database; None for the default one.
            timeout: seconds that one request may take, repetitions included.
            strong: whether every search waits, up to 0.2 s on Milvus 2.3, to see everything that other clients have
                written. Otherwise a search may miss a record for some seconds after another client has added it.
            partition_key: whether the server partitions the records by dominant class. This is an error on a server
                that then loses records.

        Raises:
            IndexExistsError: there is an index, or another collection, of this name.
            ServerError: the server does not answer, or refuses.
            InvalidParameterError: an argument is malformed, or the server cannot store such records.
        """
        server = ServerConnection(path, token=token, database=database, timeout=timeout)
        try:
            schema = Schema(check_name(collection), choose_kind(server), config, bool(partition_key))
            create_index(server, schema)
            return cls(server, schema, strong)
        except BaseException:
            server.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        collection: str = "semcut",
        token: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
        strong: bool = False,
    ) -> Self:
        """Open an index on a server.

        Args:
            path, collection, token, database, timeout, strong: as for `create`.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: there is no index, or none that can be read.
            ServerError: the server does not answer, or refuses.

        Warns:
            SemcutWarning: a copy to the index was interrupted, or is still running.
        """
        require_embedded_file(path)
        server = ServerConnection(path, token=token, database=database, timeout=timeout)
        try:
            opened = cls(server, open_index(server, collection), strong)
            missing = missing_records(server, opened._schema, opened._reader.count)
        except BaseException:
            server.close()
            raise
        if missing is not None:
            warnings.warn(missing, SemcutWarning, stacklevel=2)
        return opened

    @staticmethod
    def drop(
        path: str | os.PathLike[str] | None,
        *,
        collection: str = "semcut",
        token: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Delete an index with all records, or the collections that an interrupted creation or deletion has left.

        Args:
            path, collection, token, database, timeout: as for `create`.

        Raises:
            NotAnIndexError: there is no index of this name.
            ServerError: the server does not answer, or refuses.
        """
        require_embedded_file(path)
        server = ServerConnection(path, token=token, database=database, timeout=timeout)
        try:
            drop_index(server, collection)
        finally:
            server.close()

    @property
    def version(self) -> str:
        """Return a text that differs after every change that any client has made."""
        self._check_open()
        return self._shared.version()

    def __len__(self) -> int:
        self._check_open()
        return self._reader.count()

    def stats(self) -> IndexStats:
        """Return the size of the index; `column_bytes` counts values only. This reads the cell of every record."""
        self._check_open()
        return self._reader.stats(self._searcher.normalised(self._shared.view()))

    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""
        self._check_open()
        return self._reader.ids()

    def next_id(self) -> int:
        """Return the largest id plus one: this id and all larger ids are free."""
        self._check_open()
        return self._reader.largest_id() + 1

    @contextlib.contextmanager
    def filling(self, records: int) -> Iterator[None]:
        """Mark the index as unfinished on the server, until the block has ended without an error.

        Args:
            records: the number of records that the index will have.

        Raises:
            ServerError: the server does not answer, or refuses.
        """
        self._check_open()
        mark(self._server, self._schema, records)
        yield
        unmark(self._server, self._schema)

    def flush(self) -> None:
        """Make the server seal and index new records. Without this, searching them is many times slower."""
        self._check_open()
        self._writer.tidy()
        names = {self._schema.name, self._schema.record_collection, shared_collection_name(self._schema.name)}
        self._concurrently(lambda name: self._server.call("flush", name), names)

    def close(self) -> None:
        """Close the connection. Closing twice is allowed; using a closed index raises `ClosedIndexError`."""
        if os.getpid() != self._process:  # the connection and its threads belong to the parent
            self._closed = True
            return
        with self._changing:
            if not self._closed:
                super().close()
                self._server.timeout = min(self._server.timeout, _CLOSE_TIMEOUT)
                with contextlib.suppress(ServerError, NotAnIndexError, DamagedIndexError):
                    self._shared.leave()
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._server.close()

    # changes

    def load(self, encodings: Encodings) -> None:
        """Add many records fast: as `upsert`, but without a request for the ids that exist already.

        Records that are in the index already are replaced, but a Milvus 2.3 server does not free their space. Keys are
        requested and compared, but records that other clients have just added may be missed. Arguments and errors as
        for `upsert`.
        """
        self._check_open()
        batch = checked_batch(self.config, encodings, self._keys_to_compare, replace=True)
        if len(batch):
            self._write(batch, replace=True, known=True)

    def _add(self, encodings: Encodings, *, replace: bool) -> None:
        self._write(encodings, replace=replace, known=False)

    def _write(self, encodings: Encodings, *, replace: bool, known: bool) -> None:
        with self._changing:
            self._check_open()
            self._writer.write(encodings, replace=replace, known=known)

    def _remove(self, ids: NDArray[np.int64]) -> None:
        with self._changing:
            self._check_open()
            self._writer.remove(ids)

    def sweep(self, ids: NDArray[np.int64]) -> None:
        """Delete the rows of these records to which no id points, which crashed clients can leave on Milvus 2.3.

        No other client may write at the same time.

        Args:
            ids: (n,) int64, ids of the records.
        """
        self._check_open()
        with self._changing:
            self._check_open()
            self._writer.sweep(ids)

    # reading

    def _contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._reader.contains(ids)

    def _get(self, ids: NDArray[np.int64]) -> Encodings:
        return self._reader.get(ids)

    def _keys(self, ids: NDArray[np.int64]) -> list[str | None]:
        return self._reader.keys(ids)

    def _keys_to_compare(self, ids: NDArray[np.int64]) -> list[str | None]:
        return [None] * len(ids)  # the writer compares them, in the newest state

    def _keys_to_remove(self, ids: NDArray[np.int64]) -> list[str | None]:
        return self._writer.with_half_removed(ids, self._keys(ids))

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        uris = self._reader.get(ids).uris
        return [None] * len(ids) if uris is None else list(uris)

    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        return self._reader.iterate(batch_size, after)

    def _cells(self) -> Cells:
        return self._shared.view(strong=self._strong).cells

    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        cells = self._cells()
        numbers = cells.numbers[cells.of_partition(partition, ambiguous=ambiguous)]
        return self._reader.members(numbers, limit, in_order=ambiguous)

    def _matching(self, selection: Selection) -> NDArray[np.int64]:
        return self._reader.matching(selection)

    def _search(
        self, queries: Encodings, params: SearchParams, selection: Selection | None, trace: SearchTrace | None
    ) -> SearchResult:
        def scored(normalised: bool) -> bool:
            return is_scored(self.config, queries, params, normalised)

        return self._searcher.search(queries, params, selection, scored, trace)

    def _search_range(self, queries: Encodings, params: RangeParams, selection: Selection | None) -> list[RangeHits]:
        scored = partial(is_scored, self.config, queries, SearchParams())
        return self._searcher.search_range(queries, params, selection, scored)
