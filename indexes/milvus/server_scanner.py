"""Scan codes on the server: `ServerScanner`, the scanner and the record reader of one search of a `MilvusIndex`.

A scan has two steps: a search for the nearest codes in some cells returns keys, and the records of new keys are fetched
whole. So a record that is near to many queries crosses the network once. In this module, a row is the number of a
record in order of its arrival in this process.

**Groups.** A request has one filter, so queries that keep nearly the same cells share a request for all cells that any
of them keeps. These are more cells than each query needs. The search is still exact, since the cutoff is applied to
each record; but the additional records take places of the shortlist. So only queries with nearly the same cells form a
group, and the requests of the groups run concurrently.

**Ties.** Ties follow the rule of `search.tie_order`, for which all records at the last distance are fetched. If these
are more than `patience` times the shortlist, or more than one request may return, the server decides instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.milvus.connection import PAGE, ConcurrentMap, ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import hit_distances, hit_keys, int_column
from semcut.indexes.milvus.scalar_index import cells_condition
from semcut.indexes.milvus.schema import Schema, to_ids
from semcut.indexes.milvus.server_filter import EVERY_RECORD, joined
from semcut.indexes.milvus.server_selection import ServerSelection
from semcut.indexes.milvus.shared_state import SharedView
from semcut.indexes.pruning.cell_table import cell_numbers
from semcut.indexes.scanners.protocol import NO_RECORD, Nearest
from semcut.indexes.scoring.equations import hamming

MAX_BYTES = 1 << 31
"""The largest number of bytes that a search without a shortlist may fetch from the server."""

_GROUP_WIDENING = 3  # cells that the request of a group may cover, per cell that its widest query keeps
_GROUP_QUERIES = 64  # the largest number of queries in a group
_ALL_CELLS = 0.9  # share of all cells above which the filter names no cells
_VECTOR_BYTES = 1 << 21  # bytes of vectors in one answer
_NO_KEY = -2  # -1 is a key

_Hits: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Keys, nearest first, and their distances."""


class TooManyRecordsError(InvalidParameterError):
    """A search would fetch too many records from the server."""


