"""Judge the files of a catalogue before SQLite opens them, and limit what SQLite may do afterwards.

An index can come from someone else. SQLite trusts the files beside a database: a journal may name another file, which
SQLite then deletes, and a write-ahead log replaces pages. semcut's catalogues never have either, so `judge_files`
refuses them. Then `schema_of` shows that the tables are exactly those of semcut, without views, triggers or computed
columns, before any of them is read. SQLite parses all of them when it loads them, before `schema_of` sees one: so
`limit_lengths` comes before the first statement of a connection, and `Steps` allows that one few steps. Later it ends
a statement that runs for ever, as one over a forged tree of pages does. A transaction that writes has no limit: the
catalogue has been read whole before it, and a slow disk may take minutes for new cells.

Source: https://www.sqlite.org/fileformat2.html, sections 1.3 (header) and 3 (rollback journal), and the name of a
super-journal at the end of a journal, https://www.sqlite.org/atomiccommit.html, section 5.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from semcut.indexes.errors import DamagedIndexError, NotAnIndexError, StorageError
from semcut.indexes.regular_files import open_binary, stored_bytes
from semcut.indexes.storage.catalogue_format import APPLICATION_ID, schema
from semcut.indexes.storage.fork_waits import lock

_JOURNAL_HEADER, _SUPER_JOURNAL = 28, 16
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_SQL_BYTES, _VALUE_BYTES = 4096, 1 << 16
"""Longest statement, and longest value but that of the configuration: several times what semcut has."""
_STEPS_PER_CALL, _SCHEMA_STEPS = 1000, 1000
_MOST_CALLS = 100_000
_SECONDS, _BYTES_PER_SECOND = 10.0, 10_000_000
"""Statements end after 100 million steps of SQLite's machine, or after these seconds: many times what they need. The
first one, which loads about 14 steps for each table or index, ends after `_SCHEMA_STEPS`."""

SchemaRow = tuple[str, str, str, "str | None"]


def judge_files(path: Path) -> None:
    """Raise an error unless SQLite can open the catalogue at `path` without touching any file but its journal.

    The catalogue itself is never opened here: closing it would end the locks that SQLite holds on it in this process.

    Raises:
        NotAnIndexError: the file is not the catalogue of an index.
        DamagedIndexError: there are files or headers beside or in the catalogue that semcut never writes.
        StorageError: the files cannot be read.
    """
    found = _status(path)
    if not stat.S_ISREG(found.st_mode):
        raise NotAnIndexError(f"{path} is not a regular file, expected the catalogue of an index")
    if stored_bytes(found) < found.st_size:
        # SQLite takes as much memory for one value as the file is large.
        raise _foreign(path, f"has a size of {found.st_size:,} bytes, most of them a hole that occupies nothing")
    for ending in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{ending}"):
            raise _foreign(Path(f"{path}{ending}"), "is a file of a write-ahead log")
    journal = _journal(path)  # before SQLite opens it
    page = _page_bytes(path)
    if journal is not None:
        _judge_journal(path, *journal, page)


def _status(path: Path) -> os.stat_result:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise StorageError(
            f"{path} is no longer there: if the index was moved, open it where it is now; if it was deleted, restore "
            "it from a backup"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def catalogue_bytes(path: Path) -> int:
    """Return the size of a catalogue as `stored_bytes` does.

    Raises:
        StorageError: there is no such file any more.
    """
    return stored_bytes(_status(path))


def _page_bytes(path: Path) -> int:
    """Check through a connection that can only read that the catalogue is one of semcut; return its page size."""
    reason = f"{path} is not the catalogue of a semcut index"
    try:
        try:
            application, page = _header(path, "mode=ro&nolock=1")  # fails where there should be a write-ahead log
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise StorageError(f"cannot read {path}: {error}, or semcut did not write it") from None
            application, page = _header(path, "immutable=1")  # there is a journal, at which this does not look
    except sqlite3.DatabaseError:
        raise NotAnIndexError(reason) from None
    if application != APPLICATION_ID:
        raise NotAnIndexError(reason)
    return page


def _header(path: Path, options: str) -> tuple[int, int]:
    with lock():
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)
        try:
            limit_lengths(db)
            application, page = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "page_size"))
            return int(application), int(page)
        finally:
            db.close()


def _journal(path: Path) -> tuple[bytes, bytes] | None:
    """Read the first and the last bytes of the journal of a catalogue; None if there is none."""
    journal = f"{path}-journal"
    try:
        with open_binary(journal) as file:
            header = file.read(_JOURNAL_HEADER)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SUPER_JOURNAL))
            return header, file.read(_SUPER_JOURNAL)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {journal}: {error.strerror}") from None


def _judge_journal(path: Path, header: bytes, end: bytes, page: int) -> None:
    """Check the journal of a catalogue; a writer that was killed leaves one, and SQLite uses it."""
    journal = Path(f"{path}-journal")
    if len(end) == _SUPER_JOURNAL and end.endswith(_JOURNAL_MAGIC):
        raise _foreign(journal, "names another file, which SQLite would delete")
    if len(header) < _JOURNAL_HEADER or not header.startswith(_JOURNAL_MAGIC):
        return  # SQLite ignores it
    pages, sector, journal_page = struct.unpack_from(">III", header, 16)
    if journal_page != page or pages * page > catalogue_bytes(path):
        raise _foreign(journal, "is of another or a larger catalogue")
    if not 32 <= sector <= 65_536 or sector & (sector - 1):
        raise _foreign(journal, "has sectors of an impossible size")


def _foreign(path: Path, what: str) -> DamagedIndexError:
    return DamagedIndexError(
        f"{path} {what}; semcut never writes such a file: do not use this index, or restore it from a backup"
    )


class Steps:
    """Counts the steps of SQLite's machine, and ends a statement that takes too many, or too long for the file's size.

    SQLite calls the object between steps, which is also when Ctrl-C is noticed.

    Args:
        db: the connection whose statements are counted.
        path: its file.

    Attributes:
        schema_loaded: whether a statement has succeeded; until then, each may take few steps.
        writing: whether statements of a transaction that writes are running, which are not ended.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._path, self.schema_loaded, self.writing = path, False, False
        self.restart()
        db.set_progress_handler(self, _STEPS_PER_CALL)

    def restart(self) -> None:
        """Begin to count anew, before a statement."""
        self._calls, self._end = 0, float("inf")

    @property
    def exhausted(self) -> bool:
        """Whether a statement was ended since the last `restart`."""
        return self._calls > _MOST_CALLS

    def __call__(self) -> bool:
        """Return whether SQLite is to end the statement."""
        if self.writing:
            return False
        if not self._calls:
            self._end = time.monotonic() + _SECONDS
            with suppress(StorageError):  # the file was deleted, and no exception would reach the caller
                self._end += catalogue_bytes(self._path) / _BYTES_PER_SECOND
        self._calls += 1
        loading_long = not self.schema_loaded and self._calls * _STEPS_PER_CALL >= _SCHEMA_STEPS
        if loading_long or time.monotonic() >= self._end:
            self._calls = _MOST_CALLS + 1
        return self.exhausted


def limit_lengths(db: sqlite3.Connection, longest: int = _VALUE_BYTES) -> None:
    """Limit the bytes of a statement, those of the schema among them, and of a value that is read or written.

    Args:
        db: a connection, before its first statement.
        longest: bytes of the longest value; at least `_VALUE_BYTES` are allowed.
    """
    if sys.version_info >= (3, 11):  # `setlimit` is new there; in 3.10, only the number of definitions is limited
        db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _SQL_BYTES)
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(_VALUE_BYTES, longest))


def schema_of(db: sqlite3.Connection) -> list[SchemaRow]:
    """Read the definitions of all tables, indexes, views and triggers of a database, at most 20, in order."""
    return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name LIMIT 20").fetchall()


@cache
def expected_schema(version: int) -> list[SchemaRow]:
    """Return what `schema_of` reads in a catalogue of a format version."""
    with lock():
        db = sqlite3.connect(":memory:")
        try:
            db.executescript(schema(version))
            return schema_of(db)
        finally:
            db.close()
