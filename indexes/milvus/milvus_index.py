"""`MilvusIndex`: an index of encodings on a Milvus server, a cluster, or in an embedded file (milvus-lite).

The records are on the server (`layout`), what all clients share beside them (`catalogue`), and a search is the
`pipeline` of `FaissIndex` with another engine (`hits`): pruning, cutoff, going deeper and re-ranking are the same code,
so the answers are the same numbers.

Any number of clients may read and write. Each change is acknowledged by the server before its call returns:

    add       all or nothing: a batch that is not finished is not seen, whatever happens to this client or the server
    upsert    record by record: each is the old one or the new one, never a mixture
    remove    record by record

A call that fails may have changed some records (upsert, remove). Calling it again completes it; of a removal, another
client can remove only the ids that are still there. An `add` that failed does not count, and the next change of the
same client takes it back, unless it turns out that only the answer of its last step was lost; another client replaces
it by adding the same records. Two clients that write the same id at the same time are not told: the one whose record
arrives last has it.

A search takes several requests, and Milvus has no snapshot for them. What others change while it goes on may show or
not, and while a record is being replaced, a search beside it may miss it. `catalogue` says how soon what others have
written is seen.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes.config import IndexConfig, SearchParams
from semcut.indexes.description import Capabilities, IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import ClosedIndexError, DamagedIndexError, NotAnIndexError, ServerError
from semcut.indexes.index import SemanticIndex
from semcut.indexes.milvus.address import check_there
from semcut.indexes.milvus.connection import Server
from semcut.indexes.milvus.lifecycle import drop, load, make, read_config
from semcut.indexes.milvus.reader import ATTEMPTS, Reader, busy
from semcut.indexes.milvus.schema import LOOSE, Schema, check_name, choose
from semcut.indexes.milvus.server_search import Hits, TooManyError
from semcut.indexes.milvus.shared_state import SharedState, View, catalogue_name
from semcut.indexes.milvus.writer import Writer
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.result import SearchResult
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search.vectorised import VectorisedSearch

_REQUESTS = 8  # at the same time
_QUERIES = 256  # of a batch that are searched together, and share what they fetch
_PAUSE = 0.05  # seconds, longer each time
_GOODBYE = 5.0  # seconds that closing may take where the server does not answer any more

_T = TypeVar("_T")
_U = TypeVar("_U")


class MilvusIndex(SemanticIndex):
    """An index in Milvus. Make one with `create` or `open`."""

    capabilities = Capabilities(counts_codes=False, cheap_stats=False)

    def __init__(self, server: Server, layout: Schema, strong: bool) -> None:
        super().__init__(layout.config)
        self._server, self._layout, self._strong = server, layout, strong
        self._catalogue = SharedState(server, layout, strong)
        self._changing = threading.RLock()
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(_REQUESTS, "semcut-milvus")
        self._reader = Reader(server, layout, self._catalogue, self._at_once, strong)
        self._writer = Writer(server, layout, self._catalogue, self._reader)

    def _at_once(self, function: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
        """A function of each item, in this order; a number of them run at the same time."""
        try:
            return list(self._pool.map(function, items))
        except (RuntimeError, CancelledError):  # the pool was shut down
            self._check_open()
            raise

    def _check_open(self) -> None:
        super()._check_open()
        if os.getpid() != self._process:
            raise ClosedIndexError("the index was opened before this process was forked: open it again in this one")

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
        """Make an empty index on a server.

        Args:
            path: the uri of the server, such as "http://localhost:19530", or a file name that ends in ".db" for an
                embedded one. None takes the environment variable MILVUS_URI.
            config: what it is.
            collection: its name on the server.
            token: "user:password" or an API key; None takes MILVUS_TOKEN, if it is set.
            database: the database; None for the default one.
            timeout: seconds that one request may take, repetitions included.
            strong: whether every search waits until it sees what other clients have written: up to 0.2 s on Milvus 2.3.
                Otherwise a record may be missed for some seconds after another client has added it.
            partition_key: whether the server partitions by dominant class. Refused if it does not find them then.

        Raises:
            IndexExistsError: there is a collection of this name.
            ServerError: the server does not answer, or refuses.
            InvalidParameterError: an argument cannot be, or the server cannot hold such records.
        """
        server = Server(path, token=token, database=database, timeout=timeout)
        try:
            layout = Schema(check_name(collection), choose(server), config, bool(partition_key))
            make(server, layout)
            return cls(server, layout, strong)
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
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
            ServerError: the server does not answer, or refuses.
        """
        check_there(path)
        server = Server(path, token=token, database=database, timeout=timeout)
        try:
            layout = read_config(server, check_name(collection))
            for name in {layout.name, layout.records}:
                load(server, name)
            return cls(server, layout, strong)
        except BaseException:
            server.close()
            raise

    @staticmethod
    def drop(
        path: str | os.PathLike[str] | None,
        *,
        collection: str = "semcut",
        token: str | None = None,
        database: str | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Delete an index from a server, with all of its records, or what is left of one that was not made completely.

        Args:
            path, collection, token, database, timeout: as for `create`.

        Raises:
            NotAnIndexError: there is none.
            ServerError: the server does not answer, or refuses.
        """
        check_there(path)
        server = Server(path, token=token, database=database, timeout=timeout)
        try:
            drop(server, check_name(collection))
        finally:
            server.close()

    @property
    def version(self) -> str:
        """Differs after every change that any client has made."""
        self._check_open()
        return self._catalogue.version()

    def __len__(self) -> int:
        self._check_open()
        return self._reader.count()

    def stats(self) -> IndexStats:
        """The size of the index; `column_bytes` is what the values take. Reads the cell of every record."""
        self._check_open()
        config = self.config
        numbers, counts = self._reader.cells()
        records = int(counts.sum())
        widths = {"ids": 8, "codes": config.bits // 8, "probabilities": 4 * config.classes, "features": 4 * config.dim}
        return IndexStats(
            records=records,
            removed=0,
            partitions=replace(Cells.empty(config), numbers=numbers, sizes=counts).partition_sizes().tolist(),
            cells=len(numbers),
            normalised=self._normalised(self._catalogue.view()),
            column_bytes={name: width * records for name, width in widths.items()},
        )

    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in ascending order."""
        self._check_open()
        return self._reader.ids()

    def next_id(self) -> int:
        """An id that is free, as are all above it: one more than the largest in the index."""
        self._check_open()
        return self._reader.largest() + 1

    def flush(self) -> None:
        """Have the server seal and index what was added: it can be searched before, but many times slower."""
        self._check_open()
        self._catalogue.tidy()
        names = {self._layout.name, self._layout.records, catalogue_name(self._layout.name)}
        self._at_once(lambda name: self._server.call("flush", name), names)

    def close(self) -> None:
        """Let go of the connection. Closing twice is allowed; using a closed index is a `ClosedIndexError`."""
        if os.getpid() != self._process:  # the connection is the parent's, and its threads are not here
            self._closed = True
            return
        with self._changing:
            if not self._closed:
                super().close()
                self._server.timeout = min(self._server.timeout, _GOODBYE)
                with contextlib.suppress(ServerError, NotAnIndexError, DamagedIndexError):
                    self._catalogue.leave()
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._server.close()

    # changes

    def load(self, encodings: Encodings) -> None:
        """As `upsert`, for records that are known not to be in the index: they are not looked for. For bulk loads.

        Args:
            encodings: with ids, of this index's classes, bits and feature length. Those that are in the index already
                are replaced, but what they took on a Milvus 2.3 server is not given back.

        Raises:
            InvalidEncodingsError, DuplicateIdError, ServerError: as for `upsert`.
        """
        if len(self._checked(encodings)):
            self._write(encodings, replace=True, known=True)

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
        """Delete what clients that died have left of these records on Milvus 2.3. No other client may be writing.

        Args:
            ids: (n,) int64.
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

    def _uris(self, ids: NDArray[np.int64]) -> list[str | None]:
        uris = self._reader.get(ids).uris
        return [None] * len(ids) if uris is None else list(uris)

    def _iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        return self._reader.iterate(batch_size, after)

    def _cells(self) -> Cells:
        return self._catalogue.view(strong=self._strong).cells

    def _members(self, partition: int, limit: int, ambiguous: bool) -> NDArray[np.int64]:
        cells = self._cells()
        numbers = cells.numbers[cells.of_partition(partition, ambiguous=ambiguous)]
        return self._reader.members(numbers, limit, in_order=ambiguous)

    def _normalised(self, view: View) -> bool:
        if not view.loose:
            return True
        condition = view.condition(f"flags in [{LOOSE},{LOOSE | 2}]")
        return self._server.count(self._layout.name, condition, strong=self._strong) == 0

    def _search(self, queries: Encodings, params: SearchParams, trace: SearchTrace | None) -> SearchResult:
        """Again, in the newest state, if records were removed or replaced while they were on their way here."""
        for attempt in range(ATTEMPTS):
            strong = self._strong or attempt > 0
            view = self._catalogue.view(strong=strong)
            scored = self._scored(queries, params, self._normalised(view))
            if not len(queries) or not len(view.cells):
                return SearchResult.empty(len(queries), params.k)
            order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")
            parts, missed = [], 0
            for start in range(0, len(queries), _QUERIES):
                here = order[start : start + _QUERIES]
                part, gone = self._part(queries[here], params, view, scored, strong, trace)
                parts.append(part)
                missed += gone
            if not missed and (not self._strong or self._catalogue.unchanged(view)):
                break
            time.sleep(_PAUSE * attempt)
        else:
            if missed:
                raise busy()
        return SearchResult.concatenate(parts).in_order(np.argsort(order))

    def _part(
        self,
        queries: Encodings,
        params: SearchParams,
        view: View,
        scored: bool,
        strong: bool,
        trace: SearchTrace | None,
    ) -> tuple[SearchResult, int]:
        """The results of a part of the queries, and how many records were gone when they were fetched."""
        hits = Hits(self._server, self._layout, view, self._at_once, strong)
        try:
            pipeline = VectorisedSearch(hits, view.cells, hits, self._similarity, split=False)
            return pipeline.search(queries, params, scored, trace), hits.missed
        except TooManyError:
            if len(queries) == 1:
                raise
        half = len(queries) // 2
        parts = [
            self._part(queries[here], params, view, scored, strong, trace)
            for here in (slice(None, half), slice(half, None))
        ]
        return SearchResult.concatenate([part for part, _ in parts]), sum(missed for _, missed in parts)
