"""What all clients of an index share, in the collection `name_catalogue`: its configuration, the bounds of its cells,
and which batches are being written.

Milvus has no transactions, and two clients that read a row, change it and write it back lose one of the changes. So no
row here is ever changed by two clients. Rows have an INT64 primary key `key`, drawn at random, and by `cell` are

    cell >= 0    bounds: every record of the cell lies under the FLOAT_VECTOR `envelope` and has p(c) >= `low`.
                 Never changed, only added. The cell's envelope is the maximum over all of its rows.
    -1           a writer: one per client that has written. `text` counts its changes, and those of bounds; it names
                 ranges of rows that do not count: of the batch that it is adding, and of those that it took back.
                 Only that client changes it.
    -2           configuration: `text` is a part of a JSON text, `key` its number. Written once, last of all when an
                 index is made.
    -3           some features are not of length 1
    -4           `text` was drawn at random when the index was made: another one after it was dropped and made again

**Bounds stay bounds** whoever writes: before a record is written, its bounds are in an acknowledged row here, or were
there already, and rows go only when a row of the same client with wider bounds is there. After a removal they may be
wider than they need be. **Everyone prunes by bounds that hold:** before each search a client reads the writers' rows,
which is cheap; where their counts of bounds are not those that it knows, it reads the bounds that are new, in the
newest state, until the counts stay the same. How old the writers' rows may be that it reads: Milvus's bounded
staleness, 5 s unless the server is set otherwise; a record that was added since by another client may be missed for so
long, and a batch be seen in part. A client's own records are seen by it at once. An index that was opened with
`strong=True` reads the newest state always, and reads the writers' rows again after a search: if a batch was begun or
finished meanwhile, it searches again.

**Added batches are whole.** While a batch is added its writer's row names it, and every reader leaves its rows out. A
client that dies leaves them out for good; adding the same records again replaces them. The next writer deletes what
was left more than a day before.
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
from semcut.indexes.milvus.client import DataType
from semcut.indexes.milvus.connection import PAGE, Server, among, floats, integers, texts
from semcut.indexes.milvus.schema import Collection, Scalar, Schema, Vector
from semcut.indexes.pruning.cells import Cells, KeptCells

_WRITER, CONFIG, _LOOSE, IDENTITY = -1, -2, -3, -4
_ROWS_BYTES = 1 << 23
_LEFT_BEHIND = 24 * 3600  # seconds after which a client that has told nothing is given up
_TAKEN_BACK = 100  # ranges of rows that a client remembers

Range = tuple[int, int]
"""Rows from the first to the last."""


class Unseen(Cells):
    """Cells whose records are on a server. Nobody counts them, so sizes are 1; each that is fetched is looked at."""

    def prune(self, weights: NDArray[np.float64], cutoff: float) -> KeptCells:
        """As `Cells.prune`; no cell is certain, and `codes` are -1."""
        kept = super().prune(weights, cutoff)
        return replace(kept, certain=np.zeros_like(kept.certain), codes=np.full_like(kept.codes, -1))


@dataclass(frozen=True, eq=False)
class View:
    """The catalogue as one client knows it.

    Attributes:
        cells: with their bounds.
        hidden: ranges (first, last) of rows that do not count.
        loose: whether there may be features that are not of length 1.
        changes: of each writer, to see whether there were any since.
    """

    cells: Unseen
    hidden: tuple[tuple[int, int], ...]
    loose: bool
    changes: dict[int, int]

    def condition(self, condition: str = "") -> str:
        """The condition, and no row that does not count."""
        parts = [f"({condition})"] if condition else []
        parts += [f"(row < {first} or row > {last})" for first, last in self.hidden]
        return " and ".join(parts)


def catalogue_name(name: str) -> str:
    """The collection of the catalogue of an index."""
    return f"{name}_catalogue"


def collection(name: str, classes: int) -> Collection:
    """The collection of the catalogue of an index with so many classes."""
    scalars: list[Scalar] = [
        ("key", DataType.INT64, {"is_primary": True}),
        ("cell", DataType.INT64, {}),
        ("low", DataType.FLOAT, {}),
        ("text", DataType.VARCHAR, {"max_length": 65_535}),
    ]
    # One shard keeps the order of writes: who sees a row sees those before it.
    envelope: Vector = ("envelope", DataType.FLOAT_VECTOR, classes, "FLAT", "L2")
    return Collection(catalogue_name(name), scalars, [envelope], {"num_shards": 1})


class SharedState:
    """One client's knowledge of the catalogue, and its own row in it. Safe for threads.

    Args:
        server: where.
        layout: of which index.
        strong: whether `view` always asks for the newest state.
    """

    def __init__(self, server: Server, layout: Schema, strong: bool) -> None:
        self._server, self._layout, self._strong = server, layout, strong
        self._collection = catalogue_name(layout.name)
        self._lock = threading.RLock()  # not held while writers' rows are read: a server that hangs holds up each once
        self._identity = ""
        self._cells, self._loose = _unseen(Cells.empty(layout.config)), False
        self._known: set[int] = set()  # keys of rows of bounds
        self._counts: dict[int, int] = {}  # of the others' changes of bounds
        self._me = secrets.randbits(62)
        self._changes = self._bounds = 0
        self._joined = False
        self._batch: Range | None = None
        self._taken_back: list[Range] = []
        self._own: dict[int, int] = {}  # the row of bounds that this client wrote last, by cell
        self._superseded: list[int] = []

    def view(self, *, strong: bool = False) -> View:
        """What holds now; certainly the newest if `strong`.

        Raises:
            NotAnIndexError: the index was dropped.
        """
        told = self._writers(strong=strong)
        with self._lock:
            while (counts := {key: one["bounds"] for key, one in told.items()}) != self._counts:
                self._learn()
                self._counts = counts
                told = self._writers(strong=True)
            hidden = {(first, last) for one in told.values() for first, last in one["hidden"]}
            hidden.update(self._hidden())
            changes = {key: one["changes"] for key, one in told.items()}
            return View(self._cells, tuple(sorted(hidden)), self._loose, changes)

    def unchanged(self, view: View) -> bool:
        """Whether no other client has begun or finished a change since."""
        return {key: one["changes"] for key, one in self._writers(strong=True).items()} == view.changes

    def _writers(self, *, strong: bool, mine: bool = False) -> dict[int, dict[str, Any]]:
        """What the writers have told, by key; without this client's own row unless `mine`."""
        rows = self._server.read(
            "query", self._collection, filter=f"cell in [{_WRITER},{IDENTITY}]", output_fields=["key", "cell", "text"],
            limit=PAGE, strong=strong or self._strong or not self._identity, bounded=True,
        )  # fmt: skip
        cells, said = integers(rows, "cell"), texts(rows, "text")
        identity = "".join(text for text, cell in zip(said, cells.tolist(), strict=True) if cell == IDENTITY)
        if not identity or self._identity not in ("", identity):
            raise NotAnIndexError("the index was dropped, or dropped and made again: open it again")
        self._identity = identity
        try:
            return {
                key: json.loads(text)
                for key, text, cell in zip(integers(rows, "key").tolist(), said, cells.tolist(), strict=True)
                if cell == _WRITER and (mine or key != self._me)
            }
        except ValueError:
            raise DamagedIndexError("the catalogue of the index cannot be read: migrate it again") from None

    def _learn(self) -> None:
        """Read the bounds that are not known yet."""
        condition, fresh = f"cell >= 0 or cell in [{_LOOSE}]", [0]
        step = max(16, min(4096, _ROWS_BYTES // (4 * self._layout.config.classes)))
        while fresh:  # until all that are listed are known: others replace rows by wider ones meanwhile
            fresh = []
            for page in self._server.pages(self._collection, "key", condition, ["cell"], strong=True):
                self._loose |= bool((page["cell"] == _LOOSE).any())
                fresh += [key for key in page["key"][page["cell"] >= 0].tolist() if key not in self._known]
            cells: Cells = self._cells
            for start in range(0, len(fresh), step):
                rows = self._server.read(
                    "query", self._collection, filter=among("key", fresh[start : start + step]), strong=True,
                    output_fields=["key", "cell", "low", "envelope"],
                )  # fmt: skip
                lows = np.fromiter((row["low"] for row in list.__iter__(rows)), np.float32, len(rows))
                envelopes = floats(rows, "envelope", self._layout.config.classes)
                cells = cells.widened(integers(rows, "cell"), lows, envelopes)
                self._known.update(integers(rows, "key").tolist())
            self._cells = _unseen(cells)

    # writing

    def widen(self, wider: Cells, loose: bool) -> None:
        """Have bounds in the catalogue that hold for these cells, too, and for features that are not of length 1."""
        with self._lock:
            self._join()
            before = self._cells
            after = before.widened(wider.numbers, wider.lows, wider.envelopes)
            changed = np.ones(len(after), bool)
            known = len(before)
            changed[:known] = (after.lows[:known] != before.lows) | (after.envelopes[:known] != before.envelopes).any(1)
            cells = np.flatnonzero(changed)
            rows = [
                row_of(cell=int(after.numbers[at]), low=float(after.lows[at]), envelope=after.envelopes[at])
                for at in cells.tolist()
            ]
            if loose and not self._loose:
                rows.append(row_of(cell=_LOOSE))
            if not rows:
                return
            step = max(16, min(4096, _ROWS_BYTES // (4 * self._layout.config.classes)))
            for start in range(0, len(rows), step):
                self._server.call("upsert", self._collection, filled(rows[start : start + step], self._layout))
            self._bounds += 1
            self._tell()
            for row in rows:
                self._known.add(row["key"])
                if row["cell"] in self._own:
                    self._superseded.append(self._own[row["cell"]])
                self._own[row["cell"]] = row["key"]
            self._cells, self._loose = _unseen(after), self._loose or loose

    def begin(self, first: int, last: int) -> None:
        """Rows in this range belong to a batch that is not finished."""
        with self._lock:
            self._join()
            self._batch = first, last
            self._tell()

    def finish(self) -> None:
        """The batch is finished: its rows count."""
        with self._lock:
            batch, self._batch = self._batch, None
            try:
                self._tell()
            except BaseException:
                self._batch = batch  # as long as it is not known, see `unfinished`
                raise

    def take_back(self) -> None:
        """The rows of the batch were deleted. They do not count any more, even if a late write brings one back."""
        with self._lock:
            if self._batch is not None:
                self._taken_back = [*self._taken_back, self._batch][-_TAKEN_BACK:]
                self._batch = None
                self._tell()

    def changed(self) -> None:
        """Records were changed otherwise: their bounds hold, but `version` differs from now on."""
        with self._lock:
            self._join()
            self._tell()

    def version(self) -> str:
        """Differs after every change that any client has made."""
        told = self._writers(strong=True, mine=True)
        return f"{zlib.crc32(json.dumps(sorted((key, one['changes']) for key, one in told.items())).encode()):08x}"

    def unfinished(self) -> Range | None:
        """The batch that this client has begun and not finished, as far as the server knows."""
        with self._lock:
            if self._batch is not None:
                told = self._writers(strong=True, mine=True).get(self._me)
                if told is not None and list(self._batch) not in told["hidden"]:
                    self._batch = None  # the answer was lost that said so
            return self._batch

    def tidy(self) -> None:
        """Delete rows of bounds of which this client has written wider ones."""
        with self._lock:
            while self._superseded:
                gone = self._superseded[-PAGE:]
                self._server.delete(self._collection, among("key", gone), noticed=False)
                del self._superseded[-PAGE:]

    def leave(self) -> None:
        """This client will not write any more."""
        with self._lock:
            if self._joined and self._batch is None:
                self.tidy()
                self._tell(left=True)
                self._joined = False

    def _join(self) -> None:
        """Before a change: know what there is. Before this client's first: clear away what others have left behind."""
        self.view(strong=not self._joined)
        if self._joined:
            return
        self._tell()  # from now on others notice this row, so that those of clients that have left have done their duty
        self._joined = True
        now, gone = time.time(), []
        for key, told in self._writers(strong=True).items():
            old = now - told["at"] > _LEFT_BEHIND
            if old:
                for first, last in told["hidden"]:
                    for collection, of in ((self._layout.name, "id"), (self._layout.records, self._layout.key)):
                        self._server.delete_found(collection, of, f"row >= {first} and row <= {last}")
            if old or (told["left"] and not told["hidden"]):
                gone.append(key)
        if gone:
            self._server.delete(self._collection, among("key", gone), noticed=False)

    def _hidden(self) -> list[Range]:
        return self._taken_back + ([self._batch] if self._batch is not None else [])

    def _tell(self, left: bool = False) -> None:
        """Write this client's own row."""
        self._changes += not left
        told = {
            "changes": self._changes,
            "bounds": self._bounds,
            "hidden": self._hidden(),
            "at": int(time.time()),
            "left": left,
        }
        row = row_of(key=self._me, cell=_WRITER, text=json.dumps(told))
        self._server.call("upsert", self._collection, filled([row], self._layout))


def row_of(
    *,
    cell: int,
    key: int | None = None,
    low: float = 0.0,
    text: str = "",
    envelope: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """A row of the catalogue, with a random key unless one is given; to be `filled`."""
    number = secrets.randbits(62) if key is None else key
    return {"key": number, "cell": cell, "low": low, "text": text, "envelope": envelope}


def filled(rows: list[dict[str, Any]], layout: Schema) -> list[dict[str, Any]]:
    """Rows with an envelope, which Milvus wants in each."""
    nothing = np.zeros(layout.config.classes, np.float32)
    return [row if row["envelope"] is not None else {**row, "envelope": nothing} for row in rows]


def _unseen(cells: Cells) -> Unseen:
    return Unseen(cells.config, cells.numbers, np.ones(len(cells), np.int64), cells.lows, cells.envelopes)
