"""Several processes use one index: one writes, any number read, and each reader sees one commit."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    ClosedIndexError,
    ConcurrentWriteError,
    FaissIndex,
    LockedError,
    StorageError,
)
from semcut.indexes.storage.directory import CATALOGUE
from tests.indexes.generate import assert_same
from tests.indexes.storage.stored_index import (
    CONFIG,
    HEAD,
    assert_holds,
    contents,
    fork,
    python,
    six_records,
    start_python,
)


def test_the_error_of_a_second_writer_names_the_first(path, batch):
    with FaissIndex.open(path) as first, FaissIndex.open(path) as second:
        before = second.search(batch, k=6, cutoff=0.0)
        first.add(batch[4:5])
        for change in (lambda: second.add(batch[5:]), lambda: second.remove([10]), second.compact):
            with pytest.raises(LockedError, match=rf"process {os.getpid()} .this process. on .*, since 2"):
                change()
        assert len(second) == 4
        assert_same(second.search(batch, k=6, cutoff=0.0), before)
        first.close()
        second.add(batch[5:])  # after catching up
        assert second.ids().tolist() == batch.ids.tolist()
    assert_holds(path, batch)


def test_a_change_in_spite_of_the_lock_is_noticed(path, batch):
    with FaissIndex.open(path) as first, FaissIndex.open(path) as second:
        first.add(batch[4:5])
        (path / "lock").unlink()
        second.add(batch[5:])
        with pytest.raises(ConcurrentWriteError, match="in spite of the lock: open the index again"):
            first.remove([10])
        assert len(first) == 5
    assert_holds(path, batch)


def test_a_catalogue_locked_by_another_program_is_waited_for_and_reported(path, batch, monkeypatch):
    monkeypatch.setattr("semcut.indexes.storage.catalogue_connection._BUSY_SECONDS", 1)
    with FaissIndex.open(path) as index:
        other = sqlite3.connect(path / CATALOGUE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked by another program"):
            index.add(batch[4:])
        with FaissIndex.open(path) as reader:  # readers do not wait
            assert len(reader) == 4
        other.execute("ROLLBACK")
        other.close()
        index.add(batch[4:])
    assert_holds(path, batch)


def test_only_one_of_two_processes_that_add_at_once_succeeds(tmp_path):
    batch = six_records()
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch[:2])
    script = """
        index = FaissIndex.open(sys.argv[1])
        first = int(sys.argv[2])
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            index.add(batch[first : first + 2])
        except LockedError:
            print("refused")
        else:
            print("added")
            sys.stdin.readline()
    """
    writers = [
        start_python(script, tmp_path / "index", first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for first in (2, 4)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    ends = [writer.stdout.readline().strip() for writer in writers]
    for writer in writers:
        writer.communicate("close", timeout=60)
    assert sorted(ends) == ["added", "refused"]
    added = 2 + 2 * ends.index("added")
    assert_holds(tmp_path / "index", batch[[0, 1, added, added + 1]])


def test_an_index_opened_while_another_process_adds_is_as_of_one_commit(tmp_path):
    batch = six_records()
    FaissIndex.create(tmp_path / "index", CONFIG).close()
    script = """
        index = FaissIndex.open(sys.argv[1])
        for number in range(150):
            row = batch[[number % 6]]
            index.add(
                Encodings(probabilities=row.probabilities, codes=row.codes, features=row.features, ids=[number])
            )
    """
    errors = tmp_path / "errors"
    writer = fork(HEAD + textwrap.dedent(script), [tmp_path / "index"], tmp_path / "output", errors)
    sizes = set()
    while writer.is_alive() or not sizes:
        with FaissIndex.open(tmp_path / "index") as index:
            size = len(index)
            stats, found = index.stats(), index.search(batch, k=150, cutoff=0.0, shortlist=None)
        assert stats.records == sum(stats.partitions) == size
        relevant = (batch.probabilities @ batch.probabilities.T > 0)[:, np.arange(size) % 6]
        np.testing.assert_array_equal((found.ids >= 0).sum(axis=1), relevant.sum(axis=1))
        sizes.add(size)
    assert writer.exitcode == 0, errors.read_text()
    with FaissIndex.open(tmp_path / "index") as index:
        assert len(index) == 150


def test_a_read_only_index_is_searched_but_not_added_to(batch):
    with tempfile.TemporaryDirectory() as directory:  # outside of pytest's directory, which only its owner may read
        path = Path(directory) / "index"
        with FaissIndex.create(path, CONFIG) as index:
            index.add(six_records()[:4])
        for file in path.rglob("*"):
            file.chmod(0o555 if file.is_dir() else 0o444)
        path.chmod(0o555)
        Path(directory).chmod(0o755)
        done = python(
            """
            with FaissIndex.create(None, CONFIG) as other:  # imports modules that the other user may not read
                other.add(batch)
                other.search(batch, k=1)
            if os.geteuid() == 0:  # permissions do not restrict root
                os.setgid(65534)
                os.setuid(65534)
            index = FaissIndex.open(sys.argv[1])
            print(index.search(batch, k=1, cutoff=0.0).ids.ravel().tolist())
            try:
                index.add(batch[4:])
            except StorageError as error:
                print(len(index), error)
            index.close()
            """,
            path,
        )
        path.chmod(0o755)
        assert done.returncode == 0, done.stderr
        found, refused = done.stdout.splitlines()
        assert str(six_records().ids[0]) in found
        assert refused.startswith("4 cannot ")
        assert_holds(path, six_records()[:4])


def test_an_index_put_in_the_place_of_an_open_one_is_not_touched(path, tmp_path, config, batch):
    with FaissIndex.open(path) as index:
        path.rename(tmp_path / "moved")
        with FaissIndex.create(path, config) as other:
            other.add(batch[:1])
            other.compact()
        before = contents(path)
        for change in (lambda: index.add(batch[4:]), lambda: index.remove([10]), index.compact):
            with pytest.raises(StorageError, match="not the index that was opened here, it was"):
                change()
        assert len(index) == 4
        assert {**contents(path), "lock": b""} == {**before, "lock": b""}
    assert_holds(path, batch[:1])
    assert_holds(tmp_path / "moved", batch[:4])


def test_a_forked_child_that_closes_an_index_leaves_the_changes_of_its_parent_alone(tmp_path):
    done = python(
        """
        index = FaissIndex.create(sys.argv[1], CONFIG, durability="close")
        index.add(batch[:2])
        child = os.fork()
        if not child:
            index.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        index.add(batch[2:])
        index.close()
        """,
        tmp_path / "index",
    )
    assert done.returncode == 0, done.stderr
    assert_holds(tmp_path / "index", six_records())


def test_an_iteration_of_a_closed_index_moves_no_position_in_files_of_the_program(path, tmp_path):
    index = FaissIndex.open(path)
    batches = index.iterate(batch_size=1)
    next(batches)
    index.close()
    (tmp_path / "own").write_bytes(bytes(10_000))
    own = [os.open(tmp_path / "own", os.O_RDONLY) for _ in range(30)]
    with pytest.raises(ClosedIndexError):
        next(batches)
    assert [os.lseek(file, 0, os.SEEK_CUR) for file in own] == [0] * 30
    for file in own:
        os.close(file)
