"""A transaction that writes may take any time, since disks are slow; Ctrl-C ends it, and nothing is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, IndexConfig
from semcut.indexes.storage import catalogue_guard
from semcut.indexes.storage.restore import restore
from tests.indexes.generate import classified

MANY = IndexConfig(classes=40, bits=32, dim=4)


@pytest.fixture
def slow(monkeypatch):
    """Return a function that makes every statement be over its time, and have too many steps, at the first call."""

    def make() -> None:
        monkeypatch.setattr(catalogue_guard, "_SECONDS", -1000.0)
        monkeypatch.setattr(catalogue_guard, "_MOST_CALLS", 0)

    return make


def batch(first_id: int):
    return classified(np.random.default_rng(first_id), MANY, 400, first_id=first_id)


def test_flush_backup_and_compact_are_not_limited(tmp_path, slow, monkeypatch):
    monkeypatch.setattr(catalogue_guard, "_STEPS_PER_CALL", 500)
    index = FaissIndex.create(tmp_path / "index", MANY, durability="close")
    index.add(batch(0))
    assert index.stats().cells > 30
    slow()
    index.flush()
    index.add(batch(1000))
    index.flush()
    index.compact()
    index.backup(tmp_path / "backup")
    index.close()
    with pytest.raises(DamagedIndexError, match="reading it does not end"):  # readers have the limit
        FaissIndex.open(tmp_path / "index")
    monkeypatch.undo()
    for place in ("index", "backup"):
        with FaissIndex.open(tmp_path / place) as opened:
            assert (len(opened), opened.verify()) == (800, [])
    assert restore(tmp_path / "backup", tmp_path / "index") == 800


def test_ctrl_c_ends_a_transaction_that_writes(tmp_path, monkeypatch):
    class Interrupted(catalogue_guard.Steps):
        def __call__(self):
            if self.writing:
                signal.raise_signal(signal.SIGINT)
            return super().__call__()

    monkeypatch.setattr(catalogue_guard, "_STEPS_PER_CALL", 100)
    monkeypatch.setattr("semcut.indexes.storage.catalogue_connection.Steps", Interrupted)
    place: Path = tmp_path / "index"
    FaissIndex.create(place, MANY).close()
    with FaissIndex.open(place) as index, pytest.raises(KeyboardInterrupt):
        index.add(batch(0))
    monkeypatch.undo()
    with FaissIndex.open(place) as index:
        assert len(index) == 0
        index.add(batch(0))
        assert len(index) == 400
