"""The SQLite connection of a catalogue: read-only until it has to write, without endless statements, errors translated.

A catalogue may come from someone else. So `catalogue_guard` judges its files before SQLite opens them, and a reader has
no means to write. If a writer was killed in its transaction, the next reader must roll the transaction back, and opens
the catalogue for writing just for that.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from semcut.indexes.errors import DamagedIndexError, StorageError
from semcut.indexes.storage.catalogue_guard import Steps, judge_files, schema_of
from semcut.indexes.storage.fork_waits import ForkWait

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
        self.path, self._writable = path, new
        self._using = ForkWait()
        if not new:
            judge_files(path)
        self._connect("rw" if new else "ro")

    def _connect(self, mode: str) -> None:
        try:
            with self._using():
                self.db = sqlite3.connect(
                    _address(self.path, mode),
                    uri=True,
                    isolation_level=None,
                    check_same_thread=False,
                    timeout=_BUSY_SECONDS,
                )
        except sqlite3.Error as error:
            raise StorageError(f"cannot open {self.path}: {error}") from None
        self._close = weakref.finalize(self, self._using.call_soon, self.db.close)
        self._steps = Steps(self.db, self.path)
        if mode == "rw":
            with self.translated_errors():
                self.db.execute("PRAGMA synchronous = EXTRA")

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
            with self._using():
                before.close()

    def recovered(self, read: Callable[[], _T]) -> _T:
        """Call a function that reads; roll back the transaction of a killed writer first where that is necessary.

        A reader tries again with another connection if the catalogue seems damaged.

        Raises:
            DamagedIndexError, StorageError: as `translated_errors`, and if the transaction cannot be rolled back.
        """
        try:
            with self.translated_errors():
                return read()
        except _ReadOnlyError:
            if self._writable:
                raise
        except DamagedIndexError:
            # A connection that has met an empty file does not notice that another program has filled it again.
            if self._writable:
                raise
            judge_files(self.path)
            self._reconnect("ro")
            with self.translated_errors():
                return read()
        judge_files(self.path)
        with self.translated_errors():
            db = sqlite3.connect(_address(self.path, "rw"), uri=True, timeout=_BUSY_SECONDS)
            try:
                Steps(db, self.path)
                schema_of(db)  # any statement makes SQLite roll back
            finally:
                db.close()
        judge_files(self.path)  # the header may be another one now
        with self.translated_errors():
            return read()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction that writes."""
        with self.translated_errors():
            self.begin("IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def begin(self, kind: str) -> None:
        """Begin a transaction of one of SQLite's kinds."""
        if self.db.in_transaction:  # an earlier rollback has failed
            self.db.execute("ROLLBACK")
        self.db.execute(f"BEGIN {kind}")

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Convert the errors that SQLite raises in the block to a `StorageError` or `DamagedIndexError` with advice.

        A fork of this process waits for the end of the block.
        """
        self._steps.restart()
        try:
            with self._using():
                yield
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                if self._steps.exhausted:
                    raise self.damaged("reading it does not end") from None
                raise KeyboardInterrupt from None  # Ctrl-C in `Steps`, whose exceptions SQLite does not pass on
            if "locked" in str(error):
                raise StorageError(
                    f"{self.path} was locked by another program for {_BUSY_SECONDS} s: try again"
                ) from None
            if "readonly" in str(error):
                raise _ReadOnlyError(
                    f"{self.path} cannot be written to ({error}): an index can be changed, and recovered after a crash "
                    "of its writer, only where its directory is writable"
                ) from None
            if "no such table" in str(error):
                raise self.damaged(str(error)) from None
            advice = "free some space and try again; no record is lost" if "full" in str(error) else "no record is lost"
            raise StorageError(f"cannot use {self.path}: {error}; {advice}") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite decodes text when it is fetched
            raise self.damaged(str(error)) from None
        except sqlite3.Error as error:
            raise StorageError(f"cannot use {self.path}: {error}") from None

    def damaged(self, reason: str) -> DamagedIndexError:
        """Return the error for a damaged catalogue; the reason completes a sentence about it."""
        return DamagedIndexError(f"{self.path} is damaged ({reason}): restore the index from a backup")

    def close(self) -> None:
        """Close the database."""
        if self._close.detach() is not None:
            with self._using():
                self.db.close()


def _address(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def integrity_errors(path: Path) -> list[str]:
    """Run SQLite's integrity check on a catalogue and return what it reports, one sentence each; empty if sound."""
    try:
        judge_files(path)
        with ForkWait()():
            db = sqlite3.connect(_address(path, "ro"), uri=True, timeout=_BUSY_SECONDS)
            try:
                Steps(db, path)
                found = [str(text) for (text,) in db.execute("PRAGMA integrity_check(20)")]
            finally:
                db.close()
    except (sqlite3.Error, StorageError) as error:
        return [str(error)]
    return [] if found == ["ok"] else found
