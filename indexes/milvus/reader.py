"""Read records of a `MilvusIndex` without searching: by id, by cell, or page by page; and count them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.config import IndexConfig
from semcut.indexes.description import IndexStats
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError, InvalidEncodingsError, ServerError
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.milvus.connection import PAGE, ConcurrentMap, RequestTooLargeError, ServerConnection, is_in
from semcut.indexes.milvus.key_field import read_keys
from semcut.indexes.milvus.pymilvus_internals import int_column
from semcut.indexes.milvus.schema import Schema, to_ids, to_keys
from semcut.indexes.milvus.server_filter import EVERY_RECORD
from semcut.indexes.milvus.server_selection import server_selection
from semcut.indexes.milvus.shared_state import SharedState
from semcut.indexes.pruning.cells import Cells

IDS_PER_FILTER = 4096

ATTEMPTS = 5
"""The largest number of attempts to read records that other clients replace in the meantime."""

_CELLS_PER_FILTER = 100
_TRUSTED_ATTEMPT = 2  # the second read of the newest state says what is missing: an upsert may hide from the first one
_PAUSE = 0.05  # seconds between these two


class StoredIds(NamedTuple):
    """What is stored for n ids.

    Attributes:
        rows: (n,) int64, the `row` of each id, -1 for an unknown id.
        visible: (n,) int64, as `rows`, and -1 for a row that is hidden.
        keys: the key of each visible id, None for the others, and where the index has no keys.
    """

    rows: NDArray[np.int64]
    visible: NDArray[np.int64]
    keys: list[str | None]


class Reader:
    """The reader of the visible records of an index.

    Args:
        server, schema, shared: the connection, the schema and the shared state of the index.
        concurrently: sends several requests at the same time.
        strong: whether to see everything that any client has written.
    """

    def __init__(
        self,
        server: ServerConnection,
        schema: Schema,
        shared: SharedState,
        concurrently: ConcurrentMap,
        strong: bool,
    ) -> None:
        self._server, self._schema, self._shared = server, schema, shared
        self._concurrently, self._strong = concurrently, strong

    def count(self, condition: str = EVERY_RECORD) -> int:
        """Return the number of records that meet a filter."""
        visible = self._shared.view().visible(condition)
        return self._server.count(self._schema.name, visible, strong=self._strong)

    def ids(self) -> NDArray[np.int64]:
        """Return all ids in ascending order: (records,) int64."""
        return np.sort(to_ids(self._column("id")))

    def matching(self, selection: Selection) -> NDArray[np.int64]:
        """Return the ids of the records of a selection in ascending order: (n,) int64."""
        view, schema = self._shared.view(), self._schema
        chosen = server_selection(self._server, schema, selection, self._concurrently, self._strong)

        def find(condition: str) -> NDArray[np.int64]:
            pages = self._server.pages(schema.name, "id", view.visible(condition), [], strong=self._strong)
            return np.concatenate([np.empty(0, np.int64), *(page["id"] for page in pages)])

        parts = self._concurrently(find, chosen.conditions())
        return np.sort(to_ids(np.concatenate([np.empty(0, np.int64), *parts])))

    def _cell_sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the cells that are not empty, and their numbers of records: two (cells,) int64."""
        numbers, counts = np.unique(self._column("cell"), return_counts=True)
        return numbers, counts.astype(np.int64)

    def stats(self, normalised: bool) -> IndexStats:
        """Return the size of the index, see `MilvusIndex.stats`; the caller knows whether features are normalised."""
        config = self._schema.config
        numbers, counts = self._cell_sizes()
        records = int(counts.sum())
        widths = {"ids": 8, "codes": config.bits // 8, "probabilities": 4 * config.classes, "features": 4 * config.dim}
        return IndexStats(
            records=records,
            removed=0,
            partitions=replace(Cells.empty(config), numbers=numbers, sizes=counts).partition_sizes().tolist(),
            cells=len(numbers),
            normalised=normalised,
            column_bytes={name: width * records for name, width in widths.items()},
        )

    def largest_id(self) -> int:
        """Return the largest id, -1 if there is no record.

        Servers have no query for a maximum, so a bisection counts the records above an id, 64 times at most.
        """
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
        """Return whether there are records with these ids: (n,) int64 to (n,) bool."""
        return self.stored(ids).visible >= 0

    def keys(self, ids: NDArray[np.int64]) -> list[str | None]:
        """Return the keys of the records with (n,) int64 ids, None for an id that is not in the index.

        An id that is missing is looked for in the newest state, as in `get`.
        """
        found = self.stored(ids)
        if (found.visible < 0).any():
            found = self.stored(ids, strong=True)
        return found.keys

    def members(self, cells: NDArray[np.int64], limit: int, in_order: bool) -> NDArray[np.int64]:
        """Return ids of records in the cells with these numbers: (n,) int64.

        Args:
            cells: (m,) numbers of cells.
            limit: the largest number of ids.
            in_order: whether records of the first cells are returned first.
        """
        view, found = self._shared.view(), np.empty(0, np.int64)
        start, step = 0, 1 if in_order else _CELLS_PER_FILTER
        while start < len(cells) and len(found) < limit:
            rows = self._server.read(
                "query", self._schema.name, filter=view.visible(is_in("cell", cells[start : start + step])),
                output_fields=["id"], limit=min(PAGE, limit - len(found)), strong=self._strong,
            )  # fmt: skip
            found = np.concatenate([found, to_ids(int_column(rows, "id"))])
            start, step = start + step, min(2 * step, _CELLS_PER_FILTER)
        return found

    def _column(self, field: str) -> NDArray[np.int64]:
        """Return an integer field of all records."""
        visible = self._shared.view().visible(EVERY_RECORD)
        pages = self._server.pages(self._schema.name, "id", visible, [field], strong=self._strong)
        return np.concatenate([np.empty(0, np.int64), *(page[field] for page in pages)])

    def stored(self, ids: NDArray[np.int64], *, strong: bool = False) -> StoredIds:
        """Find the rows, and the keys, of (n,) int64 ids."""
        view, schema = self._shared.view(strong=strong), self._schema
        wanted = np.unique(ids[ids >= 0])

        def find(part: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
            rows = self._server.read(
                "query", schema.name, filter=is_in("id", to_keys(part)),
                output_fields=["id", "row", *schema.key_field], strong=strong or self._strong,
            )  # fmt: skip
            found = to_ids(int_column(rows, "id"))
            with _damaged():
                return found, int_column(rows, "row"), read_keys(rows, found) if schema.config.string_ids else []

        slices = [wanted[start : start + IDS_PER_FILTER] for start in range(0, len(wanted), IDS_PER_FILTER)]
        parts = self._concurrently(find, slices)
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
        visible = np.where(hidden, -1, result)
        keys: list[str | None] = [None] * len(ids)
        if schema.config.string_ids:
            key_of = {number: key for part in parts for number, key in zip(part[0].tolist(), part[2], strict=True)}
            keys = [key_of[number] if row >= 0 else None for number, row in zip(ids.tolist(), visible, strict=True)]
        return StoredIds(result, visible, keys)

    def get(self, ids: NDArray[np.int64], *, skip: bool = False) -> Encodings:
        """Return the records with these ids, in this order.

        Args:
            ids: (n,) int64.
            skip: leave out ids that are not in the index.

        Raises:
            UnknownIdError: ids are not in the index, and `skip` is off; the message names them.
            ServerError: other clients change these records faster than they can be read.
        """
        for attempt in range(ATTEMPTS):  # a record may be replaced between finding its row and fetching it
            strong = attempt > 0
            rows = self.stored(ids, strong=strong).visible
            if (rows < 0).any():
                if attempt < _TRUSTED_ATTEMPT:  # servers may show a record that is being replaced as missing
                    time.sleep(_PAUSE * attempt)
                    continue
                if not skip:
                    refuse_unknown(ids, rows)
                ids, rows = ids[rows >= 0], rows[rows >= 0]
            if not len(ids):
                return _joined([], self._schema.config)
            keys = np.unique(rows if self._schema.record_key == "row" else to_keys(ids))
            found = self._fetch(keys, strong=strong)
            assert found.ids is not None
            order = np.argsort(found.ids)
            at = np.minimum(np.searchsorted(found.ids[order], ids), len(found) - 1)
            if len(found) and np.array_equal(found.ids[order][at], ids):
                return found[order[at]]
        raise contention_error()

    def _fetch(self, keys: NDArray[np.int64], *, strong: bool = False) -> Encodings:
        """Return the records with these keys, in any order."""
        schema = self._schema

        def fetch(part: NDArray[np.int64]) -> Encodings:
            try:
                rows = self._server.read(
                    "query", schema.record_collection, filter=is_in(schema.record_key, part),
                    output_fields=schema.record_fields, strong=strong or self._strong,
                )  # fmt: skip
            except RequestTooLargeError:  # because of long uris
                if len(part) == 1:
                    raise
                return _joined([fetch(half) for half in np.array_split(part, 2)], schema.config)
            with _damaged():
                return schema.encodings(rows)

        step = schema.rows_per_call
        parts = self._concurrently(fetch, [keys[start : start + step] for start in range(0, len(keys), step)])
        return _joined(parts, schema.config)

    def iterate(self, batch_size: int, after: int) -> Iterator[Encodings]:
        """Yield the records with ids above `after`, in order of ids, in batches of at most 16,384 records.

        Changes made in the meantime may or may not be seen.
        """
        fields = [] if self._schema.record_key == "id" else ["row"]
        # The largest id is stored as -1, so it needs a filter of its own, which comes last.
        for condition in (f"id > {after}", "id in [-1]") if after < np.iinfo(np.int64).max else ():
            visible = self._shared.view().visible(condition)
            pages = self._server.pages(
                self._schema.name, "id", visible, fields, size=batch_size, strong=self._strong
            )  # fmt: skip
            for page in pages:
                ids = to_ids(page["id"])
                found = self._fetch(page[self._schema.record_key])
                assert found.ids is not None
                missing = ids[~np.isin(ids, found.ids)]  # removed or replaced since the page was read
                if len(missing):
                    found = _joined([found, self.get(missing, skip=True)], self._schema.config)
                if found.ids is not None and len(found):
                    yield found[np.argsort(found.ids)]


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    """Convert the error for a row that semcut has not written."""
    try:
        yield
    except InvalidEncodingsError as error:
        raise DamagedIndexError(f"the server has a row that is no record of this index: {error}") from None


def contention_error() -> ServerError:
    """Return the error for a read that other clients have disturbed in every attempt."""
    return ServerError("other clients change these records faster than they can be read: try again")


def _joined(parts: list[Encodings], config: IndexConfig) -> Encodings:
    """Concatenate batches, with uris if any of them has uris."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Encodings(
            probabilities=np.empty((0, config.classes), np.float32),
            codes=np.empty((0, config.bits // 8), np.uint8),
            features=np.empty((0, config.dim), np.float32),
            ids=np.empty(0, np.int64),
            attributes={name: [] for name in config.attributes} or None,
            keys=[] if config.string_ids else None,
        )
    whole = Encodings.concatenate(parts)
    if all(part.uris is None for part in parts):
        return whole
    uris = [uri for part in parts for uri in (part.uris or [None] * len(part))]
    return replace(whole, uris=uris, any_mass=True)
