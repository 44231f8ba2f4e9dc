"""Ctrl-C whose exception a program keeps, as the interactive interpreter does, leaves no lock of an index held."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

from semcut.indexes import FaissIndex
from semcut.indexes.storage import catalogue_connection, catalogue_guard
from semcut.indexes.storage.call_if_free import call_if_free
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.verify import verify_path
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
