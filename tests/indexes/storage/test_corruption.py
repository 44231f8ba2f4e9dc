"""It is an error if files of an index are missing, too short, changed, or contradict each other."""

from __future__ import annotations

import os

import numpy as np
import pytest

from semcut.indexes import (
    DamagedIndexError,
    FaissIndex,
    StorageError,
)
from semcut.indexes.storage.directory import CATALOGUE
from tests.indexes.storage.stored_index import (
    COLUMNS,
    catalogue,
    column,
    forge_column,
    python,
)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_missing_column_is_damage(path, name):
    column(path, name).unlink()
    with pytest.raises(DamagedIndexError, match=rf"{name} is missing.*backup"):
        FaissIndex.open(path)


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "removed"])
@pytest.mark.parametrize("lost", [1, None], ids=["one byte", "everything"])
def test_a_column_that_was_cut_short_is_damage(path, name, lost):
    size = column(path, name).stat().st_size
    os.truncate(column(path, name), 0 if lost is None else size - lost)
    with pytest.raises(DamagedIndexError, match=rf"{name} has \d+ bytes, expected {size} for \d+ rows.*backup"):
        FaissIndex.open(path)


@pytest.mark.parametrize("cell", [4, 2**31 - 1, -1])
def test_a_column_of_cells_that_contradicts_the_catalogue_is_damage(path, cell):
    numbers = np.fromfile(column(path, "cells"), "<i4")
    numbers[1] = cell  # there are cells 0 to 3
    forge_column(path, "cells", numbers)
    done = python(
        """
        with open("/proc/self/statm") as statm:
            limit = int(statm.read().split()[0]) * resource.getpagesize() + (4 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        FaissIndex.open(sys.argv[1])
        """,
        path,
    )
    assert "DamagedIndexError" in done.stderr, f"exit status {done.returncode}: {done.stderr[-300:]}"


@pytest.mark.parametrize("rows", [[4], [-1], [0, 0], [2**62]])
def test_impossible_removed_rows_are_damage(path, batch, rows):
    with FaissIndex.open(path) as index:
        index.remove(batch.ids[: len(rows)])
    forge_column(path, "removed", np.array(rows, "<i8"))
    with pytest.raises(DamagedIndexError, match="removed"):
        FaissIndex.open(path)


@pytest.mark.parametrize("ends", [[6, 6, 12, 19], [6, 5, 12, 18], [-1, 6, 12, 18], [2**62] * 4])
def test_impossible_ends_of_uris_are_damage(path, batch, ends):
    forge_column(path, "uri_ends", np.array(ends, "<i8"))
    with FaissIndex.open(path) as index, pytest.raises(DamagedIndexError, match="uri_ends"):
        index.uris(batch.ids[:4])


def test_uris_that_are_not_utf_8_are_damage(path, batch):
    forge_column(path, "uri_bytes", np.full(18, 0xFF, np.uint8))
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


@pytest.mark.parametrize("table", ["state", "checksums", "cells"])
def test_a_catalogue_with_a_view_instead_of_a_table_is_damage(path, table):
    with catalogue(path) as db:
        db.execute(f"ALTER TABLE {table} RENAME TO renamed")
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM renamed")
    with pytest.raises(DamagedIndexError, match="its tables are not those of an index"):
        FaissIndex.open(path)
