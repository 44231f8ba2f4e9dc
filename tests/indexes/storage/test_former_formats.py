"""Indexes of formats 3 and 4 are read, and the first change makes them indexes of the current format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig
from semcut.indexes.storage.catalogue_format import FORMAT_VERSION, _cell_crc, _state_crc
from semcut.indexes.storage.verify import verify_path
from tests.indexes.conftest import CONFIG
from tests.indexes.generate import assert_same, classified
from tests.indexes.storage.stored_index import catalogue

SMALL = CONFIG.model_copy(update={"stored_probabilities": CONFIG.classes // 2})
FORMER = [(3, CONFIG), (4, CONFIG), (4, SMALL)]


def records(seed: int, n: int, first_id: int = 0) -> Encodings:
    return classified(np.random.default_rng(seed), CONFIG, n, first_id=first_id)


@pytest.fixture(params=FORMER, ids=["3", "4", "4 with few probabilities"])
def former(request, tmp_path) -> tuple[int, IndexConfig, Path]:
    """An index as an earlier format has it: envelopes are float32; in format 3, no mass follows them."""
    number, config = request.param
    path = tmp_path / "index"
    with FaissIndex.create(path, config, engine="faiss") as index:
        index.add(records(3, 300))
        envelopes = index.snapshot.cells.envelopes
    with catalogue(path) as db:
        for cell, known, low, bounds in db.execute("SELECT cell, number, low, envelope FROM cells").fetchall():
            content = envelopes[cell].tobytes() + (bounds[-4:] if number > 3 else b"")
            crc = _cell_crc(cell, known, low, content)
            db.execute("UPDATE cells SET envelope = ?, crc = ? WHERE cell = ?", (content, crc, cell))
        (json,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        state = db.execute("SELECT * FROM state").fetchone()
        db.execute("UPDATE state SET crc = ?", (_state_crc(tuple(state[1:-1]), json, number),))
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(number),))
    return number, config, path


def version(path: Path) -> str:
    with catalogue(path) as db:
        return db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0]


def assert_answers(config: IndexConfig, path: Path, *batches: Encodings) -> None:
    brute = BruteForceIndex(config)
    for batch in batches:
        brute.add(batch)
    queries = records(4, 20)
    with FaissIndex.open(path, engine="faiss") as index:
        assert_same(index.search(queries, shortlist=50), brute.search(queries, shortlist=50))
    assert verify_path(path) == []


def test_an_index_of_a_former_format_is_read_as_it_is(former):
    number, config, path = former
    assert_answers(config, path, records(3, 300))
    assert version(path) == str(number)


def test_the_first_change_makes_it_one_of_the_current_format(former):
    number, config, path = former
    more = records(5, 50, first_id=1000)
    empty = Encodings(
        probabilities=np.zeros((1, CONFIG.classes), np.float32), codes=more.codes[:1], features=more.features[:1],
        ids=np.array([5000]), any_mass=True,
    )  # fmt: skip
    reader = FaissIndex.open(path, engine="faiss")
    with FaissIndex.open(path, engine="faiss") as index:
        index.add(more)
        index.add(empty)
    assert reader.refresh()
    assert len(reader) == 351
    reader.close()
    assert version(path) == str(FORMAT_VERSION)
    assert_answers(config, path, records(3, 300), more, empty)
    with FaissIndex.open(path) as index:
        if number == 3:
            assert 1 < index.snapshot.cells.largest_mass < 1.01
        index.compact()
        assert index.snapshot.cells.largest_mass < 1.001
    assert_answers(config, path, records(3, 300), more, empty)


def test_masses_of_format_3_are_as_large_as_sums_can_be(tmp_path):
    """Rows were accepted up to a sum of 1.001, which float32 rounds up."""
    rng = np.random.default_rng(0)
    found = (rng.dirichlet(np.ones(3), 2000) * (1.001 - rng.random((2000, 1)) * 1e-7)).astype(np.float32)
    sums = found.sum(axis=1, dtype=np.float64)
    found = found[sums - 1 <= 1e-3]
    batch = classified(rng, CONFIG, len(found))
    batch = Encodings(probabilities=found, codes=batch.codes, features=batch.features, ids=batch.ids)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch)
    as_format_3(tmp_path / "index")
    assert verify_path(tmp_path / "index") == []
    with FaissIndex.open(tmp_path / "index") as index:
        index.compact()
    assert verify_path(tmp_path / "index") == []


def as_format_3(path: Path) -> None:
    with catalogue(path) as db:
        for cell, known, low, bounds in db.execute("SELECT cell, number, low, envelope FROM cells").fetchall():
            crc = _cell_crc(cell, known, low, bounds[:-4])
            db.execute("UPDATE cells SET envelope = ?, crc = ? WHERE cell = ?", (bounds[:-4], crc, cell))
        (json,) = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()
        state = db.execute("SELECT * FROM state").fetchone()
        db.execute("UPDATE state SET crc = ?", (_state_crc(tuple(state[1:-1]), json, 3),))
        db.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
