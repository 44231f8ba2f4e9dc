"""What all clients of an index share, in the collection `name_catalogue`: its configuration, the bounds of its cells,
and which batches are being written.

Milvus has no transactions, and two clients that read a row, change it and write it back lose one of the changes. So no
row here is ever changed by two clients. Rows have an INT64 primary key `key`, drawn at random, and by `cell` are

    cell >= 0    bounds: every record of the cell lies under the FLOAT_VECTOR `envelope` and has p(c) >= `low`.
                 Never changed, only added. The cell's envelope is the maximum over all of its rows.
    -1           a writer: one per client that has written. `text` counts its changes here, and names the batch that
                 it is adding, if any. Only that client changes it.
    -2           configuration: `text` is a part of a JSON text, `key` its number. Written once, last of all when an
                 index is made.
    -3           some features are not of length 1

**Bounds stay bounds** whoever writes: before a record is written, its bounds are in an acknowledged row here, or were
there already, and rows go only when a row of the same client with wider bounds is there. After a removal they may be
wider than they need be. **Everyone prunes by bounds that hold:** before each search a client reads the writers' rows,
which is cheap; they differ from what it knows whenever bounds were added, and then it reads these, in the newest state.
How old the writers' rows may be that it reads: Milvus's bounded staleness, 5 s unless the server is set otherwise; a
record that was added since by another client may be missed for so long. An index that was opened with `strong=True`
reads the newest state always. A client's own records are seen by it at once.

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
from pymilvus import DataType

from indexes.errors import DamagedIndexError, FormatVersionError, InvalidParameterError, NotAnIndexError
from indexes.milvus.layout import Collection, Kind, Layout, Scalar, Vector
from indexes.milvus.server import PAGE, Server, among, floats, integers, texts
from indexes.params import IndexConfig
from indexes.partitions import Cells, Kept

FORMAT_VERSION = 1

_WRITER, _CONFIG, _LOOSE = -1, -2, -3
_PART = 16_000  # characters of a text in one row; a character has up to 4 bytes
_ROWS_BYTES = 1 << 23
_LEFT_BEHIND = 24 * 3600  # seconds after which a batch that is not finished is given up


class Unseen(Cells):
    """Cells whose records are on a server. Nobody counts them, so sizes are 1; each that is fetched is looked at."""

    def prune(self, weights: NDArray[np.float64], cutoff: float) -> Kept:
        """As `Cells.prune`; no cell is certain, and `codes` are -1."""
        kept = super().prune(weights, cutoff)
        return replace(kept, certain=np.zeros_like(kept.certain), codes=np.full_like(kept.codes, -1))


@dataclass(frozen=True, eq=False)
class View:
    """The catalogue as one client knows it.

    Attributes:
        cells: with their bounds.
        hidden: ranges (first, last) of rows that belong to unfinished batches.
        loose: whether there may be features that are not of length 1.
    """

    cells: Unseen
    hidden: tuple[tuple[int, int], ...]
    loose: bool

    def condition(self, condition: str = "") -> str:
        """The condition, and not of an unfinished batch."""
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


def write_config(server: Server, layout: Layout) -> None:
    """Write the configuration, which makes the index exist."""
    content = {
        "format": FORMAT_VERSION,
        "kind": layout.kind,
        "partition_key": layout.partition_key,
        "config": layout.config.model_dump(mode="json"),
    }
    text = json.dumps(content)
    parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
    rows = [_row(key=number, cell=_CONFIG, text=part, low=len(parts)) for number, part in enumerate(parts)]
    # The first row last: without it there is no index.
    for start in range(len(rows), 0, -100):
        server.call("upsert", catalogue_name(layout.name), _filled(rows[max(0, start - 100) : start][::-1], layout))


def read_config(server: Server, name: str) -> Layout:
    """The layout of the index of this name.

    Raises:
        NotAnIndexError, FormatVersionError, DamagedIndexError: there is none, or not one that can be read.
    """
    collection = catalogue_name(name)
    if not server.call("has_collection", collection):
        raise NotAnIndexError(f"there is no index {name} on this server: create it, or check its name")
    load(server, collection)
    rows = server.read(
        "query",
        collection,
        filter=f"cell in [{_CONFIG}]",
        output_fields=["key", "text", "low"],
        limit=PAGE,
        strong=True,
    )
    parts = dict(zip(integers(rows, "key").tolist(), texts(rows, "text"), strict=True))
    if 0 not in parts:
        raise NotAnIndexError(f"the index {name} was not made completely: create it again")
    try:
        content = json.loads("".join(parts[number] for number in range(len(parts))))
        version = content["format"]
    except (KeyError, TypeError, ValueError):
        raise DamagedIndexError(f"the catalogue of {name} cannot be read: restore it, or migrate again") from None
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"the index {name} has format {version}, this version of semcut reads format {FORMAT_VERSION}"
        )
    try:
        kind: Kind = content["kind"]
        return Layout(name, kind, IndexConfig(**content["config"]), bool(content["partition_key"]))
    except (KeyError, TypeError, InvalidParameterError):
        raise DamagedIndexError(f"the catalogue of {name} cannot be read: restore it, or migrate again") from None


def is_catalogue(server: Server, name: str) -> bool:
    """Whether the collection of the catalogue is there and has the fields that it should have."""
    if not server.call("has_collection", catalogue_name(name)):
        return False
    fields = server.call("describe_collection", catalogue_name(name))["fields"]
    return {field["name"] for field in fields} == {"key", "cell", "low", "text", "envelope"}


def load(server: Server, collection: str) -> None:
    """Have the server load a collection, if it has not."""
    state = server.call("get_load_state", collection)["state"]
    if "Loaded" not in str(state) or "NotLoad" in str(state):
        server.call("load_collection", collection)


class Catalogue:
    """One client's knowledge of the catalogue, and its own row in it. Safe for threads.

    Args:
        server: where.
        layout: of which index.
        strong: whether `view` always asks for the newest state.
    """

    def __init__(self, server: Server, layout: Layout, strong: bool) -> None:
        self._server, self._layout, self._strong = server, layout, strong
        self._collection = catalogue_name(layout.name)
        self._lock = threading.RLock()
        self._writers: dict[int, str] | None = None  # the others'
        self._known: set[int] = set()  # keys of rows of bounds
        self._view = View(_unseen(Cells.empty(layout.config)), (), False)
        self._me = secrets.randbits(62)
        self._changes = 0
        self._joined = False
        self._open: tuple[int, int] | None = None
        self._own: dict[int, int] = {}  # the row of bounds that this client wrote last, by cell
        self._superseded: list[int] = []

    def view(self) -> View:
        """What holds now."""
        with self._lock:
            strong = self._strong or self._writers is None
            rows = self._server.read(
                "query", self._collection, filter=f"cell in [{_WRITER}]", output_fields=["key", "text"], limit=PAGE,
                strong=strong, bounded=True,
            )  # fmt: skip
            writers = dict(zip(integers(rows, "key").tolist(), texts(rows, "text"), strict=True))
            writers.pop(self._me, None)
            if writers != self._writers:
                self._learn()
                self._writers = writers
            batches = [json.loads(text)["batch"] for text in writers.values()]
            hidden = [(batch[0], batch[1]) for batch in batches if batch]
            if self._open is not None:
                hidden.append(self._open)
            self._view = replace(self._view, hidden=tuple(sorted(hidden)))
            return self._view

    def _learn(self) -> None:
        """Read the bounds that are not known yet."""
        fresh: list[int] = []
        loose = self._view.loose
        pages = self._server.pages(self._collection, "key", f"cell >= 0 or cell in [{_LOOSE}]", ["cell"], strong=True)
        for rows in pages:
            keys, numbers = integers(rows, "key"), integers(rows, "cell")
            loose |= bool((numbers == _LOOSE).any())
            fresh += [key for key in keys[numbers >= 0].tolist() if key not in self._known]
        cells: Cells = self._view.cells
        step = max(16, min(4096, _ROWS_BYTES // (4 * self._layout.config.classes)))
        for start in range(0, len(fresh), step):
            rows = self._server.read(
                "query", self._collection, filter=among("key", fresh[start : start + step]), strong=True,
                output_fields=["key", "cell", "low", "envelope"],
            )  # fmt: skip
            lows = np.fromiter((row["low"] for row in list.__iter__(rows)), np.float32, len(rows))
            envelopes = floats(rows, "envelope", self._layout.config.classes)
            cells = cells.widened(integers(rows, "cell"), lows, envelopes)
        self._known.update(fresh)
        self._view = replace(self._view, cells=_unseen(cells), loose=loose)

    # writing

    def widen(self, wider: Cells, loose: bool) -> None:
        """Have bounds in the catalogue that hold for these cells, too, and for features that are not of length 1."""
        with self._lock:
            before = self._view.cells
            after = before.widened(wider.numbers, wider.lows, wider.envelopes)
            changed = np.ones(len(after), bool)
            known = len(before)
            changed[:known] = (after.lows[:known] != before.lows) | (after.envelopes[:known] != before.envelopes).any(1)
            cells = np.flatnonzero(changed)
            rows = [
                _row(cell=int(after.numbers[at]), low=float(after.lows[at]), envelope=after.envelopes[at])
                for at in cells.tolist()
            ]
            if loose and not self._view.loose:
                rows.append(_row(cell=_LOOSE))
            if not rows:
                return
            self._join()
            step = max(16, min(4096, _ROWS_BYTES // (4 * self._layout.config.classes)))
            for start in range(0, len(rows), step):
                self._server.call("upsert", self._collection, _filled(rows[start : start + step], self._layout))
            self._tell()
            for row in rows:
                self._known.add(row["key"])
                if row["cell"] in self._own:
                    self._superseded.append(self._own[row["cell"]])
                self._own[row["cell"]] = row["key"]
            self._view = replace(self._view, cells=_unseen(after), loose=self._view.loose or loose)

    def begin(self, first: int, last: int) -> None:
        """Rows in this range belong to a batch that is not finished."""
        with self._lock:
            self._join()
            self._open = first, last
            self._tell()

    def finish(self) -> None:
        """The batch is finished: its rows count."""
        with self._lock:
            batch, self._open = self._open, None
            try:
                self._tell()
            except BaseException:
                self._open = batch
                raise

    def changed(self) -> None:
        """Records were changed otherwise: their bounds hold, but `version` differs from now on."""
        with self._lock:
            self._join()
            self._tell()

    def version(self) -> str:
        """Differs after every change that any client has made."""
        rows = self._server.read(
            "query",
            self._collection,
            filter=f"cell in [{_WRITER}]",
            output_fields=["key", "text"],
            limit=PAGE,
            strong=True,
        )
        changes = [json.loads(text)["changes"] for text in texts(rows, "text")]
        told = sorted(zip(integers(rows, "key").tolist(), changes, strict=True))
        return f"{zlib.crc32(json.dumps(told).encode()):08x}"

    def unfinished(self) -> tuple[int, int] | None:
        """The batch that this client has begun and not finished."""
        return self._open

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
            if self._joined and self._open is None:
                self.tidy()
                self._tell(left=True)
                self._joined = False

    def _join(self) -> None:
        """Before this client's first change: clear away what those before it have left behind."""
        if self._joined:
            return
        self.view()
        self._tell()
        self._joined = True
        now, gone = time.time(), []
        for key, text in (self._writers or {}).items():
            told = json.loads(text)
            if told["batch"] and now - told["at"] > _LEFT_BEHIND:
                first, last = told["batch"]
                for collection in {self._layout.name, self._layout.records}:
                    self._server.delete(collection, f"row >= {first} and row <= {last}")
                gone.append(key)
            elif told["left"]:  # others notice this client's row, so that one has done its duty
                gone.append(key)
        if gone:
            self._server.delete(self._collection, among("key", gone), noticed=False)

    def _tell(self, left: bool = False) -> None:
        """Write this client's own row."""
        self._changes += not left
        told = {"changes": self._changes, "batch": self._open, "at": int(time.time()), "left": left}
        row = _row(key=self._me, cell=_WRITER, text=json.dumps(told))
        self._server.call("upsert", self._collection, _filled([row], self._layout))


def _row(
    *,
    cell: int,
    key: int | None = None,
    low: float = 0.0,
    text: str = "",
    envelope: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    number = secrets.randbits(62) if key is None else key
    return {"key": number, "cell": cell, "low": low, "text": text, "envelope": envelope}


def _filled(rows: list[dict[str, Any]], layout: Layout) -> list[dict[str, Any]]:
    """Rows with an envelope, which Milvus wants in each."""
    nothing = np.zeros(layout.config.classes, np.float32)
    return [row if row["envelope"] is not None else {**row, "envelope": nothing} for row in rows]


def _unseen(cells: Cells) -> Unseen:
    return Unseen(cells.config, cells.numbers, np.ones(len(cells), np.int64), cells.lows, cells.envelopes)
