"""A process that is killed during a change leaves the index as it was; the next writer deletes the rest."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from semcut.indexes import (
    FaissIndex,
)
from tests.indexes.storage.stored_index import (
    COLUMNS,
    CONFIG,
    assert_holds,
    column,
    python,
    six_records,
)


def test_bytes_after_the_committed_rows_are_ignored_and_overwritten(path, batch):
    for name in COLUMNS:
        with open(column(path, name), "ab") as file:
            file.write(b"\xff" * 1001)
    assert_holds(path, batch[:4])
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert_holds(path, batch)
    with FaissIndex.open(path) as index:
        sizes = index.stats().column_bytes
    leftover = {"removed": 1001}  # no record was removed, so the file was not written to
    assert {name: column(path, name).stat().st_size for name in COLUMNS} == {**sizes, **leftover}


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("number", range(1, len(COLUMNS)))
def test_a_process_killed_while_it_adds_leaves_the_earlier_records(tmp_path, call, number):
    batch = six_records()
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch[:3])
    done = python(
        """
        index, original, calls = FaissIndex.open(sys.argv[1]), getattr(os, sys.argv[2]), []

        def killed_at(*arguments):
            calls.append(arguments)
            if len(calls) == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(os, sys.argv[2], killed_at)
        index.add(batch[3:])
        """,
        tmp_path / "index",
        call,
        number,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_holds(tmp_path / "index", batch[:3])
    with FaissIndex.open(tmp_path / "index") as index:  # the end of the killed process has released its lock
        index.add(batch[3:])
    assert_holds(tmp_path / "index", batch)


@pytest.mark.parametrize("statement", ["INSERT OR REPLACE INTO state", "COMMIT"])
@pytest.mark.parametrize("size", [1, 3_000_000], ids=["small", "larger than SQLite's cache"])
def test_a_process_killed_in_its_transaction_leaves_the_earlier_records(tmp_path, statement, size):
    batch = six_records()
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch[:3])
    done = python(
        """
        import sqlite3

        class Killed(sqlite3.Connection):
            def execute(self, sql, *arguments):
                if sql.startswith(sys.argv[2]):
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().execute(sql, *arguments)

        connect = sqlite3.connect
        sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Killed, **options)
        index, rest = FaissIndex.open(sys.argv[1]), batch[3:]
        index.add(
            Encodings(
                probabilities=rest.probabilities, codes=rest.codes, features=rest.features, ids=rest.ids,
                uris=3 * ["x" * int(sys.argv[3])],
            )
        )
        """,
        tmp_path / "index",
        statement,
        size,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_holds(tmp_path / "index", batch[:3])
    with FaissIndex.open(tmp_path / "index") as index:
        index.add(batch[3:])
    assert_holds(tmp_path / "index", batch)


def test_a_process_killed_after_an_add_leaves_the_whole_batch(tmp_path):
    done = python(
        """
        index = FaissIndex.create(sys.argv[1], CONFIG)
        index.add(batch)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "index",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_holds(tmp_path / "index", six_records())


def test_every_column_is_on_the_disk_before_the_commit(tmp_path, config, batch, monkeypatch):
    with FaissIndex.create(tmp_path / "index", config) as index:
        synced, original = [], os.fsync

        def spy(handle):
            synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
            with FaissIndex.open(tmp_path / "index") as other:  # another process would see the earlier state
                assert len(other) == 0
            return original(handle)

        monkeypatch.setattr(os, "fsync", spy)
        index.add(batch)
        assert sorted(synced) == sorted(set(COLUMNS) - {"removed"})


def test_a_writer_deletes_the_generation_that_a_crashed_compaction_left(path, batch):
    (path / "generation-1").mkdir()
    (path / "generation-1" / "ids").write_bytes(bytes(100))
    with FaissIndex.open(path) as index:
        assert (path / "generation-1").exists()  # a reader deletes no file
        index.add(batch[4:])
        assert not (path / "generation-1").exists()
        index.compact()
    assert_holds(path, batch)
