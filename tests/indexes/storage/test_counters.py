"""The counters of a catalogue are bounded where they are read, so that no later change makes them unreadable."""

from __future__ import annotations

from itertools import product

import pytest

from semcut.indexes import DamagedIndexError, FaissIndex
from semcut.indexes.storage.catalogue_format import EXTENDED, LARGEST, _state_crc
from semcut.indexes.storage.directory import CATALOGUE, MARK
from semcut.indexes.unfinished import unfinished
from tests.indexes.storage.stored_index import assert_holds, catalogue, contents

COUNTERS = ("version", "generation", "records", "uri_bytes", "removed", "loose", "vocabulary", "key_bytes")


def forge_state(path, **values):
    """Change counters, with a checksum that matches."""
    with catalogue(path) as db:
        state = dict(zip(COUNTERS, db.execute(f"SELECT {', '.join(COUNTERS)} FROM state").fetchone(), strict=True))
        state |= values
        config = db.execute("SELECT value FROM meta WHERE key = 'config'").fetchone()[0]
        assignments = ", ".join(f"{name} = ?" for name in (*COUNTERS, "crc"))
        crc = _state_crc(tuple(state.values()), config, EXTENDED)
        db.execute(f"UPDATE state SET {assignments}", (*state.values(), crc))


def test_a_counter_that_no_commit_reaches_is_damage(path):
    good = (path / CATALOGUE).read_bytes()
    for name, value in product(COUNTERS, (-1, LARGEST + 1, 2**62, 2**63 - 1, -(2**63))):
        (path / CATALOGUE).write_bytes(good)
        forge_state(path, **{name: value})
        with pytest.raises(DamagedIndexError):
            FaissIndex.open(path)


@pytest.mark.parametrize("value", [LARGEST + 1, 2**63 - 1, -1])
def test_a_version_that_no_commit_reaches_is_damage_for_an_open_index(path, batch, value):
    with FaissIndex.open(path) as index:
        forge_state(path, version=value)
        for use in (index.refresh, lambda: index.add(batch[4:])):
            with pytest.raises(DamagedIndexError):
                use()


@pytest.mark.parametrize("durability", ["batch", "close"])
def test_a_change_that_could_not_be_read_is_refused(path, batch, durability):
    forge_state(path, version=LARGEST)
    with FaissIndex.open(path, durability=durability) as index:

        def change():
            index.add(batch[4:])
            index.flush()

        with pytest.raises(DamagedIndexError, match=r"expected less than .* add the records to a new index"):
            change()
    assert_holds(path, batch[:4])


def test_a_compaction_that_could_not_be_read_is_refused(path, batch):
    (path / "generation-0").rename(path / f"generation-{LARGEST}")
    forge_state(path, generation=LARGEST)
    before = contents(path)
    with FaissIndex.open(path) as index, pytest.raises(DamagedIndexError, match="expected less than"):
        index.compact()
    assert {**contents(path), "lock": b""} == {**before, "lock": b""}
    assert_holds(path, batch[:4])


def test_the_last_change_that_can_be_read_is_made(path, batch):
    forge_state(path, version=LARGEST - 1)
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
        assert index.version == LARGEST
    assert_holds(path, batch)


def test_numbers_of_the_mark_that_no_index_has_are_not_printed(path):
    (path / MARK).write_text(f'{{"expected": {"9" * 4000}, "before": 0}}')
    assert len(unfinished(path, 4)) < 1000
