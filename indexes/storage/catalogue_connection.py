"""The SQLite connection of a catalogue: read-only until it has to write, without endless statements, errors translated.

A catalogue may come from someone else. So `catalogue_guard` judges its files before SQLite opens them, and a reader has
no means to write. If a writer was killed in its transaction, the next reader must roll the transaction back, and opens
the catalogue for writing just for that.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from semcut.indexes.errors import DamagedIndexError, StorageError
from semcut.indexes.storage.catalogue_format import READ_VERSIONS
from semcut.indexes.storage.catalogue_guard import (
    Steps,
    catalogue_bytes,
    expected_schema,
    judge_files,
    limit_lengths,
    schema_of,
)
from semcut.indexes.storage.fork_waits import call_soon, lock

_BUSY_SECONDS = 30
_T = TypeVar("_T")


class _ReadOnlyError(StorageError):
    """SQLite would have to write, which the file system or the connection does not allow."""


class CatalogueConnection:
    """An open connection. Only one thread may use it at any moment.

    Args:
        path: the database file, which must exist.
        new: whether the file is empty, to be filled by the caller. Otherwise its files are judged first.

    Attributes:
        path: as given.
        db: the connection. `begin_writing` replaces it.

    Raises:
        NotAnIndexError, DamagedIndexError: see `judge_files`.
        StorageError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path, self._new, self._writable = path, new, new
        if not new:
            judge_files(path)
        self._connect("rw" if new else "ro")

    def _connect(self, mode: str) -> None:
        try:
            with lock():
                self.db = sqlite3.connect(
                    _address(self.path, mode),
                    uri=True,
                    isolation_level=None,
                    check_same_thread=False,
                    timeout=_BUSY_SECONDS,
                )
        except sqlite3.Error as error:
            raise StorageError(f"cannot open {self.path}: {error}") from None
        self._close = weakref.finalize(self, call_soon, self.db.close)
        if not self._new:
            limit_lengths(self.db)
        self._steps = Steps(self.db, self.path)
        if mode == "rw":
            self.translated(lambda: self.db.execute("PRAGMA synchronous = EXTRA"))

    def begin_writing(self) -> None:
        """Open the catalogue for writing, unless it is.

        Raises:
            DamagedIndexError: there are files beside the catalogue that semcut never writes.
            StorageError: the catalogue cannot be opened.
        """
        if not self._writable:
            judge_files(self.path)
            self._reconnect("rw")
            self._writable = True

    def _reconnect(self, mode: str) -> None:
        before, finalizer = self.db, self._close
        self._connect(mode)
        if finalizer.detach() is not None:
            with lock():
                before.close()

    def recovered(self, read: Callable[[], _T]) -> _T:
        """Call a function that reads; roll back the transaction of a killed writer first where that is necessary.

        A reader tries again with another connection if the catalogue seems damaged.

        Raises:
            DamagedIndexError, StorageError: as `translated`, and if the transaction cannot be rolled back.
        """
        try:
            return self.translated(read)
        except _ReadOnlyError:
            if self._writable:
                raise
        except DamagedIndexError:
            # A connection that has met an empty file does not notice that another program has filled it again.
            if self._writable:
                raise
            judge_files(self.path)
            self._reconnect("ro")
            self.translated(lambda: schema_of(self.db))  # alone, while few steps are allowed
            return self.translated(read)
        judge_files(self.path)
        _asked_once(self.path, "rw", schema_of)  # any statement makes SQLite roll back
        judge_files(self.path)  # the header may be another one now
        return self.translated(read)

    def transaction(self, write: Callable[[], object]) -> None:
        """Call a function in a transaction that writes, however long it takes. Ctrl-C ends it.

        Raises:
            DamagedIndexError, StorageError: as `translated`; nothing was written.
        """

        def run() -> None:
            try:
                self.begin("IMMEDIATE")
                self._steps.writing = True
                write()
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # no call of Python here, into which Ctrl-C could come
                    self.db.execute("ROLLBACK")
                raise
            finally:
                self._steps.writing = False

        self.translated(run)

    def begin(self, kind: str) -> None:
        """Begin a transaction of one of SQLite's kinds."""
        self.end_transaction()
        self.db.execute(f"BEGIN {kind}")

    def end_transaction(self) -> None:
        """Roll back the current transaction, or one that an error or Ctrl-C has left, if there is one."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def translated(self, call: Callable[[], _T]) -> _T:
        """Call a function that uses `db`; a fork of this process waits for its end.

        Raises:
            DamagedIndexError, StorageError: in place of the errors of SQLite, with advice.
        """
        return _translated(call, self._steps, self.path)

    def with_long_values(self, read: Callable[[], _T]) -> _T:
        """Call a function that reads values that may be as long as the file; the schema must be known to be sound.

        Raises:
            DamagedIndexError, StorageError: as `translated`.
        """
        limit_lengths(self.db, catalogue_bytes(self.path))
        try:
            return self.translated(read)
        finally:
            limit_lengths(self.db)

    def damaged(self, reason: str) -> DamagedIndexError:
        """Return the error for a damaged catalogue; the reason completes a sentence about it."""
        return _damaged(self.path, reason)

    def close(self) -> None:
        """Close the database."""
        if self._close.detach() is not None:
            with lock():
                self.db.close()


def _damaged(path: Path, reason: str) -> DamagedIndexError:
    return DamagedIndexError(f"{path} is damaged ({reason}): restore the index from a backup")


def _translated(call: Callable[[], _T], steps: Steps, path: Path) -> _T:
    """Call a function that uses a connection, whose steps are counted anew; see `CatalogueConnection.translated`."""
    steps.restart()
    try:
        with lock():
            result = call()
        steps.schema_loaded = True
        return result
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            if steps.exhausted:
                raise _damaged(path, "reading it does not end") from None
            raise KeyboardInterrupt from None  # Ctrl-C in `Steps`, whose exceptions SQLite does not pass on
        if "locked" in str(error):
            raise StorageError(f"{path} was locked by another program for {_BUSY_SECONDS} s: try again") from None
        if "readonly" in str(error):
            raise _ReadOnlyError(
                f"{path} cannot be written to ({error}): an index can be changed, and recovered after a crash "
                "of its writer, only where its directory is writable"
            ) from None
        if "no such table" in str(error):
            raise _damaged(path, str(error)) from None
        advice = "free some space and try again; no record is lost" if "full" in str(error) else "no record is lost"
        raise StorageError(f"cannot use {path}: {error}; {advice}") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite decodes text when it is fetched
        raise _damaged(path, str(error)) from None
    except sqlite3.Error as error:
        raise StorageError(f"cannot use {path}: {error}") from None


def _address(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _asked_once(path: Path, mode: str, ask: Callable[[sqlite3.Connection], _T]) -> _T:
    """Call a function with a connection of its own to a catalogue, which has loaded the schema.

    Raises:
        DamagedIndexError, StorageError: as `CatalogueConnection.translated`.
    """
    with lock():
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(_address(path, mode), uri=True, timeout=_BUSY_SECONDS)
            opened = db
            limit_lengths(db)
            steps = Steps(db, path)
            _translated(lambda: schema_of(opened), steps, path)  # alone, while few steps are allowed
            return _translated(lambda: ask(opened), steps, path)
        except sqlite3.Error as error:
            raise StorageError(f"cannot open {path}: {error}") from None
        finally:
            if db is not None:
                db.close()


def integrity_errors(path: Path) -> list[str]:
    """Run SQLite's integrity check on a catalogue and return what it reports, one sentence each; empty if sound."""

    def check(db: sqlite3.Connection) -> list[tuple[object]]:
        if schema_of(db) not in map(expected_schema, READ_VERSIONS):
            raise _damaged(path, "its tables are not those of an index")
        limit_lengths(db, catalogue_bytes(path))
        return db.execute("PRAGMA integrity_check(20)").fetchall()

    try:
        judge_files(path)
        rows = _asked_once(path, "ro", check)
    except StorageError as error:
        return [str(error)]
    found = [str(text) for (text,) in rows]
    return [] if found == ["ok"] else found
