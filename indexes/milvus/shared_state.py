"""Read and publish the state that all clients of an index share: bounds of cells, and batches that are being written.

Milvus has no transactions: if two clients read a row, change it and write it back, one of the changes is lost. So no
row of the shared collection (see `shared_rows`) is ever changed by two clients.

**Bounds stay valid** for all records, even if several clients write: before a record is written, its bounds are in an
acknowledged row, and a row of bounds is deleted only after the same client has written a row with wider bounds. After a
removal, bounds may be wider than necessary.

**Every client prunes by valid bounds.** Before each search a client reads the rows of the writers, which is cheap. If
their counts of bounds differ from those that the client knows, it reads the new bounds in the newest state until the
counts no longer change. The rows of the writers that a client reads may be as stale as Milvus's bounded staleness
allows, 5 s unless the server is configured otherwise. During that time, a search may miss a record that another client
has added, and may see a batch in part. A client sees its own records at once. With `strong=True` a client always reads
the newest state, and reads the rows of the writers again after a search: if a batch was begun or finished in between,
the search is repeated.

**Added batches are whole.** While a batch is being added, the row of its writer names the rows of the batch, and every
reader leaves these out. If the client crashes, the rows stay hidden; adding the same records again replaces them. The
next writer deletes the hidden rows of a client that has not written for more than a day.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import DamagedIndexError, NotAnIndexError
from semcut.indexes.milvus.connection import PAGE, ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import float_column, float_vectors, int_column, text_column
from semcut.indexes.milvus.schema import Schema
from semcut.indexes.milvus.server_filter import joined
from semcut.indexes.milvus.shared_rows import (
    IDENTITY,
    UNNORMALISED_FEATURES,
    WRITER,
    Range,
    WriterState,
    bounds_row,
    masses_of,
    shared_collection_name,
    shared_row,
)
from semcut.indexes.pruning.cells import Cells, KeptCells

_CALL_BYTES = 1 << 23  # bytes of envelopes in one call
_ABANDONED_AFTER = 24 * 3600  # seconds without a write after which a client is considered to have crashed
_DISCARDED_RANGES = 100  # ranges of rows that stay hidden after their batches were deleted, at most


class ServerCells(Cells):
    """Cells whose records are on a server and are not counted: every size is 1, and every fetched record is checked."""

    def prune(self, weights: NDArray[np.float64], cutoff: float) -> KeptCells:
        """Prune as `Cells.prune` does, but no cell is certain, and `codes` are -1."""
        kept = super().prune(weights, cutoff)
        return replace(kept, certain=np.zeros_like(kept.certain), codes=np.full_like(kept.codes, -1))


@dataclass(frozen=True, eq=False)
class SharedView:
    """The shared state as one client knows it at one moment.

    Attributes:
        cells: the cells with their bounds.
        hidden: ranges (first, last) of rows that readers leave out.
        unnormalised: whether there may be features that are not L2-normalised.
        changes: the count of changes of every other writer, by key.
    """

    cells: ServerCells
    hidden: tuple[Range, ...]
    unnormalised: bool
    changes: dict[int, int]

    def visible(self, condition: str = "") -> str:
        """Return the filter for rows that meet a condition, if one is given, and are not hidden."""
        parts = [condition] if condition else []
        parts += [f"row < {first} or row > {last}" for first, last in self.hidden]
        return joined("and", parts) if parts else ""


class SharedState:
    """The shared state as one client knows it, and the row that this client publishes. Threads may share it.

    Args:
        server, schema: the connection and the schema of the index.
        strong: whether `view` always requests the newest state.
    """

    def __init__(self, server: ServerConnection, schema: Schema, strong: bool) -> None:
        self._server, self._schema, self._strong = server, schema, strong
        self._collection = shared_collection_name(schema.name)
        # Not locked while the writers' rows are read: if the server hangs, threads wait for it together, not in turn.
        self._lock = threading.RLock()
        self._identity = ""
        self._cells, self._unnormalised = _server_cells(Cells.empty(schema.config)), False
        self._known_rows: set[int] = set()  # keys of rows of bounds
        self._bounds_counts: dict[int, int] = {}  # per other writer: the field `bounds` of its row
        self._my_key = secrets.randbits(62)
        self._my_changes = self._my_bounds_count = 0
        self._joined = False
        self._batch: Range | None = None
        self._discarded: list[Range] = []
        self._my_bounds: dict[int, int] = {}  # per cell: the key of the row of bounds that this client wrote last
        self._superseded: list[int] = []  # keys of rows of bounds that this client has replaced by wider ones

    def view(self, *, strong: bool = False) -> SharedView:
        """Return the shared state; with `strong`, the newest state.

        Raises:
            NotAnIndexError: the index was dropped.
        """
        writers = self._writers(strong=strong)
        with self._lock:
            while (counts := {key: state["bounds"] for key, state in writers.items()}) != self._bounds_counts:
                self._read_new_bounds()
                self._bounds_counts = counts
                writers = self._writers(strong=True)
            hidden = {(first, last) for state in writers.values() for first, last in state["hidden"]}
            hidden.update(self._my_hidden())
            return SharedView(self._cells, tuple(sorted(hidden)), self._unnormalised, _changes(writers))

    def unchanged(self, view: SharedView) -> bool:
        """Return whether no other client has begun or finished a change since the view was read."""
        return _changes(self._writers(strong=True)) == view.changes

    def version(self) -> str:
        """Return a text that differs after every change that any client has made."""
        counts = _changes(self._writers(strong=True, mine=True))
        return f"{zlib.crc32(json.dumps(sorted(counts.items())).encode()):08x}"

    def _writers(self, *, strong: bool, mine: bool = False) -> dict[int, WriterState]:
        """Read the rows of the writers, by key; without this client's own row unless `mine`."""
        rows = self._server.read(
            "query", self._collection, filter=f"cell in [{WRITER},{IDENTITY}]", output_fields=["key", "cell", "text"],
            limit=PAGE, strong=strong or self._strong or not self._identity, bounded=True,
        )  # fmt: skip
        kinds, texts = int_column(rows, "cell").tolist(), text_column(rows, "text")
        identity = "".join(text for text, kind in zip(texts, kinds, strict=True) if kind == IDENTITY)
        if not identity or self._identity not in ("", identity):
            raise NotAnIndexError("the index was dropped, or dropped and created again: open it again")
        self._identity = identity
        try:
            return {
                key: json.loads(text)
                for key, text, kind in zip(int_column(rows, "key").tolist(), texts, kinds, strict=True)
                if kind == WRITER and (mine or key != self._my_key)
            }
        except ValueError:
            raise DamagedIndexError("the shared rows of the index cannot be read: migrate it again") from None

    def _read_new_bounds(self) -> None:
        """Read the rows of bounds that this client does not know yet, in the newest state."""
        condition, fresh = f"cell >= 0 or cell in [{UNNORMALISED_FEATURES}]", [0]
        while fresh:  # until every listed row is known: other clients may replace rows by wider ones in the meantime
            fresh = []
            for page in self._server.pages(self._collection, "key", condition, ["cell"], strong=True):
                self._unnormalised |= bool((page["cell"] == UNNORMALISED_FEATURES).any())
                fresh += [key for key in page["key"][page["cell"] >= 0].tolist() if key not in self._known_rows]
            cells: Cells = self._cells
            for start in range(0, len(fresh), self._rows_per_call):
                rows = self._server.read(
                    "query", self._collection, filter=is_in("key", fresh[start : start + self._rows_per_call]),
                    output_fields=["key", "cell", "low", "text", "envelope"], strong=True,
                )  # fmt: skip
                envelopes = float_vectors(rows, "envelope", self._schema.config.classes)
                masses = masses_of(text_column(rows, "text"))
                cells = cells.widened(int_column(rows, "cell"), float_column(rows, "low"), envelopes, masses)
                self._known_rows.update(int_column(rows, "key").tolist())
            self._cells = _server_cells(cells)

    @property
    def _rows_per_call(self) -> int:
        return max(16, min(4096, _CALL_BYTES // (4 * self._schema.config.classes)))

    # writing

    def widen(self, wider: Cells, unnormalised: bool) -> None:
        """Publish bounds that include those of these cells, and whether some features are not L2-normalised."""
        with self._lock:
            self._join()
            before = self._cells
            after = before.widened(wider.numbers, wider.lows, wider.envelopes, wider.masses)
            changed = np.ones(len(after), bool)
            known = len(before)
            changed[:known] = (after.lows[:known] != before.lows) | (after.envelopes[:known] != before.envelopes).any(1)
            changed[:known] |= after.masses[:known] != before.masses
            rows = [self._row(**bounds_row(after, at)) for at in np.flatnonzero(changed).tolist()]
            if unnormalised and not self._unnormalised:
                rows.append(self._row(cell=UNNORMALISED_FEATURES))
            if not rows:
                return
            for start in range(0, len(rows), self._rows_per_call):
                self._server.call("upsert", self._collection, rows[start : start + self._rows_per_call])
            self._my_bounds_count += 1
            self._publish()
            for row in rows:
                self._known_rows.add(row["key"])
                if row["cell"] in self._my_bounds:
                    self._superseded.append(self._my_bounds[row["cell"]])
                self._my_bounds[row["cell"]] = row["key"]
            self._cells, self._unnormalised = _server_cells(after), self._unnormalised or unnormalised

    def begin_batch(self, first: int, last: int) -> None:
        """Hide the rows from first to last: until `finish_batch`, or for good after `discard_batch`."""
        with self._lock:
            self._join()
            self._batch = first, last
            self._publish()

    def finish_batch(self) -> None:
        """Show the rows of the batch."""
        with self._lock:
            batch, self._batch = self._batch, None
            try:
                self._publish()
            except BaseException:
                self._batch = batch  # until `unfinished_batch` finds out whether the server has the change
                raise

    def discard_batch(self) -> None:
        """Hide the rows of the batch for good, after they were deleted: a delayed write may create one again."""
        with self._lock:
            if self._batch is not None:
                self._discarded = [*self._discarded, self._batch][-_DISCARDED_RANGES:]
                self._batch = None
                self._publish()

    def unfinished_batch(self) -> Range | None:
        """Return the rows of the batch that this client has begun and not finished, as the server knows it."""
        with self._lock:
            if self._batch is not None:
                mine = self._writers(strong=True, mine=True).get(self._my_key)
                # JSON has lists in place of tuples.
                if mine is not None and list(self._batch) not in [list(rows) for rows in mine["hidden"]]:
                    self._batch = None  # it was finished, and only the server's answer was lost
            return self._batch

    def count_change(self) -> None:
        """Publish that records changed within the known bounds, so that `version` changes."""
        with self._lock:
            self._join()
            self._publish()

    def delete_superseded(self) -> None:
        """Delete the rows of bounds that this client has replaced by wider ones."""
        with self._lock:
            while self._superseded:
                keys = self._superseded[-PAGE:]
                self._server.delete(self._collection, is_in("key", keys), visible=False)
                del self._superseded[-PAGE:]

    def leave(self) -> None:
        """Publish that this client has finished writing, so that others may delete its row."""
        with self._lock:
            if self._joined and self._batch is None:
                self.delete_superseded()
                self._publish(left=True)
                self._joined = False

    def _join(self) -> None:
        """Read the shared state before a change. Before the first change, also delete the rows of crashed clients."""
        self.view(strong=not self._joined)
        if self._joined:
            return
        # From now on other clients read this client's row, so the rows of clients that have left are no longer needed.
        self._publish()
        self._joined = True
        now, leftover = time.time(), []
        records = ((self._schema.name, "id"), (self._schema.record_collection, self._schema.record_key))
        for key, state in self._writers(strong=True).items():
            abandoned = now - state["at"] > _ABANDONED_AFTER
            if abandoned:
                for first, last in state["hidden"]:
                    for collection, primary in records:
                        self._server.delete_matching(collection, primary, f"row >= {first} and row <= {last}")
            if abandoned or (state["left"] and not state["hidden"]):
                leftover.append(key)
        if leftover:
            self._server.delete(self._collection, is_in("key", leftover), visible=False)

    def _my_hidden(self) -> list[Range]:
        return self._discarded + ([self._batch] if self._batch is not None else [])

    def _publish(self, left: bool = False) -> None:
        """Write this client's own row."""
        self._my_changes += not left
        state: WriterState = {
            "changes": self._my_changes,
            "bounds": self._my_bounds_count,
            "hidden": self._my_hidden(),
            "at": int(time.time()),
            "left": left,
        }
        row = self._row(key=self._my_key, cell=WRITER, text=json.dumps(state))
        self._server.call("upsert", self._collection, [row])

    def _row(self, **values: Any) -> dict[str, Any]:
        return shared_row(self._schema.config.classes, **values)


def _changes(writers: dict[int, WriterState]) -> dict[int, int]:
    """Return the count of changes of every writer, by key."""
    return {key: state["changes"] for key, state in writers.items()}


def _server_cells(cells: Cells) -> ServerCells:
    sizes = np.ones(len(cells), np.int64)
    return ServerCells(cells.config, cells.numbers, sizes, cells.lows, cells.envelopes, cells.masses)
