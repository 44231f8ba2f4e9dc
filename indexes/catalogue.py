"""The SQLite catalogue of an index: its configuration, committed batches, cells and uris.

    meta      format version, configuration, whether all features are L2-normalised
    batches   first row, number of rows and the CRC-32 of every column, per committed batch
    cells     one row per cell: position, number, size, lower bound, envelope (C x float32, little-endian)
    uris      row number and uri, for records that have one

The sum of `batches.rows` is the number of records that exist: the transaction that inserts a batch is its commit. The
catalogue of an index in memory is an SQLite database in memory.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexes.columns import NAMES
from indexes.errors import (
    ConcurrentWriteError,
    DamagedIndexError,
    FormatVersionError,
    InvalidParameterError,
    NotAnIndexError,
    StorageError,
)
from indexes.params import IndexConfig
from indexes.partitions import Cells, cell_count

FORMAT_VERSION = 1
_APPLICATION = 0x53454D43  # "SEMC", SQLite's application_id: tells an index from any other database
_VARIABLES = 500

_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (
    first_row INTEGER PRIMARY KEY, rows INTEGER NOT NULL,
    {", ".join(f"crc_{name} INTEGER NOT NULL" for name in NAMES)});
CREATE TABLE cells (
    cell INTEGER PRIMARY KEY, number INTEGER NOT NULL UNIQUE, size INTEGER NOT NULL, low REAL NOT NULL,
    envelope BLOB NOT NULL);
CREATE TABLE uris (record INTEGER PRIMARY KEY, uri TEXT NOT NULL);
"""


class Snapshot(NamedTuple):
    """The state of an index as of one commit: records, whether all features have length 1, and the cells."""

    rows: int
    normalised: bool
    cells: Cells


