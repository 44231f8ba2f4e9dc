"""An index of format 3, without masses, is read, and the first change makes it one of format 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig
from semcut.indexes.storage.catalogue_format import _cell_crc, _state_crc
from semcut.indexes.storage.verify import verify_path
from tests.indexes.conftest import CONFIG
from tests.indexes.generate import assert_same, classified
from tests.indexes.storage.stored_index import catalogue

RECORDS = classified(np.random.default_rng(3), CONFIG, 300)


@pytest.fixture
def former(tmp_path) -> Path:
    """An index as format 3 has it: rows of cells end with the envelope."""
    path = tmp_path / "index"
    with FaissIndex.create(path, CONFIG, engine="faiss") as index:
        index.add(RECORDS)
    with catalogue(path) as db:
        for cell, number, low, bounds in db.execute("SELECT cell, number, low, envelope FROM cells").fetchall():
            envelope = bounds[:-4]
            assert len(envelope) == 4 * CONFIG.classes
            crc = _cell_crc(cell, number, low, envelope)
            db.execute("UPDATE cells SET envelope = ?, crc = ? WHERE cell = ?", (envelope, crc, cell))
        (config,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        state = db.execute("SELECT * FROM state").fetchone()
        db.execute("UPDATE state SET crc = ?", (_state_crc(tuple(state[1:-1]), config, 3),))
        db.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
    return path


def version(path: Path) -> str:
    with catalogue(path) as db:
        return db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0]


def assert_answers(path: Path, *batches: Encodings) -> None:
    brute = BruteForceIndex(CONFIG)
    for batch in batches:
        brute.add(batch)
    queries = classified(np.random.default_rng(4), CONFIG, 20)
    with FaissIndex.open(path, engine="faiss") as index:
        assert_same(index.search(queries, shortlist=50), brute.search(queries, shortlist=50))
    assert verify_path(path) == []


def test_an_index_of_format_3_is_read_as_it_is(former):
    assert_answers(former, RECORDS)
    assert version(former) == "3"


def test_the_first_change_makes_it_one_of_format_4(former):
    more = classified(np.random.default_rng(5), CONFIG, 50, first_id=1000)
    empty = Encodings(
        probabilities=np.zeros((1, CONFIG.classes), np.float32), codes=more.codes[:1], features=more.features[:1],
        ids=np.array([5000]), any_mass=True,
    )  # fmt: skip
    reader = FaissIndex.open(former, engine="faiss")
    with FaissIndex.open(former, engine="faiss") as index:
        index.add(more)
        index.add(empty)
    assert reader.refresh()
    assert len(reader) == 351
    reader.close()
    assert version(former) == "4"
    assert_answers(former, RECORDS, more, empty)
    with FaissIndex.open(former) as index:
        assert 1 < index.snapshot.cells.largest_mass < 1.01
        index.compact()
        assert 1 <= index.snapshot.cells.largest_mass < 1.001
    assert_answers(former, RECORDS, more, empty)


def test_masses_survive_the_catalogue(tmp_path):
    config = IndexConfig(classes=5, bits=32, dim=2)
    labels = np.array([[1, 1, 1, 0, 0], [0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32)
    batch = Encodings(
        probabilities=labels, codes=np.zeros((3, 4), np.uint8), features=np.eye(3, 2, dtype=np.float32) + 1,
        ids=np.arange(3), any_mass=True,
    )  # fmt: skip
    with FaissIndex.create(tmp_path / "index", config, engine="faiss") as index:
        index.add(batch)
    with FaissIndex.open(tmp_path / "index", engine="faiss") as index:
        masses = index.snapshot.cells.masses
        assert (masses >= np.array([3, 0.5, 0], np.float32)[[0, 1, 2]]).sum() >= 2
        assert index.snapshot.cells.largest_mass == np.nextafter(np.float32(3), np.float32(4))
        np.testing.assert_array_equal(index.get(np.arange(3)).probabilities, labels)