class ServerScanner:
    """The records that one search has fetched so far; both the `RecordReader` and the `Scanner` of this search.

    Args:
        server, schema: the connection and the schema of the index.
        view: the shared state: the cells, and which rows are hidden.
        chosen: the records that are searched.
        concurrently: sends several requests at the same time.
        strong: whether to see everything that any client has written.

    Attributes:
        missed: number of records that were removed or replaced after they had been found and before they were fetched.
            If there are any, the search should be repeated.
    """

    deepest = PAGE
    patience = 12.0  # a deeper scan would fetch thousands of records to decide a few ties

    def __init__(
        self,
        server: ServerConnection,
        schema: Schema,
        view: SharedView,
        chosen: ServerSelection,
        concurrently: ConcurrentMap,
        strong: bool,
    ) -> None:
        self._server, self._schema, self._view, self._chosen = server, schema, view, chosen
        self._concurrently, self._strong = concurrently, strong
        self._fetch_size = max(64, min(4096, _VECTOR_BYTES // (4 * (schema.config.dim + schema.config.classes))))
        self.missed = 0
        self._keys = np.empty(0, np.int64)  # sorted
        self._rows = np.empty(0, np.int64)  # the rows of `_keys`
        self._cell_rows: dict[int, NDArray[np.int64]] = {}  # per cell that was fetched whole
        self._fetched = 0
        self._columns: list[NDArray[Any]] = [
            np.zeros(1, np.int64),
            np.zeros((1, schema.config.classes), np.float32),
            np.zeros((1, schema.config.bits // 8), np.uint8),
            np.zeros((1, schema.config.dim), np.float32),
            np.zeros(1, np.int32),
        ]  # ids, probabilities, codes, features, cells; with spare rows, and at least one row
        self._cells_by_number = np.argsort(view.cells.numbers)

    # record reader

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) int64."""
        return self._column(0)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """(n, bits / 8) uint8."""
        return self._column(2)

    @property
    def cells(self) -> NDArray[np.int32]:
        """(n,) int32: positions in the cells of the view."""
        return self._column(4)

    def probabilities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the probabilities of rows (any shape): an (M, C) matrix, and the position of each row in it."""
        return self._column(1), rows

    stored_probabilities = probabilities

    def features(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the features of rows (any shape): an (M, D) matrix, and the position of each row in it."""
        return self._column(3), rows

    def _column(self, place: int) -> NDArray[Any]:
        """Return a column without its spare rows; one row if no record was fetched, so that row -1 can be read."""
        return self._columns[place][: max(1, self._fetched)]

    def release_pages(self, min_interval: float = 0) -> None:
        """Do nothing: no record is memory-mapped."""

    # scanner

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """Find the nearest codes in the cells of each query: see `Scanner.search`."""
        keys = np.full((len(codes), depth), _NO_KEY, np.int64)

        def scan(group: list[int]) -> None:
            distances = np.full((len(group), depth), np.inf)
            for condition in self._filters(cells[group]):
                nearest = self._nearest(codes[group], condition, depth)
                for place, (query, found) in enumerate(zip(group, nearest, strict=True)):
                    keys[query], distances[place] = _merged((keys[query], distances[place]), found)

        self._concurrently(scan, list(_groups(cells)))
        found = keys != _NO_KEY
        self._fetch(np.unique(keys[found]))
        rows = np.full(keys.shape, -1, np.int64)
        rows[found] = self._rows_of(keys[found])
        # Records that were removed in between leave gaps, which are moved behind the last record.
        rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
        return Nearest(rows, np.where(rows < 0, NO_RECORD, hamming(codes[:, None], self.codes[rows])))

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find all rows in (m,) cells: see `Scanner.rows`.

        Raises:
            TooManyRecordsError: there are too many records to fetch.
        """
        new = [cell for cell in cells.tolist() if cell not in self._cell_rows]
        if new:
            self._fetch_cells(new)
        found = [self._cell_rows[cell] for cell in cells.tolist()]
        rows = np.concatenate([np.empty(0, np.int64), *found])
        which = np.repeat(np.arange(len(cells)), [len(part) for part in found])
        once = np.unique(rows, return_index=True)[1]  # a record that moved between two requests is in two cells
        return rows[once], which[once]

    def _fetch_cells(self, cells: list[int]) -> None:
        """Fetch all records in these cells."""
        conditions = [condition or EVERY_RECORD for condition in self._filters(np.array([cells]))]
        counts = [self._server.count(self._schema.name, one, strong=self._strong) for one in conditions]
        count = sum(counts) + self._fetched
        size = count * 4 * (self._schema.config.dim + self._schema.config.classes)
        if size > MAX_BYTES:
            raise TooManyRecordsError(
                f"this search would fetch {count} records, {size / 2**30:.1f} GiB, from the server to rank them: "
                "raise the cutoff, or pass a shorter shortlist"
            )
        key = self._schema.record_key
        fields = ["cell", *([key] if key != "id" else [])]
        pages = [
            page
            for condition in conditions
            for page in self._server.pages(self._schema.name, "id", condition, fields, strong=self._strong)
        ]
        keys = np.concatenate([np.empty(0, np.int64), *(page[key] for page in pages)])
        numbers = np.concatenate([np.empty(0, np.int64), *(page["cell"] for page in pages)])
        self._fetch(np.unique(keys))
        rows = self._rows_of(keys)
        numbers, rows = numbers[rows >= 0], rows[rows >= 0]
        order = np.argsort(numbers, kind="stable")
        starts = np.searchsorted(numbers[order], self._view.cells.numbers[cells], side="left")
        stops = np.searchsorted(numbers[order], self._view.cells.numbers[cells], side="right")
        for cell, start, stop in zip(cells, starts.tolist(), stops.tolist(), strict=True):
            self._cell_rows[cell] = rows[order[start:stop]]

    def _filters(self, cells: NDArray[np.int64]) -> list[str]:
        """Return filters for the visible chosen records in these cells, or in all cells if most are kept.

        Args:
            cells: positions of cells; -1 is no cell.
        """
        kept = np.unique(cells)
        kept = kept[kept >= 0]
        known = self._view.cells
        if len(kept) >= _ALL_CELLS * len(known):
            return list(map(self._view.visible, self._chosen.conditions()))
        condition = cells_condition(np.sort(known.numbers[kept]), known.numbers[self._cells_by_number])
        if self._schema.partition_key:
            condition = joined("and", [is_in("dominant", np.unique(known.dominant()[kept])), condition])
        return list(map(self._view.visible, self._chosen.conditions(condition, known.numbers[kept])))

    def _nearest(self, codes: NDArray[np.uint8], condition: str, depth: int) -> list[_Hits]:
        """Return the keys of the records nearest to each of these codes that meet a filter, with their distances."""
        key = self._schema.record_key
        found = self._server.read(
            "search", self._schema.name, strong=self._strong, data=self._schema.query_codes(codes), anns_field="code",
            filter=condition, limit=depth, search_params={"metric_type": self._schema.metric, "params": {}},
            output_fields=[] if key == "id" else [key],
        )  # fmt: skip
        return [(hit_keys(hits, key, primary=key == "id"), hit_distances(hits)) for hits in found]

    # fetched records

    def _fetch(self, keys: NDArray[np.int64]) -> None:
        """Fetch the records with these distinct keys, except for those that were fetched before."""
        keys = keys[~np.isin(keys, self._keys, assume_unique=True)]
        schema = self._schema
        fields = ["id", *schema.record_vectors] + (["row"] if schema.record_key == "row" else [])

        def fetch(part: NDArray[np.int64]) -> Any:
            condition = is_in(schema.record_key, part)
            return self._server.read(
                "query", schema.record_collection, strong=self._strong, filter=condition, output_fields=fields
            )

        slices = [keys[start : start + self._fetch_size] for start in range(0, len(keys), self._fetch_size)]
        parts = [part for part in self._concurrently(fetch, slices) if len(part)]
        arrived = np.concatenate([np.empty(0, np.int64), *(int_column(part, schema.record_key) for part in parts)])
        for part in parts:
            columns = schema.columns(part)
            self._append([to_ids(int_column(part, "id")), *columns, self._cells_of(columns[0])])
        fresh, first = np.unique(arrived, return_index=True)
        all_keys = np.concatenate([self._keys, fresh])
        order = np.argsort(all_keys)
        self._rows = np.concatenate([self._rows, self._fetched - len(arrived) + first])[order]
        self._keys = all_keys[order]
        self.missed += int(np.count_nonzero(~np.isin(keys, fresh)))

    def _cells_of(self, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the positions of the records' cells in the view: (n, C) float32 to (n,) int64.

        A cell that the view does not have yet is replaced by a neighbour, which can change only the order of ties.
        """
        numbers, _ = cell_numbers(self._schema.config, probabilities)
        known = self._view.cells.numbers[self._cells_by_number]
        return self._cells_by_number[np.minimum(np.searchsorted(known, numbers), len(known) - 1)]

    def _append(self, columns: list[NDArray[Any]]) -> None:
        """Append fetched records."""
        total = self._fetched + len(columns[0])
        for place, (column, new) in enumerate(zip(self._columns, columns, strict=True)):
            if total > len(column):
                grown = np.empty((max(total, 2 * len(column)), *column.shape[1:]), column.dtype)
                grown[: self._fetched] = column[: self._fetched]
                self._columns[place] = column = grown
            column[self._fetched : total] = new
        self._fetched = total

    def _rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of keys, -1 for keys that were not fetched: (n,) int64 to (n,) int64."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._rows[at], -1)


def _merged(known: _Hits, found: _Hits) -> _Hits:
    """Return the nearest of two sets of hits, as many as are known: the second set has no more."""
    keys, distances = (np.concatenate(pair) for pair in zip(known, found, strict=True))
    order = np.argsort(distances, kind="stable")[: len(known[0])]
    return keys[order], distances[order]


def _groups(cells: NDArray[np.int64]) -> Iterator[list[int]]:
    """Group consecutive queries that keep nearly the same cells; each group becomes one request.

    Args:
        cells: (nq, w) positions of the cells that each query keeps, -1 for none.

    Yields:
        The positions of the queries of a group. Queries that keep no cell are left out.
    """
    group: list[int] = []
    union: set[int] = set()
    widest = 0
    for query, row in enumerate(cells):
        own = set(row[row >= 0].tolist())
        if not own:
            continue
        joined = union | own
        if group and (len(joined) > _GROUP_WIDENING * max(widest, len(own)) or len(group) == _GROUP_QUERIES):
            yield group
            group, joined, widest = [], own, 0
        group.append(query)
        union, widest = joined, max(widest, len(own))
    if group:
        yield group