class Catalogue:
    """An open catalogue. Not for several threads at once.

    Args:
        path: the database file, which must exist; None for memory.

    Raises:
        NotAnIndexError: the file is not a catalogue.
        FormatVersionError: it is one of another format version.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with self._errors():
            self._db = sqlite3.connect(
                ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw",
                uri=path is not None,
                isolation_level=None,
                check_same_thread=False,
                timeout=5,
            )
        self._close = weakref.finalize(self, self._db.close)
        try:
            with self._errors():
                if path is not None:
                    self._check_format()
                self._db.execute("PRAGMA synchronous = EXTRA")
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path | None, config: IndexConfig) -> Catalogue:
        """Make the catalogue of an empty index; the file must not exist."""
        if path is not None:
            path.touch(exist_ok=False)
        catalogue = cls.__new__(cls)
        catalogue._path = path
        with catalogue._errors():
            catalogue._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            catalogue._close = weakref.finalize(catalogue, catalogue._db.close)
            catalogue._db.execute("PRAGMA synchronous = EXTRA")
            catalogue._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA application_id = {_APPLICATION};")
            catalogue._db.executemany(
                "INSERT INTO meta VALUES (?, ?)",
                [("format", str(FORMAT_VERSION)), ("config", config.model_dump_json()), ("normalised", "1")],
            )
            catalogue._db.execute("COMMIT")
        return catalogue

    def _check_format(self) -> None:
        try:
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            found = self._db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
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
                raise ConcurrentWriteError(
                    f"another process is writing to {where}: one writer at a time, try again when it is done"
                ) from None
            raise StorageError(f"cannot use {where}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise DamagedIndexError(f"{where} is damaged ({error}): restore it from a backup") from None

    def config(self) -> IndexConfig:
        """The configuration that the index was created with."""
        with self._errors():
            text = self._meta("config")
        try:
            return IndexConfig(**IndexConfig.model_validate_json(text).model_dump())
        except (ValueError, InvalidParameterError) as error:
            raise DamagedIndexError(f"{self._path} holds a configuration that is not valid: {error}") from None

    def _meta(self, key: str) -> str:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None or not isinstance(found[0], str):
            raise DamagedIndexError(f"{self._path} does not say its {key}: restore the index from a backup")
        return found[0]

    def rows(self) -> int:
        """Committed records."""
        with self._errors():
            (rows,) = self._db.execute("SELECT coalesce(sum(rows), 0) FROM batches").fetchone()
        return int(rows)

    def snapshot(self, config: IndexConfig) -> Snapshot:
        """Rows, cells and the rest as of one and the same commit.

        Raises:
            DamagedIndexError: they contradict each other or the configuration.
        """
        with self._errors():
            self._db.execute("BEGIN")
            try:
                rows = self.rows()
                normalised = self._meta("normalised")
                found = self._db.execute("SELECT cell, number, size, low, envelope FROM cells ORDER BY cell").fetchall()
            finally:
                self._db.execute("ROLLBACK")
        width = 4 * config.classes
        types = (int, int, int, float, bytes)
        if (
            any(tuple(map(type, row)) != types or len(row[4]) != width for row in found)
            or [row[0] for row in found] != list(range(len(found)))
            or sum(row[2] for row in found) != rows
            or any(not 0 <= row[1] < cell_count(config) for row in found)
        ):
            raise DamagedIndexError(f"the cells in {self._path} are damaged: restore the index from a backup")
        cells = Cells(
            config=config,
            numbers=np.array([row[1] for row in found], np.int64),
            sizes=np.array([row[2] for row in found], np.int64),
            lows=np.array([row[3] for row in found], np.float32),
            envelopes=np.frombuffer(b"".join(row[4] for row in found), "<f4").reshape(-1, config.classes),
        )
        return Snapshot(rows=rows, normalised=normalised == "1", cells=cells)

    def commit(
        self,
        *,
        before: int,
        write: Callable[[], dict[str, int]],
        rows: int,
        cells: Cells,
        touched: NDArray[np.int64],
        normalised: bool,
        uris: Sequence[str | None] | None,
    ) -> None:
        """Make a batch part of the index. `write` runs under SQLite's write lock and must leave the columns on disk.

        Args:
            before: records that the caller believes are committed.
            write: writes the columns and returns the CRC-32 of each.
            rows: records in the batch.
            cells, touched: the cells after the batch, and the numbers of those that it changed.
            normalised: whether every feature including the batch's has length 1.
            uris: one per record, or None.

        Raises:
            ConcurrentWriteError: another process is writing, or has written since this one last looked.
        """
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if self.rows() != before:
                    raise ConcurrentWriteError(
                        f"another process has added to {self._path} since it was opened here: open the index again"
                    )
                checksums = write()
                self._db.execute(
                    f"INSERT INTO batches VALUES (?, ?{', ?' * len(NAMES)})",
                    (before, rows, *(checksums[name] for name in NAMES)),
                )
                self._db.executemany(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)",
                    (
                        (cell, number, size, low, envelope.astype("<f4").tobytes())
                        for cell, number, size, low, envelope in zip(
                            touched.tolist(),
                            cells.numbers[touched].tolist(),
                            cells.sizes[touched].tolist(),
                            cells.lows[touched].tolist(),
                            cells.envelopes[touched],
                            strict=True,
                        )
                    ),
                )
                if uris is not None:
                    self._db.executemany(
                        "INSERT INTO uris VALUES (?, ?)",
                        ((row, uri) for row, uri in enumerate(uris, before) if uri is not None),
                    )
                if not normalised:
                    self._db.execute("UPDATE meta SET value = '0' WHERE key = 'normalised'")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        """The uri of each row, None where it has none."""
        found: dict[int, str] = {}
        wanted = np.unique(rows).tolist()
        with self._errors():
            for start in range(0, len(wanted), _VARIABLES):
                part = wanted[start : start + _VARIABLES]
                marks = ", ".join("?" * len(part))
                found.update(self._db.execute(f"SELECT record, uri FROM uris WHERE record IN ({marks})", part))
        return [found.get(row) for row in rows.tolist()]

    def close(self) -> None:
        """Close the database."""
        self._close()
