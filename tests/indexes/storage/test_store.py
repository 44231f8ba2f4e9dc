"""A stored index is as it was at the last completed add, whatever happened since; everything else is a clear error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    ClosedIndexError,
    ConcurrentWriteError,
    DamagedIndexError,
    Encodings,
    FaissIndex,
    FormatVersionError,
    IndexConfig,
    IndexExistsError,
    InvalidParameterError,
    LockedError,
    NotAnIndexError,
    StorageError,
)
from semcut.indexes.storage.column_files import NAMES
from semcut.indexes.storage.store import CATALOGUE
from tests.indexes.conftest import CONFIG
from tests.indexes.generate import assert_same, assert_same_records

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path, config, batch) -> Path:
    """A stored index, closed, with the first four records of the batch."""
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch[:2])
        index.add(batch[2:4])
    return tmp_path / "index"


def assert_holds(path: Path, batch: Encodings) -> None:
    """The index at the path holds exactly these records, and finds them."""
    with FaissIndex.open(path) as index:
        assert len(index) == len(batch)
        assert_same_records(index.get(batch.ids), batch)
        with FaissIndex.create(None, index.config) as fresh:
            fresh.add(batch)
            assert index.stats() == fresh.stats()
            for shortlist in (None, 10):
                asked = {"k": 10, "cutoff": 0.1, "shortlist": shortlist}
                assert_same(index.search(batch, **asked), fresh.search(batch, **asked))


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def column(path: Path, name: str) -> Path:
    """The file of a column of an index that was never compacted."""
    return path / "generation-0" / name


@contextmanager
def catalogue(path: Path):
    """The catalogue of the index at a path, opened with sqlite3 alone; changes are committed."""
    db = sqlite3.connect(path / CATALOGUE)
    try:
        with db:
            yield db
    finally:
        db.close()


HEAD = """
import errno, os, resource, signal, sys
import numpy as np
from semcut.indexes import *
from tests.indexes.storage.test_store import CONFIG, six_records
batch = six_records()
"""


def python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Runs a script in a process of its own, to its end; `HEAD` says what it finds."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def six_records() -> Encodings:
    """Six records for `CONFIG`."""
    rng = np.random.default_rng(0)
    return Encodings(
        probabilities=rng.dirichlet(np.full(CONFIG.classes, 0.5), 6).astype(np.float32),
        codes=rng.integers(0, 256, (6, CONFIG.bits // 8), np.uint8),
        features=rng.standard_normal((6, CONFIG.dim)).astype(np.float32),
        ids=np.array([5, 2**62, 3, 8, 0, 77]),
        uris=["a", None, "c", None, "e", "f"],
    )


# what is stored


def test_an_index_is_opened_as_it_was(path, batch):
    assert_holds(path, batch[:4])
    assert_holds(path, batch[:4])


def test_an_empty_index_can_be_opened_and_filled(tmp_path, config, batch):
    FaissIndex.create(tmp_path / "index", config).close()
    with FaissIndex.open(tmp_path / "index") as index:
        assert len(index) == 0
        assert index.config == config
        index.add(batch)
    assert_holds(tmp_path / "index", batch)


def test_an_index_is_one_file_per_column_a_catalogue_and_a_lock(path, batch):
    assert sorted(contents(path)) == sorted([*(f"generation-0/{name}" for name in NAMES), CATALOGUE, "lock"])
    np.testing.assert_array_equal(np.fromfile(column(path, "ids"), "<i8"), batch.ids[:4])
    np.testing.assert_array_equal(np.fromfile(column(path, "codes"), np.uint8), batch.codes[:4].ravel())
    np.testing.assert_array_equal(np.fromfile(column(path, "probabilities"), "<f4"), batch.probabilities[:4].ravel())
    np.testing.assert_array_equal(np.fromfile(column(path, "features"), "<f4"), batch.features[:4].ravel())
    assert column(path, "uri_bytes").read_bytes() == b"a.jpg\0c.jpg\0d.jpg\0"
    assert np.fromfile(column(path, "uri_ends"), "<i8").tolist() == [6, 6, 12, 18]
    assert column(path, "removed").read_bytes() == b""


def test_the_catalogue_has_the_checksums_of_every_column(path):
    with catalogue(path) as db:
        found = dict(db.execute("SELECT name, crcs FROM checksums"))
    filled = [name for name in NAMES if name != "removed"]
    assert found == {name: zlib.crc32(column(path, name).read_bytes()).to_bytes(4, "little") for name in filled}


@pytest.mark.parametrize("name", ["a b", "50% of #1?", "ü\N{SNOWMAN}", "a'b\"c", "new/nested/directory", "-x"])
def test_a_path_may_be_any_name(tmp_path, config, batch, name):
    with FaissIndex.create(tmp_path / name, config) as index:
        index.add(batch)
    assert_holds(tmp_path / name, batch)


def test_paths_may_be_relative_and_strings(tmp_path, config, batch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FaissIndex.create("index", config) as index:
        index.add(batch)
        monkeypatch.chdir("/")
        index.add(moved(batch, 1000))
    with FaissIndex.open(str(tmp_path / "index")) as index:
        assert len(index) == 12


def test_a_copied_directory_is_an_index(path, tmp_path, batch):
    shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(path)
    assert_holds(tmp_path / "copy", batch[:4])


@pytest.mark.parametrize(
    "settings",
    [{"prior": (0.1, 1 / 3, 1e-6)}, {"similarity": [[1, 0.1, 0], [0.1, 1, 1 / 3], [0, 1 / 3, 50]]}, {"groups": 2}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_configuration_is_kept_exactly(tmp_path, batch, settings):
    config = IndexConfig(classes=3, bits=32, dim=4, **settings)
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
        expected = index.search(batch, k=6, cutoff=0.0)
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.config == config
        assert_same(index.search(batch, k=6, cutoff=0.0), expected)


def moved(batch: Encodings, by: int) -> Encodings:
    """The same records under other ids."""
    return Encodings(
        probabilities=batch.probabilities,
        codes=batch.codes,
        features=batch.features,
        ids=batch.ids + by,
        uris=batch.uris,
    )


# what is not an index


def test_an_index_is_not_created_over_anything(path, tmp_path, config, batch):
    before = contents(path)
    with pytest.raises(IndexExistsError, match=r"index exists already .*open the index there, or choose another path"):
        FaissIndex.create(path, config)
    assert contents(path) == before
    (tmp_path / "file").write_text("text")
    with pytest.raises(IndexExistsError, match="file exists already"):
        FaissIndex.create(tmp_path / "file", config)
    assert (tmp_path / "file").read_text() == "text"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(IndexExistsError, match="photos exists already"):
        FaissIndex.create(tmp_path / "photos", config)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_an_index_is_created_in_an_empty_directory(tmp_path, config, batch):
    (tmp_path / "index").mkdir()
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
    assert_holds(tmp_path / "index", batch)


def test_an_index_cannot_be_made_below_a_file(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        FaissIndex.create(tmp_path / "file" / "index", config)


def missing(path: Path) -> None:
    pass


def plain_file(path: Path) -> None:
    path.write_text("text")


def empty_directory(path: Path) -> None:
    path.mkdir()


def catalogue_of(data: bytes):
    def write(path: Path) -> None:
        path.mkdir()
        (path / CATALOGUE).write_bytes(data)

    return write


def another_database(path: Path) -> None:
    path.mkdir()
    with catalogue(path) as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('format', '1')")


def catalogue_is_a_directory(path: Path) -> None:
    (path / CATALOGUE).mkdir(parents=True)


@pytest.mark.parametrize(
    "make",
    [
        missing,
        plain_file,
        empty_directory,
        catalogue_of(b""),
        catalogue_of(b"garbage"),
        catalogue_of(np.random.default_rng(0).bytes(10_000)),
        catalogue_of(b"SQLite format 3\0" + bytes(1000)),
        another_database,
        catalogue_is_a_directory,
    ],
    ids=["missing", "file", "empty", "no bytes", "text", "noise", "header only", "other database", "directory"],
)
def test_what_is_not_an_index_is_not_opened(tmp_path, make):
    make(tmp_path / "index")
    with pytest.raises(NotAnIndexError, match="index"):
        FaissIndex.open(tmp_path / "index")
    assert (tmp_path / "index").exists() == (make is not missing)


@pytest.mark.parametrize("version", ["0", "2", "4", "3.0", ""])
def test_another_format_version_is_not_opened(path, version):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (version,))
    with pytest.raises(FormatVersionError, match=rf"format version {version} but this semcut reads version 3"):
        FaissIndex.open(path)


# damage


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_damage(path, name):
    column(path, name).unlink()
    with pytest.raises(DamagedIndexError, match=rf"{name} is missing.*backup"):
        FaissIndex.open(path)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "removed"])
@pytest.mark.parametrize("lost", [1, None], ids=["one byte", "everything"])
def test_a_column_that_was_cut_short_is_damage(path, name, lost):
    size = column(path, name).stat().st_size
    os.truncate(column(path, name), 0 if lost is None else size - lost)
    with pytest.raises(DamagedIndexError, match=rf"{name} has \d+ bytes, expected {size} for \d+ rows.*backup"):
        FaissIndex.open(path)


def forge(path: Path, name: str, values: np.ndarray) -> None:
    """Write a column of four rows, and a checksum that matches."""
    values.tofile(column(path, name))
    with catalogue(path) as db:
        crc = zlib.crc32(values.tobytes()).to_bytes(4, "little")
        db.execute("UPDATE checksums SET crcs = ? WHERE name = ?", (crc, name))


@pytest.mark.parametrize("cell", [4, 2**31 - 1, -1])
def test_a_column_of_cells_that_contradicts_the_catalogue_is_damage(path, cell):
    numbers = np.fromfile(column(path, "cells"), "<i4")
    numbers[1] = cell  # there are cells 0 to 3
    forge(path, "cells", numbers)
    limit = "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))"
    done = python(f"{limit}; FaissIndex.open(sys.argv[1])", path)
    assert "DamagedIndexError" in done.stderr, f"exit status {done.returncode}: {done.stderr[-300:]}"


@pytest.mark.parametrize("rows", [[4], [-1], [0, 0], [2**62]])
def test_removed_rows_that_cannot_be_are_damage(path, batch, rows):
    with FaissIndex.open(path) as index:
        index.remove(batch.ids[: len(rows)])
    forge(path, "removed", np.array(rows, "<i8"))
    with pytest.raises(DamagedIndexError, match="removed"):
        FaissIndex.open(path)


@pytest.mark.parametrize("ends", [[6, 6, 12, 19], [6, 5, 12, 18], [-1, 6, 12, 18], [2**62] * 4])
def test_ends_of_uris_that_cannot_be_are_damage(path, batch, ends):
    forge(path, "uri_ends", np.array(ends, "<i8"))
    with FaissIndex.open(path) as index, pytest.raises(DamagedIndexError, match="uri_ends"):
        index.uris(batch.ids[:4])


def test_uris_that_are_no_text_are_damage(path, batch):
    forge(path, "uri_bytes", np.full(18, 0xFF, np.uint8))
    with FaissIndex.open(path) as index, pytest.raises(DamagedIndexError, match="uri_bytes"):
        index.get(batch.ids[:4])


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'config'",
        "UPDATE meta SET value = '{}' WHERE key = 'config'",
        "UPDATE meta SET value = 'text' WHERE key = 'config'",
        "UPDATE meta SET value = replace(value, 'null', '[0.5,0.25,0.25]') WHERE key = 'config'",
        "DELETE FROM state",
        "UPDATE state SET records = 3",
        "UPDATE state SET records = -1",
        "UPDATE state SET records = 1e15",
        "UPDATE state SET records = 1000000000000000",
        "UPDATE state SET records = 'x'",
        "UPDATE state SET generation = 1",
        "UPDATE state SET loose = 3",
        "DELETE FROM checksums WHERE name = 'ids'",
        "UPDATE checksums SET crcs = x'00'",
        "UPDATE checksums SET crcs = 5",
        "UPDATE checksums SET crcs = zeroblob(8)",
        "UPDATE checksums SET crcs = zeroblob(4) WHERE name = 'codes'",
        "DELETE FROM cells",
        "DELETE FROM cells WHERE cell = 3",
        "DELETE FROM cells WHERE cell = 0",
        "UPDATE cells SET number = -4 WHERE cell = 1",
        "UPDATE cells SET number = 1000000 WHERE cell = 1",
        "UPDATE cells SET low = 0.01 WHERE cell = 1",
        "UPDATE cells SET envelope = x'00' WHERE cell = 1",
        "UPDATE cells SET envelope = zeroblob(12) WHERE cell = 1",
        "UPDATE cells SET envelope = 'twelve chars' WHERE cell = 1",
    ],
)
def test_a_catalogue_that_contradicts_itself_is_damage(path, statement):
    with catalogue(path) as db:
        db.execute(statement)
    with pytest.raises(DamagedIndexError):
        FaissIndex.open(path)


@pytest.mark.parametrize("table", ["meta", "state", "checksums", "cells"])
def test_a_catalogue_without_one_of_its_tables_is_not_opened(path, table):
    with catalogue(path) as db:
        db.execute(f"DROP TABLE {table}")
    with pytest.raises(StorageError, match=CATALOGUE):
        FaissIndex.open(path)


def test_a_catalogue_with_broken_pages_is_damage(path):
    data = bytearray((path / CATALOGUE).read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)  # the first page, with the schema, stays
    (path / CATALOGUE).write_bytes(data)
    with pytest.raises(StorageError, match=CATALOGUE):
        FaissIndex.open(path)


def test_what_lies_behind_the_committed_rows_is_harmless_and_overwritten(path, batch):
    for name in NAMES:
        with open(column(path, name), "ab") as file:
            file.write(b"\xff" * 1001)
    assert_holds(path, batch[:4])
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert_holds(path, batch)
    with FaissIndex.open(path) as index:
        sizes = index.stats().column_bytes
    junk = {"removed": 1001}  # nothing was removed, so the file was not written to
    assert {name: column(path, name).stat().st_size for name in NAMES} == {**sizes, **junk}


# crashes


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize("number", range(1, len(NAMES)))
def test_a_process_killed_while_it_adds_leaves_the_earlier_records(tmp_path, call, number):
    batch = six_records()
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch[:3])
    done = python(
        """
        index, real, calls = FaissIndex.open(sys.argv[1]), getattr(os, sys.argv[2]), []

        def killed_at(*arguments):
            calls.append(arguments)
            if len(calls) == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        setattr(os, sys.argv[2], killed_at)
        index.add(batch[3:])
        """,
        tmp_path / "index",
        call,
        number,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_holds(tmp_path / "index", batch[:3])
    with FaissIndex.open(tmp_path / "index") as index:  # the lock died with its process
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
        index = FaissIndex.create(sys.argv[1], IndexConfig(classes=3, bits=32, dim=4))
        index.add(batch)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "index",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert_holds(tmp_path / "index", six_records())


def test_every_column_is_on_the_disk_before_the_commit(tmp_path, config, batch, monkeypatch):
    with FaissIndex.create(tmp_path / "index", config) as index:
        synced, real = [], os.fsync

        def spy(handle):
            synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
            with FaissIndex.open(tmp_path / "index") as other:  # another process would see the earlier state
                assert len(other) == 0
            return real(handle)

        monkeypatch.setattr(os, "fsync", spy)
        index.add(batch)
        assert sorted(synced) == sorted(set(NAMES) - {"removed"})


# adds that fail


@contextmanager
def largest_file(size: int):
    """The system refuses to make files larger than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_untouched(index: FaissIndex, path: Path, batch: Encodings, result) -> None:
    """The open index and the stored one hold the batch, and the next add works."""
    assert len(index) == len(batch)
    assert_same_records(index.get(batch.ids), batch)
    assert_same(index.search(batch, k=6, cutoff=0.0), result)
    assert_holds(path, batch)
    more = moved(batch, 5000)
    index.add(more)
    assert_holds(path, Encodings.concatenate([batch, more]))


