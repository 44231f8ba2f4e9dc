"""The SQLite catalogue of an index: its configuration, what of every column counts, its checksums and cells.

    meta        format version and configuration
    state       one row: version (commits so far), generation, rows of the columns, records with a feature that is not
                L2-normalised, CRC-32 of all this and of the configuration
    checksums   CRC-32 of every block of every column, 1,024 blocks (uint32, little-endian) to a row
    cells       one row per cell: position, number, lower bound, envelope (C x float32, little-endian), CRC-32 of these

The transaction that changes `state` is the commit of whatever was written to the columns before. Sizes of cells are not
kept: they follow from the columns `cells` and `removed`. The catalogue of an index in memory is an SQLite database in
memory. SQLite's own rollback journal (synchronous = EXTRA) makes the transaction atomic and durable.
"""

from __future__ import annotations

import sqlite3
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig
from semcut.indexes.errors import (
    ConcurrentWriteError,
    DamagedIndexError,
    FormatVersionError,
    InvalidParameterError,
    NotAnIndexError,
    StorageError,
)
from semcut.indexes.pruning.cells import Cells, cell_count
from semcut.indexes.storage.column_files import NAMES, PER_RECORD, Extent, specs

FORMAT_VERSION = 3
_APPLICATION = 0x53454D43  # "SEMC", SQLite's application_id: tells an index from any other database
_CHUNK = 1024
_BUSY_SECONDS = 30
_LARGEST = 1 << 62

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, generation INTEGER NOT NULL,
    records INTEGER NOT NULL, uri_bytes INTEGER NOT NULL, removed INTEGER NOT NULL, loose INTEGER NOT NULL,
    crc INTEGER NOT NULL);
CREATE TABLE checksums (
    name TEXT NOT NULL, chunk INTEGER NOT NULL, crcs BLOB NOT NULL, PRIMARY KEY (name, chunk)) WITHOUT ROWID;
CREATE TABLE cells (
    cell INTEGER PRIMARY KEY, number INTEGER NOT NULL UNIQUE, low REAL NOT NULL, envelope BLOB NOT NULL,
    crc INTEGER NOT NULL);
