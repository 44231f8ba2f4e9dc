"""An index from someone else: it is searched or refused, and touches no file but its own, whatever is in it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, IndexConfig, NotAnIndexError, StorageError
from semcut.indexes.scoring.packed_rows import PackedRows, exact_relevance
from semcut.indexes.storage.catalogue_connection import CatalogueConnection
from semcut.indexes.storage.catalogue_format import _cell_crc
from semcut.indexes.storage.catalogue_guard import schema_of
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.verify import verify_path
from tests.indexes.generate import classified
from tests.indexes.storage.stored_index import COLUMNS, assert_holds, catalogue, column, contents, forge_column, python

MAGIC = bytes.fromhex("d9d505f920a163d7")


def refused(path: Path, match: str, error: type[StorageError] = DamagedIndexError) -> None:
    """Assert that the index is not opened, that `verify` says so, and that nothing in the directory has changed."""
    before = sorted(path.rglob("*"))
    with pytest.raises(error, match=match):
        FaissIndex.open(path)
    if error is DamagedIndexError:
        assert verify_path(path)
    assert sorted(path.rglob("*")) == before


# Files beside the catalogue


def hot_journal(path: Path, tmp_path: Path) -> bytes:
    """Return the journal that a process leaves which is killed in a transaction, and make its index need it."""
    done = python(
        """
        import sqlite3
        db = sqlite3.connect(sys.argv[1], isolation_level=None)
        db.execute("PRAGMA cache_spill = 1")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.execute("UPDATE state SET version = 77")
        for number in range(100):
            db.execute("INSERT INTO checksums VALUES (?, 0, zeroblob(4096))", (f"x{number}",))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path / CATALOGUE,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return Path(f"{path / CATALOGUE}-journal").read_bytes()


def test_a_journal_is_rolled_back_by_the_first_reader(path, tmp_path, batch):
    journal = hot_journal(path, tmp_path)
    assert journal.startswith(MAGIC)
    assert_holds(path, batch[:4])
    assert not Path(f"{path / CATALOGUE}-journal").exists()


def test_a_journal_of_a_writer_that_is_killed_later_is_rolled_back_by_an_open_reader(path, tmp_path, batch):
    with FaissIndex.open(path) as index:
        hot_journal(path, tmp_path)
        assert not index.refresh()
        assert index.search(batch[:2], k=1).ids.ravel().tolist() == batch.ids[:2].tolist()


