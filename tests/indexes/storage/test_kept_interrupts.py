"""Ctrl-C whose exception a program keeps, as the interactive interpreter does, leaves no lock of an index held."""

from __future__ import annotations

import signal
import sys
import threading

import numpy as np
import pytest

from semcut.indexes import FaissIndex
from semcut.indexes.storage import catalogue_connection, catalogue_guard
from semcut.indexes.storage.call_if_free import call_if_free
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.restore import restore
from semcut.indexes.storage.verify import verify_path
from semcut.indexes.storage.writer_lock import WriterLock
from tests.indexes.interrupts import interrupted_everywhere
from tests.indexes.storage.stored_index import catalogue


@pytest.fixture
def index(path):
    with FaissIndex.open(path, engine="faiss") as index:
        yield index


def test_of_a_refresh(index):
    assert interrupted_everywhere(index.refresh, index.refresh) > 15


def test_of_reading_a_catalogue(index, path):
    def read():
        opened = Catalogue(path / CATALOGUE)
        try:
            opened.read()
        finally:
            opened.close()

    assert interrupted_everywhere(read, index.refresh) > 200


def test_of_the_change_of_the_engine(index):
    scanner, snapshot = index.scanner, index.snapshot

    def adopt():
        assert index._adopt(scanner, snapshot)

    assert interrupted_everywhere(adopt, index.refresh) > 5


def test_of_a_commit(path):
    """Another program can write afterwards, and nothing is half done."""
    opened = Catalogue(path / CATALOGUE)

    def commit():
        before = opened.read()
        opened.commit(before, before._replace(version=before.version + 1), np.arange(2))

    def written_by_another():
        with catalogue(path) as db:
            db.execute("PRAGMA busy_timeout = 0")
            db.execute("BEGIN IMMEDIATE")

    assert interrupted_everywhere(commit, written_by_another) > 100
    opened.close()


def test_a_transaction_that_was_left_shows_no_earlier_commit(path):
    opened = Catalogue(path / CATALOGUE)
    before = opened.version()
    opened._connection.db.execute("BEGIN")
    with catalogue(path) as db:
        db.execute("UPDATE state SET version = version + 1")
    assert opened.version() == before + 1
    opened._connection.db.execute("BEGIN")
    opened._connection.db.execute("SELECT version FROM state").fetchone()
    assert opened.version() == before + 1
    with catalogue(path) as db:
        db.execute("PRAGMA busy_timeout = 0")
        db.execute("UPDATE state SET version = version + 1")
    assert opened.version() == before + 2
    opened.close()


def test_a_call_under_a_lock_that_is_free_or_not():
    lock, called = threading.Lock(), []
    assert call_if_free(lock, lambda: called.append(lock.locked()))
    with lock:
        assert not call_if_free(lock, lambda: called.append(None))
    with pytest.raises(ZeroDivisionError):
        call_if_free(lock, lambda: 1 / 0)
    assert (called, lock.locked()) == ([True], False)


@pytest.mark.parametrize("member", ["verify", "verify_path"])
def test_ctrl_c_ends_the_verification_of_a_large_catalogue(path, member, monkeypatch):
    class Interrupted(catalogue_guard.Steps):
        def __call__(self):
            signal.raise_signal(signal.SIGINT)
            return super().__call__()

    monkeypatch.setattr(catalogue_guard, "_STEPS_PER_CALL", 10)
    with FaissIndex.open(path) as index:
        monkeypatch.setattr(catalogue_connection, "Steps", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.verify() if member == "verify" else verify_path(path)


class WithLock:
    """Interrupts when the lock of a directory has been taken, the n-th time."""

    def __init__(self, time):
        self.left = time

    def __call__(self, frame, event, _):
        if event == "return" and frame.f_code is WriterLock.acquire.__code__:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


def interrupted_with_the_lock(call, time=1):
    """Interrupt a call when it has taken the lock of a directory, and return the exception."""
    sys.setprofile(WithLock(time))
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            call()
    finally:
        sys.setprofile(None)
    return caught


def test_of_the_first_change(path, batch):
    with FaissIndex.open(path) as index, FaissIndex.open(path) as other:
        kept = interrupted_with_the_lock(lambda: index.add(batch[4:5]))
        with FaissIndex.open(path) as writer:
            writer.add(batch[5:])
        assert len(other) == len(index) == 4
        index.add(batch[4:5])  # begins with what the other has committed
        assert len(index) == 6
        assert kept.type is KeyboardInterrupt


def test_of_creating_an_index(tmp_path, config, batch):
    kept = interrupted_with_the_lock(lambda: FaissIndex.create(tmp_path / "index", config))
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
    assert kept.type is KeyboardInterrupt


@pytest.mark.parametrize("time", [1, 2], ids=["the copy", "the index"])
def test_of_restoring_an_index(tmp_path, path, batch, time):
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    kept = interrupted_with_the_lock(lambda: restore(tmp_path / "backup", path), time)
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert kept.type is KeyboardInterrupt