"""


class Committed(NamedTuple):
    """What the catalogue says, as of one commit.

    Attributes:
        version: commits so far.
        generation: the set of column files that counts.
        extents: what counts of every column.
        loose: records with a feature that is not L2-normalised.
        cells: numbers, lower bounds and envelopes; sizes are 0.
    """

    version: int
    generation: int
    extents: dict[str, Extent]
    loose: int
    cells: Cells


class Catalogue:
    """An open catalogue. Not for several threads at once.

    Args:
        path: the database file, which must exist; None for memory.

    Raises:
        NotAnIndexError: the file is not a catalogue.
        FormatVersionError: it is one of another format version.
        DamagedIndexError: its configuration is not valid.
    """

    def __init__(self, path: Path) -> None:
        self._connect(path, f"{path.absolute().as_uri()}?mode=rw")
        try:
            with self._errors():
                self._check_format()
                self._text = self._meta("config")
                self._db.execute("PRAGMA synchronous = EXTRA")
            self.config = self._config()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path | None, config: IndexConfig) -> Catalogue:
        """Make the catalogue of an empty index; the file must not exist."""
        if path is not None:
            try:
                path.touch(exist_ok=False)
            except OSError as error:
                raise StorageError(f"cannot make {path}: {error.strerror}") from None
        catalogue = cls.__new__(cls)
        catalogue._connect(path, ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw")
        catalogue.config, catalogue._text = config, config.model_dump_json()
        nothing = dict.fromkeys(NAMES, Extent())
        try:
            with catalogue._errors():
                catalogue._db.execute("PRAGMA synchronous = EXTRA")
            with catalogue._errors(), catalogue._transaction():
                for statement in _SCHEMA.split(";\n"):
                    catalogue._db.execute(statement)
                catalogue._db.execute(f"PRAGMA application_id = {_APPLICATION}")
                catalogue._db.executemany(
                    "INSERT INTO meta VALUES (?, ?)", [("format", str(FORMAT_VERSION)), ("config", catalogue._text)]
                )
                catalogue._put_state(Committed(0, 0, nothing, 0, Cells.empty(config)))
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def _connect(self, path: Path | None, address: str) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
            )
            self._close = weakref.finalize(self, self._db.close)

    def _check_format(self) -> None:
        try:
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            found = self._db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "no such table" not in str(error):
                raise
            application, found = 0, None
        if application != _APPLICATION or found is None:
            raise NotAnIndexError(f"{self._path} is not the catalogue of a semcut index")
        if found[0] != str(FORMAT_VERSION):
            raise FormatVersionError(
                f"{self._path} has format version {found[0]} but this semcut reads version {FORMAT_VERSION}: "
                "open it with the semcut that wrote it, or build the index again"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        where = self._path or "the catalogue in memory"
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StorageError(f"{where} was locked by another program for {_BUSY_SECONDS} s: try again") from None
            if "readonly" in str(error):
                raise StorageError(
                    f"{where} cannot be written to ({error}): an index can be changed, and recovered after a crash of "
                    "its writer, only where its directory is writable"
                ) from None
            advice = "free some space and try again; no record is lost" if "full" in str(error) else "no record is lost"
            raise StorageError(f"cannot use {where}: {error}; {advice}") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # text is decoded when it is fetched
            raise self._damaged(str(error)) from None
        except sqlite3.Error as error:
            raise StorageError(f"cannot use {where}: {error}") from None

    def _damaged(self, how: str) -> DamagedIndexError:
        return DamagedIndexError(f"{self._path} is damaged ({how}): restore the index from a backup")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._begin("IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _begin(self, kind: str) -> None:
        if self._db.in_transaction:  # an earlier rollback has failed
            self._db.execute("ROLLBACK")
        self._db.execute(f"BEGIN {kind}")

    def _config(self) -> IndexConfig:
        try:
            return IndexConfig(**IndexConfig.model_validate_json(self._text).model_dump())
        except (ValueError, InvalidParameterError) as error:
            raise DamagedIndexError(f"{self._path} holds a configuration that is not valid: {error}") from None

    def _meta(self, key: str) -> str:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None or not isinstance(found[0], str):
            raise self._damaged(f"it does not say its {key}")
        return found[0]

    def version(self) -> int:
        """Commits so far; cheap."""
        with self._errors():
            found = self._db.execute("SELECT version FROM state").fetchone()
        if found is None or not isinstance(found[0], int):
            raise self._damaged("it has no state")
        return found[0]

    def read(self) -> Committed:
        """Everything as of one and the same commit.

        Raises:
            DamagedIndexError: it contradicts itself or the configuration.
        """
        with self._errors():
            self._begin("DEFERRED")
            try:
                kinds = set(
                    self._db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'")
                )
                if kinds != {("table", name) for name in ("meta", "state", "checksums", "cells")}:
                    raise self._damaged("its tables are not those of an index")
                states = self._db.execute("SELECT * FROM state").fetchall()
                chunks = self._db.execute("SELECT name, crcs FROM checksums ORDER BY name, chunk").fetchall()
                cells = self._db.execute("SELECT cell, number, low, envelope, crc FROM cells ORDER BY cell").fetchall()
            finally:
                self._db.execute("ROLLBACK")
        if len(states) != 1 or any(type(value) is not int for value in states[0]):
            raise self._damaged("it has no state")
        _, version, generation, records, uri_bytes, removed, loose, crc = states[0]
        if crc != self._state_crc(states[0][1:-1]) or min(states[0]) < 0 or max(states[0]) > _LARGEST:
            raise self._damaged("its state does not match its checksum")
        rows = {**dict.fromkeys(PER_RECORD, records), "uri_bytes": uri_bytes, "removed": removed}
        extents = {name: self._extent(name, rows[name], chunks) for name in NAMES}
        return Committed(version, generation, extents, loose, self._cells(cells))

    def _state_crc(self, values: tuple[int, ...]) -> int:
        return zlib.crc32(f"{values} {FORMAT_VERSION} {self._text}".encode())

    def _extent(self, name: str, rows: int, chunks: list[tuple[Any, Any]]) -> Extent:
        found = [crcs for of, crcs in chunks if of == name]
        if not all(isinstance(crcs, bytes) and len(crcs) % 4 == 0 for crcs in found):
            raise self._damaged("its checksums are not valid")
        crcs = np.frombuffer(b"".join(found), "<u4").astype(np.uint32)
        if len(crcs) != -(-rows // specs(self.config)[name].block):
            raise self._damaged(f"the checksums of the column {name} are not complete")
        return Extent(rows, crcs)

    def _cells(self, found: list[tuple[Any, ...]]) -> Cells:
        types, width = (int, int, float, bytes, int), 4 * self.config.classes
        if (
            any(tuple(map(type, row)) != types or len(row[3]) != width for row in found)
            or [row[0] for row in found] != list(range(len(found)))
            or any(not 0 <= row[1] < cell_count(self.config) for row in found)
            or any(row[4] != _cell_crc(*row[:4]) for row in found)
        ):
            raise self._damaged("its cells are not valid")
        return Cells(
            config=self.config,
            numbers=np.array([row[1] for row in found], np.int64),
            sizes=np.zeros(len(found), np.int64),
            lows=np.array([row[2] for row in found], np.float32),
            envelopes=np.frombuffer(b"".join(row[3] for row in found), "<f4").reshape(-1, self.config.classes),
        )

    def commit(self, before: Committed, after: Committed, touched: NDArray[np.int64]) -> None:
        """Make what was written to the columns part of the index.

        Args:
            before: what the caller believes the catalogue says.
            after: what it is to say.
            touched: positions of the cells that may have changed; all are written where the generation changed.

        Raises:
            ConcurrentWriteError: somebody else has written in between.
            StorageError: nothing was changed.
        """
        fresh = before.generation != after.generation
        if fresh:
            touched = np.arange(len(after.cells))
        try:
            with self._errors(), self._transaction():
                if self.version() != before.version:
                    raise ConcurrentWriteError(
                        f"another process has changed {self._path} in spite of the lock: open the index again"
                    )
                if fresh:
                    self._db.execute("DELETE FROM checksums")
                    self._db.execute("DELETE FROM cells")
                for name in NAMES:
                    unchanged = 0 if fresh else len(before.extents[name].crcs) - 1
                    self._put_checksums(name, after.extents[name].crcs, max(0, unchanged))
                self._put_cells(after.cells, touched)
                self._put_state(after)
        except ConcurrentWriteError:
            raise
        except StorageError:
            with suppress(StorageError):
                if (
                    not self._db.in_transaction and self.version() == after.version
                ):  # the error came after the point of no return
                    return
            raise

    def _put_checksums(self, name: str, crcs: NDArray[np.uint32], unchanged: int) -> None:
        first = unchanged // _CHUNK
        self._db.executemany(
            "INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)",
            [
                (name, chunk, crcs[chunk * _CHUNK : (chunk + 1) * _CHUNK].astype("<u4").tobytes())
                for chunk in range(first, -(-len(crcs) // _CHUNK))
            ],
        )

    def _put_cells(self, cells: Cells, positions: NDArray[np.int64]) -> None:
        rows = zip(
            positions.tolist(),
            cells.numbers[positions].tolist(),
            cells.lows[positions].tolist(),
            (envelope.tobytes() for envelope in cells.envelopes[positions].astype("<f4")),
            strict=True,
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", ((*row, _cell_crc(*row)) for row in rows)
        )

    def _put_state(self, state: Committed) -> None:
        rows = {name: extent.rows for name, extent in state.extents.items()}
        values = (
            state.version, state.generation, rows["ids"], rows["uri_bytes"], rows["removed"], state.loose,
        )  # fmt: skip
        self._db.execute(
            "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?)", (*values, self._state_crc(values))
        )

    def close(self) -> None:
        """Close the database."""
        self._close()


def check(path: Path) -> list[str]:
    """What SQLite finds wrong with a catalogue: nothing, or sentences."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)
        try:
            found = [str(text) for (text,) in db.execute("PRAGMA integrity_check(20)")]
        finally:
            db.close()
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _cell_crc(cell: int, number: int, low: float, envelope: bytes) -> int:
    return zlib.crc32(envelope, zlib.crc32(f"{cell} {number} {low!r}".encode()))
