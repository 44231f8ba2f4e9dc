"""The shortlist engine of `MilvusIndex`: records that a search has asked the server for, by rows of its own.

A search asks in two steps: the nearest codes of some cells give keys, and records of keys that it does not have yet are
fetched whole. So a record that is near to many queries crosses the network once. Rows are numbers in order of arrival.

**Groups.** One request has one condition, so queries go together that keep nearly the same cells. Their request asks
for all cells that any of them keeps: more than each needs, which is still exact, since the cutoff is applied to each
record, but spends places of the shortlist on records that are then dropped. Groups are therefore kept tight, and run
at the same time.

**Ties.** They are settled here as everywhere (`indexes.ties`), for which all records at the last distance are fetched.
Where they are more than `patience` places for each of the shortlist, or more than one request may ask for, the
server's choice stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.milvus.connection import PAGE, Server, among, integers
from semcut.indexes.milvus.schema import Schema, to_ids
from semcut.indexes.milvus.shared_state import View
from semcut.indexes.pruning.cell_table import cell_numbers
from semcut.indexes.scanners.protocol import NO_RECORD, Nearest
from semcut.indexes.scoring.equations import hamming

MAX_BYTES = 1 << 31
"""Records that a search without a shortlist may take to this machine."""

_LOOSE_GROUP = 3  # cells that a group asks for, per cell that its widest query keeps
_LARGE_GROUP = 64  # queries
_ALL = 0.9  # share of all cells from which on no cells are named
_VECTOR_BYTES = 1 << 21  # in one answer


class TooManyError(InvalidParameterError):
    """One search would take too many records to this machine."""


AtOnce = Callable[[Callable[[Any], Any], list[Any]], list[Any]]


class Hits:
    """What one search has found so far: `Records` and `Engine` of a `Pipeline`.

    Args:
        server: where to search.
        layout: the index.
        view: its cells, and what does not count.
        at_once: runs a function for each of some items, some of them at the same time.
        strong: whether the newest state is asked for.

    Attributes:
        missed: records that were found and were gone when they were fetched: they have been removed or replaced
            meanwhile, and the search should be made again.
    """

    deepest = PAGE
    patience = 12.0  # deeper searches would take thousands of records here for the sake of a few

    def __init__(self, server: Server, layout: Schema, view: View, at_once: AtOnce, strong: bool) -> None:
        self._server, self._layout, self._view, self._at_once, self._strong = server, layout, view, at_once, strong
        self._step = max(64, min(4096, _VECTOR_BYTES // (4 * (layout.config.dim + layout.config.classes))))
        self.missed = 0
        self._keys = np.empty(0, np.int64)  # sorted
        self._rows = np.empty(0, np.int64)  # of `_keys`
        self._cell_rows: dict[int, NDArray[np.int64]] = {}
        self._held = 0
        self._columns: list[NDArray[Any]] = [
            np.zeros(1, np.int64),
            np.zeros((1, layout.config.classes), np.float32),
            np.zeros((1, layout.config.bits // 8), np.uint8),
            np.zeros((1, layout.config.dim), np.float32),
            np.zeros(1, np.int32),
        ]  # with room for more than are held, and at least for one
        self._known = np.argsort(view.cells.numbers)  # positions of cells in order of their numbers

    # records

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
        """(n,) int32."""
        return self._column(4)

    def probabilities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Probabilities of rows (any shape): an (M, C) matrix, and where in it each of them is."""
        return self._column(1), rows

    def features(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features of rows (any shape): an (M, D) matrix, and where in it each of them is."""
        return self._column(3), rows

    def _column(self, place: int) -> NDArray[Any]:
        """What is held of a column; one row where nothing is, so that row -1 is something."""
        return self._columns[place][: max(1, self._held)]

    def release_pages(self, min_interval: float = 0) -> None:
        """Nothing to let go of."""

    # engine

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """The nearest codes in the cells of each query: see `Engine`."""
        keys = np.full((len(codes), depth), -2, np.int64)  # -1 is a key

        def ask(group: list[int]) -> None:
            for query, found in zip(
                group, self._nearest(codes[group], self._condition(cells[group]), depth), strict=True
            ):
                keys[query, : len(found)] = found

        self._at_once(ask, list(_groups(cells)))
        found = keys != -2
        self._fetch(np.unique(keys[found]))
        rows = np.full(keys.shape, -1, np.int64)
        rows[found] = self._rows_of(keys[found])
        # Nearest first, and what has gone missing not in between.
        rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable"), axis=1)
        return Nearest(rows, np.where(rows < 0, NO_RECORD, hamming(codes[:, None], self.codes[rows])))

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows in (m,) cells: see `Engine`.

        Raises:
            InvalidParameterError: they are too many to take here.
        """
        wanted = [cell for cell in cells.tolist() if cell not in self._cell_rows]
        if wanted:
            condition = self._condition(np.array([wanted])) or "id >= -1"
            count = self._server.count(self._layout.name, condition, strong=self._strong) + self._held
            size = count * 4 * (self._layout.config.dim + self._layout.config.classes)
            if size > MAX_BYTES:
                raise TooManyError(
                    f"this search would take {count} records, {size / 2**30:.1f} GiB, from the server to rank them: "
                    "raise the cutoff, or ask for a shorter shortlist"
                )
            key = self._layout.key
            fields = ["cell", *([key] if key != "id" else [])]
            pages = list(self._server.pages(self._layout.name, "id", condition, fields, strong=self._strong))
            keys = np.concatenate([np.empty(0, np.int64), *(page[key] for page in pages)])
            numbers = np.concatenate([np.empty(0, np.int64), *(page["cell"] for page in pages)])
            self._fetch(np.unique(keys))
            rows = self._rows_of(keys)
            numbers, rows = numbers[rows >= 0], rows[rows >= 0]
            order = np.argsort(numbers, kind="stable")
            starts = np.searchsorted(numbers[order], self._view.cells.numbers[wanted], side="left")
            stops = np.searchsorted(numbers[order], self._view.cells.numbers[wanted], side="right")
            for cell, start, stop in zip(wanted, starts.tolist(), stops.tolist(), strict=True):
                self._cell_rows[cell] = rows[order[start:stop]]
        found = [self._cell_rows[cell] for cell in cells.tolist()]
        rows = np.concatenate([np.empty(0, np.int64), *found])
        which = np.repeat(np.arange(len(cells)), [len(part) for part in found])
        once = np.unique(rows, return_index=True)[1]  # a record that has moved between two requests is in two cells
        return rows[once], which[once]

    def _condition(self, cells: NDArray[np.int64]) -> str:
        """Records in any of these cells, -1 for none."""
        kept = np.unique(cells)
        kept = kept[kept >= 0]
        known = self._view.cells
        if len(kept) >= _ALL * len(known):
            return self._view.condition()
        condition = among("cell", known.numbers[kept])
        if self._layout.partition_key:
            condition = f"{among('dominant', np.unique(known.dominant()[kept]))} and {condition}"
        return self._view.condition(condition)

    def _nearest(self, codes: NDArray[np.uint8], condition: str, depth: int) -> list[NDArray[np.int64]]:
        """Keys of the records nearest to each of these codes that meet a condition."""
        data: Any = [bytes(code) for code in codes]
        if self._layout.kind == "floats":
            data = list(np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1)
        key = self._layout.key
        found = self._server.read(
            "search", self._layout.name, strong=self._strong, data=data, anns_field="code", filter=condition,
            limit=depth, search_params={"metric_type": self._layout.metric, "params": {}},
            output_fields=[] if key == "id" else [key],
        )  # fmt: skip
        if key == "id":
            return [np.array(hits.ids, np.int64) for hits in found]
        return [np.array([hit["entity"][key] for hit in list.__iter__(hits)], np.int64) for hits in found]

    def _fetch(self, keys: NDArray[np.int64]) -> None:
        """Get the records with these different keys, of those that are not here."""
        keys = keys[~np.isin(keys, self._keys, assume_unique=True)]
        layout = self._layout
        fields = ["id", *layout.vectors] + (["row"] if layout.key == "row" else [])

        def get(part: NDArray[np.int64]) -> Any:
            return self._server.read(
                "query", layout.records, strong=self._strong, filter=among(layout.key, part), output_fields=fields
            )

        steps = range(0, len(keys), self._step)
        parts = [
            part for part in self._at_once(get, [keys[start : start + self._step] for start in steps]) if len(part)
        ]
        got = np.concatenate([np.empty(0, np.int64), *(integers(part, layout.key) for part in parts)])
        for part in parts:
            columns = layout.columns(part)
            self._hold([to_ids(integers(part, "id")), *columns, self._cells_of(columns[0])])
        fresh, first = np.unique(got, return_index=True)
        all_keys = np.concatenate([self._keys, fresh])
        order = np.argsort(all_keys)
        self._rows = np.concatenate([self._rows, self._held - len(got) + first])[order]
        self._keys = all_keys[order]
        self.missed += int(np.count_nonzero(~np.isin(keys, fresh)))

    def _cells_of(self, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
        """(n,) positions of records' cells. A cell that the view does not know yet is replaced by its neighbour, which
        can only change how ties are settled."""
        known = self._view.cells.numbers[self._known]
        numbers, _ = cell_numbers(self._layout.config, probabilities)
        return self._known[np.minimum(np.searchsorted(known, numbers), len(known) - 1)]

    def _hold(self, columns: list[NDArray[Any]]) -> None:
        """Append records."""
        held = self._held + len(columns[0])
        for place, (old, new) in enumerate(zip(self._columns, columns, strict=True)):
            if held > len(old):
                grown = np.empty((max(held, 2 * len(old)), *old.shape[1:]), old.dtype)
                grown[: self._held] = old[: self._held]
                self._columns[place] = old = grown
            old[self._held : held] = new
        self._held = held

    def _rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) rows of keys, -1 for those that are not here."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._rows[at], -1)


def _groups(cells: NDArray[np.int64]) -> Iterator[list[int]]:
    """Queries that go into one request, neighbours that keep nearly the same of their (nq, w) cells."""
    group: list[int] = []
    union: set[int] = set()
    widest = 0
    for query, row in enumerate(cells):
        own = set(row[row >= 0].tolist())
        if not own:
            continue
        joined = union | own
        if group and (len(joined) > _LOOSE_GROUP * max(widest, len(own)) or len(group) == _LARGE_GROUP):
            yield group
            group, joined, widest = [], own, 0
        group.append(query)
        union, widest = joined, max(widest, len(own))
    if group:
        yield group