def test_a_journal_that_names_a_file_does_not_delete_it(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    name = str(victim).encode()
    journal = hot_journal(path, tmp_path)
    page = struct.unpack_from(">I", journal, 24)[0]
    record = struct.pack(">I", (1 << 30) // page + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    Path(f"{path / CATALOGUE}-journal").write_bytes(journal + record)
    refused(path, "journal names another file, which SQLite would delete; semcut never writes such a file")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("page", [4096, 0, 512, 65_536])
def test_the_journal_of_a_larger_catalogue_is_refused(path, tmp_path, page):
    journal = bytearray(hot_journal(path, tmp_path))
    struct.pack_into(">I", journal, 16, 1 << 30)  # SQLite would extend the catalogue to terabytes
    struct.pack_into(">I", journal, 24, page)  # 0 means the page size of the catalogue
    Path(f"{path / CATALOGUE}-journal").write_bytes(journal)
    refused(path, "journal is of another or a larger catalogue")


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_files_of_a_write_ahead_log_are_refused(path, ending):
    Path(f"{path / CATALOGUE}{ending}").touch()
    refused(path, "is a file of a write-ahead log; semcut never writes such a file")


def test_a_catalogue_with_a_write_ahead_log_is_refused(path):
    with open(path / CATALOGUE, "r+b") as file:
        file.seek(18)
        file.write(b"\2\2")
    refused(path, "semcut did not write it", StorageError)


def test_files_put_there_while_an_index_is_open_are_refused_by_its_first_change(path, batch):
    with FaissIndex.open(path) as index:
        wal = Path(f"{path / CATALOGUE}-wal")
        wal.touch()
        with pytest.raises(DamagedIndexError, match="write-ahead log"):
            index.add(batch[4:])
        wal.unlink()
        index.add(batch[4:])
    assert_holds(path, batch)


# What is not a regular file


def fifo(file: Path) -> None:
    os.mkfifo(file)


def link(file: Path) -> None:
    (file.parent / "target").write_bytes(b"content" * 1000)
    file.symlink_to(file.parent / "target")


def device(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [fifo, link, device])
@pytest.mark.parametrize("name", [CATALOGUE, f"{CATALOGUE}-journal", *(f"generation-0/{name}" for name in COLUMNS)])
def test_what_is_not_a_regular_file_is_neither_read_nor_written(path, make, name):
    (path / name).unlink(missing_ok=True)
    make(path / name)
    with pytest.raises(StorageError, match=r"regular file|symbolic link|is not a semcut index"):
        FaissIndex.open(path)
    target = (path / name).parent / "target"
    assert not target.exists() or target.read_bytes() == b"content" * 1000


@pytest.mark.parametrize("make", [fifo, link, device])
def test_a_lock_that_is_not_a_regular_file_is_not_locked(path, make, batch):
    (path / "lock").unlink()
    make(path / "lock")
    with FaissIndex.open(path) as index, pytest.raises(StorageError, match=r"cannot lock .*(regular|symbolic link)"):
        index.add(batch[4:])
    assert not (path / "target").exists() or (path / "target").read_bytes() == b"content" * 1000


def test_a_generation_that_is_a_link_is_refused(path, tmp_path, batch):
    other = Path(shutil.copytree(path, tmp_path / "other"))
    before = contents(other)
    shutil.rmtree(path / "generation-0")
    (path / "generation-0").symlink_to(other / "generation-0")
    refused(path, "generation-0 is a symbolic link")
    assert contents(other) == before


def test_a_backup_copies_no_file_that_a_link_leads_to(path, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (path / "connector.json").symlink_to(tmp_path / "secret")
    os.mkfifo(path / "fifo")
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
    assert sorted(file.name for file in (tmp_path / "copy").iterdir()) == [CATALOGUE, "generation-0", "lock"]


# Tables


ENDLESS = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n) SELECT i, i FROM n"


@pytest.mark.parametrize(
    "statements",
    [
        "DROP TABLE checksums; CREATE VIEW checksums (name, chunk, crcs) AS SELECT 1, 2, 3",
        "CREATE TRIGGER t AFTER INSERT ON state BEGIN DELETE FROM cells; END",
        "CREATE INDEX i ON cells (low)",
        "CREATE TABLE other (value)",
        "ALTER TABLE cells ADD COLUMN more",
        "ALTER TABLE state RENAME COLUMN loose TO loos",
        f"DROP TABLE checksums; CREATE VIEW checksums (name, crcs) AS {ENDLESS}",
    ],
)
def test_other_tables_than_those_of_an_index_are_damage(path, statements):
    with catalogue(path) as db:
        for statement in statements.split("; C" if "TRIGGER" not in statements else "\0"):
            db.execute(statement if statement[0] != "R" else "C" + statement)
    refused(path, "its tables are not those of an index")


def define(path: Path, definitions: list[tuple[str, str]]) -> None:
    """Add tables with these names and statements to the schema, which SQLite parses before a statement."""
    with catalogue(path) as db:
        db.execute("PRAGMA writable_schema = 1")
        db.executemany("INSERT INTO sqlite_master VALUES ('table', ?1, ?1, 2, ?2)", definitions)
        db.execute("PRAGMA schema_version = 99")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no setlimit in Python 3.10")
@pytest.mark.parametrize("journal", [False, True], ids=["alone", "with a journal"])
def test_long_definitions_of_tables_are_not_parsed(path, tmp_path, journal):
    """Each of them would take 30 MB."""
    define(path, [(f"t{n}", f"CREATE TABLE t{n} (a CHECK (a IN (1{',1' * 300_000})))") for n in range(10)])
    if journal:
        # Like `hot_journal`, whose own program would parse the schema: a header that counts no page.
        page = struct.unpack_from(">H", (path / CATALOGUE).read_bytes(), 16)[0]
        pages = (path / CATALOGUE).stat().st_size // page
        header = MAGIC + struct.pack(">IIIII", 0, 0, pages, 512, page)
        Path(f"{path / CATALOGUE}-journal").write_bytes(header + bytes(512 - len(header)))
    done = python(
        """
        from pathlib import Path
        from semcut.indexes.storage.catalogue_connection import integrity_errors
        with allowing(30 << 20):
            for call in (FaissIndex.open, lambda path: integrity_errors(Path(path, "catalogue.sqlite"))):
                try:
                    print(call(sys.argv[1]))
                except DamagedIndexError as error:
                    print(error)
        """,
        path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    opened, checked = done.stdout.splitlines()
    assert "catalogue.sqlite is damaged" in opened
    assert "catalogue.sqlite is damaged" in checked
    assert not Path(f"{path / CATALOGUE}-journal").exists()  # SQLite has rolled it back


def test_many_definitions_of_tables_are_not_all_parsed(path):
    columns = ", ".join(f"c{n}" for n in range(600))
    define(path, [(f"t{n}", f"CREATE TABLE t{n} ({columns})") for n in range(2000)])
    refused(path, "reading it does not end")


def test_a_view_in_place_of_the_configuration_is_not_asked(path):
    with catalogue(path) as db:
        db.execute("DROP TABLE meta")
        db.execute(f"CREATE VIEW meta (key, value) AS {ENDLESS}")
    start = time.monotonic()
    refused(path, "not the catalogue of a semcut index", NotAnIndexError)
    assert time.monotonic() - start < 5


def forge_tree(path: Path, table: str, kind: int) -> None:
    """Make the tree of pages of a table refer to the same page from many places, so that reading does not end."""
    with catalogue(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    pages = bytearray((path / CATALOGUE).read_bytes())
    leaf = pages[(root - 1) * size : root * size]
    below = len(pages) // size + 1
    pages += leaf
    for level in range(12):
        here = root if level == 11 else len(pages) // size + 1
        interior = bytearray(size)
        places = [size - 5 * (number + 1) for number in range(300)]
        struct.pack_into(">BHHHBI", interior, 0, kind, 0, len(places), places[-1], 0, below)
        for number, place in enumerate(places):
            struct.pack_into(">H", interior, 12 + 2 * number, place)
            struct.pack_into(">IB", interior, place, below, number % 100)
        if level == 11:
            pages[(root - 1) * size : root * size] = interior
        else:
            pages += interior
        below = here
    struct.pack_into(">I", pages, 28, len(pages) // size)
    (path / CATALOGUE).write_bytes(pages)


@pytest.mark.parametrize("table", ["cells", "state"])
def test_a_tree_of_pages_without_end_is_damage(path, table):
    forge_tree(path, table, 5)
    refused(path, "is damaged")


def test_a_statement_without_end_is_ended(path):
    connection = CatalogueConnection(path / CATALOGUE, new=False)
    with pytest.raises(DamagedIndexError, match="reading it does not end"):
        connection.translated(lambda: connection.db.execute(f"SELECT count(*) FROM ({ENDLESS})").fetchone())
    assert connection.translated(lambda: connection.db.execute("SELECT version FROM state").fetchone()) == (2,)
    connection.close()


def test_ctrl_c_ends_a_long_statement(path, monkeypatch):
    monkeypatch.setattr("semcut.indexes.storage.catalogue_guard._MOST_CALLS", 10**9)
    connection = CatalogueConnection(path / CATALOGUE, new=False)
    connection.translated(lambda: schema_of(connection.db))  # few steps are allowed before
    threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        connection.translated(lambda: connection.db.execute(f"SELECT count(*) FROM ({ENDLESS})").fetchone())
    connection.close()


# Values


BAD_BOUNDS = (-0.5, -1e-9, 1.5, 1e30, float("inf"), float("-inf"))


def forge_cell(path: Path, low: float | None = None, envelope: np.ndarray | None = None, mass: float = 1) -> None:
    """Change the bounds of a cell, with a checksum that matches."""
    with catalogue(path) as db:
        number, old_low, old_envelope = db.execute("SELECT number, low, envelope FROM cells WHERE cell = 1").fetchone()
        low = old_low if low is None else low
        stored = old_envelope if envelope is None else np.append(envelope, mass).astype("<f4").tobytes()
        crc = _cell_crc(1, number, low, stored)
        db.execute("UPDATE cells SET low = ?, envelope = ?, crc = ? WHERE cell = 1", (low, stored, crc))


@pytest.mark.parametrize("low", BAD_BOUNDS)
def test_a_lower_bound_that_is_no_probability_is_damage(path, low):
    forge_cell(path, low=low)
    refused(path, "the bounds of its cells are not probabilities")


@pytest.mark.parametrize("value", [*BAD_BOUNDS, float("nan")])
def test_an_envelope_that_is_no_probability_is_damage(path, value):
    forge_cell(path, envelope=np.array([0.5, value, 0.25]))
    refused(path, "the bounds of its cells are not probabilities")


@pytest.mark.parametrize("mass", [-0.5, 3.1, 1e30, float("inf"), float("-inf"), float("nan")])
def test_a_mass_that_no_three_probabilities_have_is_damage(path, mass):
    forge_cell(path, envelope=np.array([0.5, 0.5, 0.25]), mass=mass)
    refused(path, "the bounds of its cells are not probabilities")


def test_rows_that_refer_to_the_same_bytes_are_not_all_read(path):
    """A catalogue of 100 KB whose cells claim 40 GB: no more is read than fits into the file."""
    with catalogue(path) as db:
        db.execute("UPDATE cells SET envelope = zeroblob(50000000) WHERE cell = 1")
    start = time.monotonic()
    refused(path, "its cells are not valid")
    assert time.monotonic() - start < 5


def test_a_long_version_is_shown_in_part(path):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", ("9\x1b[31m" * 10_000,))
    with pytest.raises(StorageError, match=r"format version 9\\x1b\[31m") as error:
        FaissIndex.open(path)
    assert len(str(error.value)) < 500
    assert "\x1b" not in str(error.value)


def test_a_catalogue_that_is_mostly_a_hole_is_damage(path):
    """SQLite would take as much memory for one forged value as the file is large."""
    size = 1 << 32
    with open(path / CATALOGUE, "r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", size // 4096))
        file.truncate(size)
    refused(path, "has a size of 4,294,967,296 bytes, most of them a hole")


@pytest.mark.parametrize("value", [b"4", b"4" * 50_000_000, "4" * 50_000_000], ids=["blob", "long blob", "long text"])
@pytest.mark.parametrize("key", ["format", "config"])
def test_a_value_of_another_type_or_length_is_not_read(path, key, value):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    tracemalloc.start()
    with pytest.raises(StorageError):
        FaissIndex.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (40 << 20 if isinstance(value, bytes) or key == "format" else 110 << 20)


def test_a_configuration_may_be_longer_than_other_values(tmp_path):
    config = IndexConfig(classes=300, bits=32, dim=2, similarity=np.full((300, 300), 0.123456))
    with FaissIndex.create(tmp_path / "wide", config) as index:
        index.add(classified(np.random.default_rng(0), config, 5))
        index.remove([0])
    with FaissIndex.open(tmp_path / "wide") as index:
        assert index.config == config
        assert index.verify() == []
        index.remove([1])
    assert verify_path(tmp_path / "wide") == []


def test_locks_stay_while_the_same_process_opens_the_index_again(path, batch):
    """POSIX ends all locks of a process on a file when it closes any descriptor of the file."""
    db = sqlite3.connect(path / CATALOGUE, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    assert_holds(path, batch[:4])
    done = python(
        """
        import sqlite3
        other = sqlite3.connect(sys.argv[1], timeout=0)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            print(error)
        other.close()
        """,
        path / CATALOGUE,
    )
    assert done.stdout == "database is locked\n", done.stderr
    db.close()


@pytest.mark.parametrize("table", ["checksums", "cells"])
def test_rows_that_refer_to_one_long_value_take_no_memory(path, table):
    """Each of 300 rows has a value of 1 MB in a column that has short values otherwise."""
    with catalogue(path) as db:
        if table == "checksums":
            db.executemany(
                "INSERT INTO checksums VALUES (?, 0, x'00')", ((f"{n}" + "a" * 1_000_000,) for n in range(50))
            )
        else:
            db.executemany(
                "INSERT INTO cells VALUES (?, ?, 0.5, x'', 0)", ((9 + n, bytes([n]) * 1_000_000) for n in range(50))
            )
    done = python(
        """
        with allowing(20 << 20):
            try:
                FaissIndex.open(sys.argv[1], engine="faiss")
            except DamagedIndexError:
                pass
            print("in little memory")
        """,
        path,
    )
    assert done.stdout == "in little memory\n", done.stderr


def test_uris_that_share_bytes_are_damage(path, batch):
    ends = np.fromfile(column(path, "uri_ends"), "<i8")
    ends[:] = [0, ends[-1], 0, ends[-1]]
    forge_column(path, "uri_ends", ends)
    with FaissIndex.open(path) as index:
        with pytest.raises(DamagedIndexError, match="uri_ends of the index overlap"):
            index.get(batch.ids[[1, 3]])
        assert any("uris that overlap" in damage.what for damage in index.verify())


def test_a_foreign_generation_of_thousands_of_levels_is_no_traceback(path, batch):
    folder = path / "generation-7"
    done = python(
        """
        os.mkdir(sys.argv[1])
        os.chdir(sys.argv[1])
        for _ in range(3000):
            os.mkdir("d")
            os.chdir("d")
        """,
        folder,
    )
    assert done.returncode == 0, done.stderr
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert_holds(path, batch)
    subprocess.run(["rm", "-rf", folder], check=True)


def test_a_commit_that_changes_earlier_rows_is_read_from_scratch(path, tmp_path, batch):
    """The last block of a column may be filled up; its earlier rows must stay the same."""
    with FaissIndex.open(path) as reader:
        reader.search(batch, k=1)
        other = tmp_path / "other"
        with FaissIndex.create(other, reader.config) as index:
            index.add(batch[[3, 2, 1, 0]])
            index.add(batch[4:])
            index.remove(batch.ids[:1])
        shutil.copytree(other, path, dirs_exist_ok=True)
        reader.refresh()
        assert reader.search(batch[1:], k=1, cutoff=0.0).ids.ravel().tolist() == batch.ids[1:].tolist()
        assert len(reader) == 5


# Memory


@pytest.mark.parametrize(
    "entry", ['"prior":[{}]'.format(("-1," * 300_000)[:-1]), '"similarity":[[{}]]'.format(('"",' * 300_000)[:-1]),
              '"similarity":[{}]'.format(("1," * 300_000)[:-1]), ",".join(f'"{each}":1' for each in range(300_000)),
              '"prior":[{}]'.format(("[]," * 3_000_000)[:-1]), '"similarity":[[{}]]'.format(("1e5," * 3_000_000)[:-1]),
              '"prior":{{{}}}'.format(",".join(f'"{each}":[]' for each in range(1_000_000))),
              '"prior":[{}]'.format(("{}," * 3_000_000)[:-1])],
    ids=["prior", "entries", "rows", "settings", "lists", "numbers", "names", "objects"],
)  # fmt: skip
def test_many_wrong_values_of_a_configuration_are_one_error(path, entry):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'config'", (f'{{"classes":2,"bits":32,"dim":2,{entry}}}',))
    tracemalloc.start()
    refused(path, "the configuration in .* is not valid")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20


def test_pairs_in_doubt_are_decided_in_bounded_memory():
    """Relevances that are equal to the cutoff in float32: every pair needs the exact sum over 10,000 classes."""
    rng = np.random.default_rng(0)
    weights = np.zeros((1, 10_000))
    weights[0, :4] = rng.random(4)
    rows = np.zeros((20_000, 8), np.uint16)
    rows[:, ::2], rows[:, 1::2] = np.arange(4), 16_384
    tracemalloc.start()
    query, at = np.zeros(len(rows), np.int64), np.arange(len(rows))
    r = exact_relevance(weights, query, PackedRows(rows, 10_000), at)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(r, np.float32(weights[0, :4].sum() / 4))
    assert peak < 100 << 20


def test_all_candidates_of_a_search_are_not_converted_at_once():
    """Features of 32 MiB as int8, all of them relevant and in the shortlist: as float32 they would take 128 MiB."""
    config = IndexConfig(classes=2, bits=32, dim=4096, stored_features="int8")
    rng = np.random.default_rng(0)
    index = FaissIndex.create(None, config, engine="faiss")
    for first in range(0, 8192, 1024):
        index.add(classified(rng, config, 1024, first_id=first))
    query = index.get([5])
    tracemalloc.start()
    found = index.search(query, k=3, cutoff=0, shortlist=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.ids[0, 0] == 5
    assert peak < 100 << 20
