"""The SQLite catalogue of an index: the configuration, the committed length of every column, checksums and cells.

The transaction that changes the table `state` is the commit of everything that was written to the columns before it.
SQLite's rollback journal with synchronous = EXTRA makes the transaction atomic and durable; see
https://www.sqlite.org/atomiccommit.html. The catalogue of an index in memory is an SQLite database in memory. The
tables are described in `catalogue_format`.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage.catalogue_format import (
    APPLICATION_ID,
    FORMAT_VERSION,
    SCHEMA,
    TABLES,
    Committed,
    cell_rows,
    checksum_rows,
    committed_of,
    state_row,
)
from semcut.indexes.storage.column_files import NAMES, Extent

_BUSY_SECONDS = 30


class Catalogue:
    """An open catalogue. Only one thread may use it at any moment.

    Args:
        path: the database file, which must exist.

    Raises:
        NotAnIndexError: the file is not a catalogue.
        FormatVersionError: the catalogue has another format version.
        DamagedIndexError: the configuration in the catalogue is not valid.
    """

    def __init__(self, path: Path) -> None:
        self._connect(path, f"{path.absolute().as_uri()}?mode=rw")
        try:
            with self._translated_errors():
                self._check_format()
                self._config_json = self._meta("config")
                self._db.execute("PRAGMA synchronous = EXTRA")
            self.config = self._parsed_config()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path | None, config: IndexConfig) -> Catalogue:
        """Create the catalogue of an empty index.

        Args:
            path: the database file, which must not exist; None for a database in memory.
            config: the configuration of the index.

        Raises:
            StorageError: the file exists, or the disk refuses.
        """
        if path is not None:
            try:
                path.touch(exist_ok=False)
            except OSError as error:
                raise StorageError(f"cannot create {path}: {error.strerror}") from None
        catalogue = cls.__new__(cls)
        catalogue._connect(path, ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw")
        catalogue.config, catalogue._config_json = config, config.model_dump_json()
        try:
            catalogue._fill()
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def _fill(self) -> None:
        """Create the tables, with the configuration and the state of an empty index."""
        empty = Committed(0, 0, dict.fromkeys(NAMES, Extent()), 0, Cells.empty(self.config))
        with self._translated_errors():
            self._db.execute("PRAGMA synchronous = EXTRA")
        with self._translated_errors(), self._transaction():
            for statement in SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.executemany(
                "INSERT INTO meta VALUES (?, ?)", [("format", str(FORMAT_VERSION)), ("config", self._config_json)]
            )
            self._put_state(empty)

    def _connect(self, path: Path | None, address: str) -> None:
        self._path = path
        with self._translated_errors():
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
        if application != APPLICATION_ID or found is None:
            raise NotAnIndexError(f"{self._path} is not the catalogue of a semcut index")
        if found[0] != str(FORMAT_VERSION):
            raise FormatVersionError(
                f"{self._path} has format version {found[0]} but this version of semcut reads version "
                f"{FORMAT_VERSION}: open the index with the version of semcut that wrote it, or build the index again"
            )

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Convert the errors that SQLite raises in the block to a `StorageError` or `DamagedIndexError` with advice."""
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
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite decodes text when it is fetched
            raise self._damaged(str(error)) from None
        except sqlite3.Error as error:
            raise StorageError(f"cannot use {where}: {error}") from None

    def _damaged(self, reason: str) -> DamagedIndexError:
        return DamagedIndexError(f"{self._path} is damaged ({reason}): restore the index from a backup")

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

    def _parsed_config(self) -> IndexConfig:
        try:
            return IndexConfig(**IndexConfig.model_validate_json(self._config_json).model_dump())
        except (ValueError, InvalidParameterError) as error:
            raise DamagedIndexError(f"the configuration in {self._path} is not valid: {error}") from None

    def _meta(self, key: str) -> str:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None or not isinstance(found[0], str):
            raise self._damaged(f"its {key} is missing")
        return found[0]

    def version(self) -> int:
        """Read the number of commits so far, with one short query.

        Raises:
            StorageError: the catalogue cannot be read.
            DamagedIndexError: the catalogue has no state.
        """
        with self._translated_errors():
            found = self._db.execute("SELECT version FROM state").fetchone()
        if found is None or not isinstance(found[0], int):
            raise self._damaged("it has no state")
        return found[0]

    def read(self) -> Committed:
        """Read all tables in one transaction, so that their rows belong to the same commit.

        Raises:
            StorageError: the catalogue cannot be read.
            DamagedIndexError: the catalogue contradicts itself or the configuration.
        """
        with self._translated_errors():
            self._begin("DEFERRED")
            try:
                kinds = set(
                    self._db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'")
                )
                if kinds != {("table", name) for name in TABLES}:
                    raise self._damaged("its tables are not those of an index")
                states = self._db.execute("SELECT * FROM state").fetchall()
                checksums = self._db.execute("SELECT name, crcs FROM checksums ORDER BY name, chunk").fetchall()
                cells = self._db.execute("SELECT cell, number, low, envelope, crc FROM cells ORDER BY cell").fetchall()
            finally:
                self._db.execute("ROLLBACK")
        try:
            return committed_of(self.config, self._config_json, states, checksums, cells)
        except ValueError as error:
            raise self._damaged(str(error)) from None

    def commit(self, before: Committed, after: Committed, changed_cells: NDArray[np.int64]) -> None:
        """Commit the rows that were written to the columns, so that they belong to the index.

        Args:
            before: the last commit, as far as the caller knows.
            after: the commit to write.
            changed_cells: positions of the cells that may have changed. If the generation changes, all cells are
                written.

        Raises:
            ConcurrentWriteError: `before` is not the last commit, because another process has changed the index.
            StorageError: the commit failed and nothing was changed.
        """
        new_generation = before.generation != after.generation
        if new_generation:
            changed_cells = np.arange(len(after.cells))
        try:
            with self._translated_errors(), self._transaction():
                if self.version() != before.version:
                    raise ConcurrentWriteError(
                        f"another process has changed {self._path} in spite of the lock: open the index again"
                    )
                if new_generation:
                    self._db.execute("DELETE FROM checksums")
                    self._db.execute("DELETE FROM cells")
                for name in NAMES:
                    # The last block may have been partly filled: its checksum changes with every append.
                    unchanged = 0 if new_generation else max(0, len(before.extents[name].crcs) - 1)
                    self._db.executemany(
                        "INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)",
                        checksum_rows(name, after.extents[name].crcs, unchanged),
                    )
                self._db.executemany(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", cell_rows(after.cells, changed_cells)
                )
                self._put_state(after)
        except ConcurrentWriteError:
            raise
        except StorageError:
            with suppress(StorageError):
                if not self._db.in_transaction and self.version() == after.version:
                    return  # SQLite reported an error after the transaction had become durable
            raise

    def _put_state(self, committed: Committed) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO state VALUES (1, ?, ?, ?, ?, ?, ?, ?)", state_row(committed, self._config_json)
        )

    def close(self) -> None:
        """Close the database."""
        self._close()


def integrity_errors(path: Path) -> list[str]:
    """Run SQLite's integrity check on a catalogue and return what it reports, one sentence each; empty if sound."""
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS)
        try:
            found = [str(text) for (text,) in db.execute("PRAGMA integrity_check(20)")]
        finally:
            db.close()
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found
