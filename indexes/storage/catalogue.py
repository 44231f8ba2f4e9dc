"""The SQLite catalogue of an index: the configuration, the committed length of every column, checksums and cells.

The transaction that changes the table `state` is the commit of everything that was written to the columns before it.
SQLite's rollback journal with synchronous = EXTRA makes the transaction atomic and durable; see
https://www.sqlite.org/atomiccommit.html. The tables are described in `catalogue_format`. An index in memory has no
catalogue.

A catalogue may come from someone else: `catalogue_connection` opens it safely, and nothing in it is read here before
its schema has been compared.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from semcut.indexes.config import IndexConfig, refuse_many_values, written_config
from semcut.indexes.errors import (
    ConcurrentWriteError,
    DamagedIndexError,
    FormatVersionError,
    InvalidParameterError,
    NotAnIndexError,
    StorageError,
    shown,
)
from semcut.indexes.storage.catalogue_connection import CatalogueConnection
from semcut.indexes.storage.catalogue_format import (
    APPLICATION_ID,
    EXTENDED,
    LARGEST,
    READ_VERSIONS,
    Committed,
    cell_rows,
    checksum_rows,
    committed_of,
    format_of,
    schema,
    state_reading,
    state_row,
    table_readings,
    version_reading,
)
from semcut.indexes.storage.catalogue_guard import catalogue_bytes, expected_schema, schema_of
from semcut.indexes.storage.column_specs import names_of

_VERSION_SHOWN = 100


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
        self._path = path
        self._connection = CatalogueConnection(path, new=False)
        try:
            self._connection.recovered(self._check_format)
            self._config_json = self._connection.with_long_values(self._read_config)
            self.config = self._parsed_config()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, config: IndexConfig, *, private: bool = False) -> Catalogue:
        """Create the catalogue of an empty index.

        Args:
            path: the database file, which must not exist.
            config: the configuration of the index.
            private: whether nobody but its owner may read the file.

        Raises:
            StorageError: the file exists, or the disk refuses.
        """
        try:
            path.touch(0o600 if private else 0o666, exist_ok=False)
        except OSError as error:
            raise StorageError(f"cannot create {path}: {error.strerror}") from None
        catalogue = cls.__new__(cls)
        catalogue._path, catalogue._connection = path, CatalogueConnection(path, new=True)
        catalogue.config, catalogue._config_json = config, config.written()
        catalogue._format = format_of(config)
        try:
            catalogue._fill()
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    def _fill(self) -> None:
        """Create the tables, with the configuration and the state of an empty index."""
        db = self._connection.db

        def write() -> None:
            for statement in schema(self._format).split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.executemany(
                "INSERT INTO meta VALUES (?, ?)", [("format", str(self._format)), ("config", self._config_json)]
            )
            self._put_state(Committed.empty(self.config))

        self._connection.transaction(write)

    def _check_format(self) -> None:
        tables = {name: (kind, sql) for kind, name, _, sql in schema_of(self._connection.db)}
        kind, sql = tables.get("meta", ("", None))
        if kind != "table" or not str(sql).startswith("CREATE TABLE meta ("):
            raise NotAnIndexError(f"{self._path} is not the catalogue of a semcut index")
        self._read_format()
        self._check_schema()

    def _read_format(self) -> None:
        found = self._connection.db.execute(
            f"SELECT CASE WHEN typeof(value) = 'text' THEN substr(value, 1, {_VERSION_SHOWN}) END "
            "FROM meta WHERE key = 'format'"
        ).fetchone()
        if found is None or found[0] is None:
            raise NotAnIndexError(f"{self._path} is not the catalogue of a semcut index")
        known = {str(version): version for version in READ_VERSIONS}
        if found[0] not in known:
            version, others = shown(found[0]).strip("'"), ", ".join(map(str, READ_VERSIONS[:-1]))
            raise FormatVersionError(
                f"{self._path} has format version {version} but this version of semcut reads the versions "
                f"{others} and {READ_VERSIONS[-1]}: open the index with the version of semcut that wrote it, or "
                "build the index again"
            )
        self._format = known[found[0]]

    def _check_schema(self) -> None:
        if schema_of(self._connection.db) != expected_schema(self._format):
            raise self._connection.damaged("its tables are not those of an index")

    def _parsed_config(self) -> IndexConfig:
        try:
            refuse_many_values(self._config_json)
            values = from_json(self._config_json)
            if not isinstance(values, dict):
                raise ValueError("it is no object")
            config = written_config(values)
            if (format_of(config) == EXTENDED) != (self._format == EXTENDED):
                raise ValueError(f"it does not belong to format {self._format}")
            return config
        except (ValueError, InvalidParameterError) as error:
            raise DamagedIndexError(f"the configuration in {self._path} is not valid: {error}") from None

    def _read_config(self) -> str:
        found = self._connection.db.execute(
            "SELECT CASE WHEN typeof(value) = 'text' AND length(value) <= ? THEN value END "
            "FROM meta WHERE key = 'config'",
            (catalogue_bytes(self._path),),
        ).fetchone()
        if found is None or not isinstance(found[0], str):
            raise self._connection.damaged("its config is missing")
        return found[0]

    def version(self) -> int:
        """Read the number of commits so far, with one short query.

        Raises:
            StorageError: the catalogue cannot be read.
            DamagedIndexError: the catalogue has no state.
        """

        def read() -> int:
            self._connection.end_transaction()  # one that Ctrl-C has left would show an earlier commit
            return self._version()

        return self._connection.recovered(read)

    def _version(self) -> int:
        found = self._connection.db.execute(version_reading()).fetchone()
        if found is None or not isinstance(found[0], int) or not 0 <= found[0] <= LARGEST:
            raise self._connection.damaged("it has no state")
        return found[0]

    def read(self) -> Committed:
        """Read all tables in one transaction, so that their rows belong to the same commit.

        Raises:
            StorageError: the catalogue cannot be read.
            DamagedIndexError: the catalogue contradicts itself or the configuration.
        """
        states, checksums, cells = self._connection.recovered(self._tables)
        try:
            return committed_of(self.config, self._config_json, self._format, states, checksums, cells)
        except ValueError as error:
            raise self._connection.damaged(str(error)) from None

    def _tables(self) -> tuple[list[Any], dict[str, list[Any]], list[Any]]:
        """Read the rows of `state`, of `checksums` for every column, and of `cells`, no more than fit into the file."""
        try:
            self._connection.begin("DEFERRED")
            self._read_format()
            self._check_schema()
            states = self._connection.db.execute(state_reading(self.config)).fetchall()
            size = catalogue_bytes(self._path)
            *checksums, cells = (
                self._connection.db.execute(query, limits).fetchall()
                for query, limits in table_readings(self.config, size)
            )
            return states, dict(zip(names_of(self.config), checksums, strict=True)), cells
        finally:
            if self._connection.db.in_transaction:  # no call of Python here, into which Ctrl-C could come
                self._connection.db.execute("ROLLBACK")

    def commit(self, before: Committed, after: Committed, changed_cells: NDArray[np.int64]) -> None:
        """Commit the rows that were written to the columns, so that they belong to the index.

        Args:
            before: the last commit, as far as the caller knows.
            after: the commit to write.
            changed_cells: positions of the cells that may have changed. If the generation changes, all cells are
                written.

        Raises:
            ConcurrentWriteError: `before` is not the last commit, because another process has changed the index.
            DamagedIndexError: the counters of the catalogue are at their limits.
            StorageError: the commit failed and nothing was changed.
        """
        if max(after.version, after.generation) > LARGEST:
            raise DamagedIndexError(
                f"{self._path} counts {before.version:,} changes and {before.generation:,} compactions, which no "
                f"program makes, expected less than {LARGEST:,}: add the records to a new index"
            )
        self._connection.begin_writing()
        new_generation = before.generation != after.generation
        if new_generation:
            changed_cells = np.arange(len(after.cells))
        db = self._connection.db

        def write() -> None:
            if self._version() != before.version:
                raise ConcurrentWriteError(
                    f"another process has changed {self._path} in spite of the lock: open the index again"
                )
            if self._format != (version := format_of(self.config)):
                db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(version),))
            if new_generation:
                db.execute("DELETE FROM checksums")
                db.execute("DELETE FROM cells")
            for name in names_of(self.config):
                # The last block may have been partly filled: its checksum changes with every append.
                unchanged = 0 if new_generation else max(0, len(before.extents[name].crcs) - 1)
                db.executemany(
                    "INSERT OR REPLACE INTO checksums VALUES (?, ?, ?)",
                    checksum_rows(name, after.extents[name].crcs, unchanged),
                )
            db.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", cell_rows(after.cells, changed_cells))
            self._put_state(after)

        try:
            self._connection.transaction(write)
        except ConcurrentWriteError:
            raise
        except StorageError:
            with suppress(StorageError):
                if not db.in_transaction and self.version() == after.version:
                    return  # SQLite reported an error after the transaction had become durable
            raise

    def _put_state(self, committed: Committed) -> None:
        row = state_row(committed, self._config_json)
        self._connection.db.execute(f"INSERT OR REPLACE INTO state VALUES (1, {', '.join('?' * len(row))})", row)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
