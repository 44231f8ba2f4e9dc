"""Records of a `MilvusIndex` by id, by page and by number: what is read without searching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError, InvalidEncodingsError, ServerError
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.milvus.connection import PAGE, Server, TooLargeError, among, integers
from semcut.indexes.milvus.schema import Schema, to_ids, to_keys
from semcut.indexes.milvus.server_search import AtOnce
from semcut.indexes.milvus.shared_state import SharedState

IDS = 4096
"""Ids in one condition."""

_CELLS = 100
"""Cells in one condition."""

_ALL = "id >= -1"
ATTEMPTS = 5
"""To read records that others replace meanwhile."""


class Reader:
    """Reads what the catalogue lets be seen.

    Args:
        server, layout, catalogue: of the index.
        at_once: runs a function for each of some items, some of them at the same time.
        strong: whether the newest state is asked for.
    """

    def __init__(self, server: Server, layout: Schema, catalogue: SharedState, at_once: AtOnce, strong: bool) -> None:
        self._server, self._layout, self._catalogue = server, layout, catalogue
        self._at_once, self._strong = at_once, strong

    def count(self, condition: str = _ALL) -> int:
        """How many records meet a condition."""
        visible = self._catalogue.view().condition(condition)
        return self._server.count(self._layout.name, visible, strong=self._strong)

    def ids(self) -> NDArray[np.int64]:
        """(records,) int64: all ids, in ascending order."""
        return np.sort(to_ids(self._column("id")))

    def cells(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(cells,) the numbers of the cells that hold records, and (cells,) how many."""
        numbers, counts = np.unique(self._column("cell"), return_counts=True)
        return numbers, counts.astype(np.int64)

    def largest(self) -> int:
        """The largest id, -1 if there is none. Servers do not tell: found by halving where it is."""
        if self.count("id in [-1]"):
            return int(np.iinfo(np.int64).max)
        low, high = -1, 2**63 - 2
        while low < high:
            middle = (low + high + 1) // 2
            if self.count(f"id >= {middle}"):
                low = middle
            else:
                high = middle - 1
        return low

    def contains(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) whether there are records with these ids."""
        rows, hidden = self.rows_of(ids)
        return (rows >= 0) & ~hidden

    def members(self, cells: NDArray[np.int64], limit: int, in_order: bool) -> NDArray[np.int64]:
        """Ids of records in the cells with these numbers: (n,) int64, at most `limit`; of the first cells if asked."""
        view, found = self._catalogue.view(), np.empty(0, np.int64)
        start, step = 0, 1 if in_order else _CELLS
        while start < len(cells) and len(found) < limit:
            rows = self._server.read(
                "query", self._layout.name, filter=view.condition(among("cell", cells[start : start + step])),
                output_fields=["id"], limit=min(PAGE, limit - len(found)), strong=self._strong,
            )  # fmt: skip
            found = np.concatenate([found, to_ids(integers(rows, "id"))])
            start, step = start + step, min(2 * step, _CELLS)
        return found

    def _column(self, field: str) -> NDArray[np.int64]:
        """An integer field of all records."""
        condition = self._catalogue.view().condition(_ALL)
        pages = self._server.pages(self._layout.name, "id", condition, [field], strong=self._strong)
        return np.concatenate([np.empty(0, np.int64), *(page[field] for page in pages)])

    def rows_of(self, ids: NDArray[np.int64], *, strong: bool = False) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(n,) the row of each id, -1 if there is none, and (n,) whether it is of a batch that does not count."""
        view = self._catalogue.view(strong=strong)
        wanted = np.unique(ids[ids >= 0])

        def find(part: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            rows = self._server.read(
                "query", self._layout.name, filter=among("id", to_keys(part)), output_fields=["id", "row"],
                strong=strong or self._strong,
            )  # fmt: skip
            return to_ids(integers(rows, "id")), integers(rows, "row")

        parts = self._at_once(find, [wanted[start : start + IDS] for start in range(0, len(wanted), IDS)])
        found = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
        rows = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
        order = np.argsort(found)
        found, rows = found[order], rows[order]
        result = np.full(len(ids), -1, np.int64)
        if len(found):
            at = np.minimum(np.searchsorted(found, ids), len(found) - 1)
            result = np.where(found[at] == ids, rows[at], -1)
        hidden = np.zeros(len(ids), bool)
        for first, last in view.hidden:
            hidden |= (result >= first) & (result <= last)
        return result, hidden

    def get(self, ids: NDArray[np.int64]) -> Encodings:
        """The records with these ids, in this order.

        Raises:
            UnknownIdError: naming ids that are not there.
            ServerError: others change these records faster than they can be read.
        """
        if not len(ids):
            return _joined([], self._layout.config)
        for attempt in range(ATTEMPTS):  # one may be replaced while it is looked for
            rows, hidden = self.rows_of(ids, strong=attempt > 0)
            refuse_unknown(ids, np.where(hidden, -1, rows))
            found = self._fetched(np.unique(rows if self._layout.key == "row" else to_keys(ids)), strong=attempt > 0)
            assert found.ids is not None
            order = np.argsort(found.ids)
            at = np.minimum(np.searchsorted(found.ids[order], ids), len(found) - 1)
            if len(found) and np.array_equal(found.ids[order][at], ids):
                return found[order[at]]
        raise busy()

    def _fetched(self, keys: NDArray[np.int64], *, strong: bool = False) -> Encodings:
        """The records with these keys, in any order."""
        layout = self._layout

        def fetch(part: NDArray[np.int64]) -> Encodings:
            try:
                rows = self._server.read(
                    "query", layout.records, filter=among(layout.key, part), strong=strong or self._strong,
                    output_fields=["id", "flags", "uri", *layout.vectors],
                )  # fmt: skip
            except TooLargeError:  # uris may be long
                if len(part) == 1:
                    raise
                return _joined([fetch(half) for half in np.array_split(part, 2)], layout.config)
            try:
                return layout.encodings(rows)
            except InvalidEncodingsError as error:
                raise DamagedIndexError(f"the server gave what is no record of this index: {error}") from None

        step = layout.batch
        parts = self._at_once(fetch, [keys[start : start + step] for start in range(0, len(keys), step)])
        return _joined(parts, self._layout.config)

    def iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        """In order of ids, 16,384 at a time at most. Changes that are made meanwhile may show or not."""
        fields = [] if self._layout.key == "id" else ["row"]
        for condition in (f"id > {after}", "id in [-1]") if after < np.iinfo(np.int64).max else ():
            pages = self._server.pages(
                self._layout.name, "id", self._catalogue.view().condition(condition), fields, size=batch_size,
                strong=self._strong,
            )  # fmt: skip
            for page in pages:
                ids = to_ids(page["id"])
                found = self._fetched(page[self._layout.key])
                assert found.ids is not None
                late = ids[~np.isin(ids, found.ids)]  # removed or replaced since the page was made
                if len(late):
                    found = _joined([found, self.get(late[self.contains(late)])], self._layout.config)
                if found.ids is not None and len(found):
                    yield found[np.argsort(found.ids)]


def busy() -> ServerError:
    """The error of reading what others write all the time."""
    return ServerError("other clients change these records faster than they can be read: try again")


def _joined(parts: list[Encodings], config: IndexConfig) -> Encodings:
    """All records of some batches, with uris where any has them."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Encodings(
            probabilities=np.empty((0, config.classes), np.float32),
            codes=np.empty((0, config.bits // 8), np.uint8),
            features=np.empty((0, config.dim), np.float32),
            ids=np.empty(0, np.int64),
        )
    whole = Encodings.concatenate(parts)
    if all(part.uris is None for part in parts):
        return whole
    uris = [uri for part in parts for uri in (part.uris or [None] * len(part))]
    return replace(whole, uris=uris)