def test_a_batch_for_which_there_is_no_space_is_not_added(path, batch):
    many = batch[np.zeros(10_000, int)]
    big = Encodings(
        probabilities=many.probabilities, codes=many.codes, features=many.features, ids=np.arange(100, 10_100)
    )
    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with largest_file(100_000), pytest.raises(StorageError, match=r"File too large; free some space"):
            index.add(big)
        assert_untouched(index, path, batch[:4], result)


def test_a_batch_whose_uris_find_no_space_is_not_added(path, batch):
    one = batch[4:5]
    big = Encodings(
        probabilities=one.probabilities, codes=one.codes, features=one.features, ids=one.ids, uris=["x" * 10_000_000]
    )
    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with largest_file(200_000), pytest.raises(StorageError, match="uri_bytes"):
            index.add(big)
        assert_untouched(index, path, batch[:4], result)


@pytest.mark.parametrize("name", ["pwrite", "fsync", "ftruncate"])
def test_a_batch_that_the_disk_refuses_is_not_added(path, batch, monkeypatch, name):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(StorageError, match="Input/output error"):
                index.add(batch[4:])
        assert_untouched(index, path, batch[:4], result)


def test_an_interrupted_add_changes_nothing(path, batch, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                index.add(batch[4:])
        assert_untouched(index, path, batch[:4], result)


# several writers


def test_a_second_writer_is_told_who_the_first_is(path, batch):
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
    monkeypatch.setattr("semcut.indexes.storage.catalogue._BUSY_SECONDS", 1)
    with FaissIndex.open(path) as index:
        other = sqlite3.connect(path / CATALOGUE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked by another program"):
            index.add(batch[4:])
        with FaissIndex.open(path) as reader:  # reading goes on meanwhile
            assert len(reader) == 4
        other.execute("ROLLBACK")
        other.close()
        index.add(batch[4:])
    assert_holds(path, batch)


def test_of_two_processes_that_add_at_once_one_succeeds(tmp_path):
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
        subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(script), str(tmp_path / "index"), str(first)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
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


def test_an_index_opened_while_another_process_adds_is_that_of_one_commit(tmp_path):
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
    writer = subprocess.Popen([sys.executable, "-c", HEAD + textwrap.dedent(script), str(tmp_path / "index")], cwd=ROOT)
    sizes = set()
    while writer.poll() is None or not sizes:
        with FaissIndex.open(tmp_path / "index") as index:
            size = len(index)
            stats, found = index.stats(), index.search(batch, k=150, cutoff=0.0, shortlist=None)
        assert stats.records == sum(stats.partitions) == size
        relevant = (batch.probabilities @ batch.probabilities.T > 0)[:, np.arange(size) % 6]
        np.testing.assert_array_equal((found.ids >= 0).sum(axis=1), relevant.sum(axis=1))
        sizes.add(size)
    assert writer.returncode == 0
    with FaissIndex.open(tmp_path / "index") as index:
        assert len(index) == 150


def test_an_index_that_may_only_be_read_is_searched_but_not_added_to(batch):
    with tempfile.TemporaryDirectory() as directory:  # not below pytest's directory, which is its owner's alone
        path = Path(directory) / "index"
        with FaissIndex.create(path, CONFIG) as index:
            index.add(six_records()[:4])
        for file in path.rglob("*"):
            file.chmod(0o555 if file.is_dir() else 0o444)
        path.chmod(0o555)
        Path(directory).chmod(0o755)
        done = python(
            """
            with FaissIndex.create(None, CONFIG) as other:  # imports what that user may perhaps not read
                other.add(batch)
                other.search(batch, k=1)
            if os.geteuid() == 0:  # whom permissions do not bind
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


# leftovers


def test_an_index_that_lost_its_catalogue_is_neither_opened_nor_overwritten(path, config):
    (path / CATALOGUE).unlink()
    before = contents(path)
    with pytest.raises(NotAnIndexError, match=r"has no catalogue.sqlite; if it was one, restore it from a backup"):
        FaissIndex.open(path)
    with pytest.raises(IndexExistsError):
        FaissIndex.create(path, config)
    assert contents(path) == before


def test_the_making_of_an_index_that_was_cut_off_is_said_and_can_be_made_again(path, config, batch):
    (path / CATALOGUE).rename(path / "catalogue.new")
    with pytest.raises(NotAnIndexError, match="whose making was cut off: make it again there"):
        FaissIndex.open(path)
    with FaissIndex.create(path, config) as index:
        index.add(batch)
    assert_holds(path, batch)


def test_a_writer_clears_away_the_generation_that_a_crashed_compaction_left(path, batch):
    (path / "generation-1").mkdir()
    (path / "generation-1" / "ids").write_bytes(bytes(100))
    with FaissIndex.open(path) as index:
        assert (path / "generation-1").exists()  # a reader touches nothing
        index.add(batch[4:])
        assert not (path / "generation-1").exists()
        index.compact()
    assert_holds(path, batch)


def test_a_backup_that_fails_leaves_nothing_large(path, tmp_path):
    data = bytearray(column(path, "features").read_bytes())
    data[5] ^= 1
    column(path, "features").write_bytes(data)
    with FaissIndex.open(path) as index:
        with pytest.raises(DamagedIndexError, match=r"features is damaged.*the backup was not made"):
            index.backup(tmp_path / "copy")
        assert [file.name for file in (tmp_path / "copy").iterdir()] == ["lock"]


def test_a_backup_takes_along_what_others_keep_in_the_directory(path, tmp_path, batch):
    (path / "connector.json").write_text("{}")
    (path / "notes").mkdir()
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
        with pytest.raises(StorageError, match="lies in the index itself"):
            index.backup(path / "copy")
        with pytest.raises(IndexExistsError):
            index.backup(tmp_path / "copy")
    assert (tmp_path / "copy" / "connector.json").read_text() == "{}"
    assert_holds(tmp_path / "copy", batch[:4])


def test_opening_reads_neither_features_nor_probabilities_nor_uris(path, monkeypatch):
    read, real = set(), os.pread

    def spy(handle, size, offset):
        read.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        return real(handle, size, offset)

    monkeypatch.setattr(os, "pread", spy)
    with FaissIndex.open(path):
        assert read == {"ids", "codes", "cells"}


def test_files_are_not_kept_open_by_changes(path, batch):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with FaissIndex.open(path) as index:
        index.add(batch[4:])
        before = open_files()
        for _ in range(5):
            index.remove([10])
            index.add(batch[:1])
            index.compact()
            index.search(batch, k=3)
        assert open_files() <= before


# an index that is no longer what was opened


def test_an_index_put_in_the_place_of_an_open_one_is_not_touched(path, tmp_path, config, batch):
    with FaissIndex.open(path) as index:
        path.rename(tmp_path / "old")
        with FaissIndex.create(path, config) as other:
            other.add(batch[:1])
            other.compact()
        before = contents(path)
        for change in (lambda: index.add(batch[4:]), lambda: index.remove([10]), index.compact):
            with pytest.raises(StorageError, match="not the index that was opened here, it was replaced: open it"):
                change()
        assert len(index) == 4
        assert {**contents(path), "lock": b""} == {**before, "lock": b""}
    assert_holds(path, batch[:1])
    assert_holds(tmp_path / "old", batch[:4])


def test_a_relative_path_stays_where_it_was(path, tmp_path, config, batch, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    with FaissIndex.create(tmp_path / "elsewhere" / "index", config) as other:
        other.compact()
    monkeypatch.chdir(tmp_path)
    with FaissIndex.open("index") as index:
        monkeypatch.chdir(tmp_path / "elsewhere")
        index.add(batch[4:])
        index.compact()
    assert_holds(path, batch)
    assert_holds(tmp_path / "elsewhere" / "index", batch[:0])


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_path_that_cannot_be_is_refused(tmp_path, config, name):
    with pytest.raises(StorageError, match=r"cannot be looked at|is not a directory"):
        FaissIndex.open(tmp_path / name)
    with pytest.raises(StorageError, match="cannot make the directory"):
        FaissIndex.create(tmp_path / name, config)


@pytest.mark.parametrize("table", ["state", "checksums", "cells"])
def test_a_catalogue_with_a_view_for_a_table_is_damage(path, table):
    with catalogue(path) as db:
        db.execute(f"ALTER TABLE {table} RENAME TO old")
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM old")
    with pytest.raises(DamagedIndexError, match="its tables are not those of an index"):
        FaissIndex.open(path)


# interruptions


def test_a_change_is_refused_while_a_compaction_tells_its_progress(path, batch):
    with FaissIndex.open(path) as index:
        with pytest.raises(InvalidParameterError, match="cannot be changed by its own progress callback"):
            index.compact(lambda done, total: index.add(batch[4:]))
        assert len(index) == 4
        index.add(batch[4:])
    assert_holds(path, batch)


@pytest.mark.parametrize("change", ["add", "remove", "refresh"])
def test_an_index_whose_memory_was_changed_in_part_closes_itself(path, batch, monkeypatch, change):
    """The change itself is stored."""
    with FaissIndex.open(path) as index, FaissIndex.open(path) as writer:
        if change == "refresh":
            writer.add(batch[4:])

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(index.scanner), "remove", interrupt)
            with pytest.raises(KeyboardInterrupt):
                {"add": lambda: index.add(batch[4:]), "remove": lambda: index.remove([10]), "refresh": index.refresh}[
                    change
                ]()
        with pytest.raises(ClosedIndexError):
            index.search(batch)
    with FaissIndex.open(path) as index:
        assert index.ids().tolist() == (batch.ids[1:4] if change == "remove" else batch.ids).tolist()
        assert index.verify() == []


def test_a_flush_that_fails_closes_the_index_and_is_not_tried_again(path, batch, monkeypatch):
    for action in (FaissIndex.flush, FaissIndex.compact, FaissIndex.close):
        index = FaissIndex.open(path, durability="close")
        index.add(batch[4:])
        assert len(index) == 6
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            with pytest.raises(StorageError, match="Input/output error"):
                action(index)
        with pytest.raises(ClosedIndexError):
            index.flush()
        index.close()
        assert_holds(path, batch[:4])


def test_what_is_read_after_closing_is_an_error_not_the_content_of_another_file(path, batch, monkeypatch):
    monkeypatch.setattr(
        "semcut.indexes.storage.mapped_columns._MAPPED", 0
    )  # as if it were too large to be mapped at all times
    with FaissIndex.open(path) as index:
        parts = index.iterate(1)
        next(parts)
    with FaissIndex.create(path.with_name("other"), CONFIG) as other:
        other.add(moved(batch, 1000))
        with pytest.raises(ClosedIndexError):
            next(parts)


def test_a_forked_child_that_closes_an_index_leaves_the_changes_of_its_parent_alone(tmp_path):
    done = python(
        """
        index = FaissIndex.create(sys.argv[1], IndexConfig(classes=3, bits=32, dim=4), durability="close")
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
