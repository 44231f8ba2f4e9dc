"""A damaged index leads to an error or the right answer, never a wrong one; `verify` names what is damaged."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import zlib
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semcut.indexes import DamagedIndexError, FaissIndex, IndexConfig, SemcutError, StorageError
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.storage import mapped_columns
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.catalogue_format import _cell_crc, _cells, cell_rows
from semcut.indexes.storage.column_specs import names_of, specs
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.verify import verify_path
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import PROPERTY, assert_same, assert_same_records, classified
from tests.indexes.storage.stored_index import forge_column
from tests.indexes.story import CONFIG, records
from tests.thorough import examples

COLUMNS = names_of(CONFIG)
QUERIES = records(np.arange(20), np.full(20, 5))
OPTIONS = {"k": 30, "cutoff": 0.2, "shortlist": None}
HELD = records(np.concatenate([np.arange(3, 300), np.arange(400, 600)]), np.repeat([0, 1], [297, 200]))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """An index of several batches and blocks, with removed records; no test changes it."""
    path = tmp_path_factory.mktemp("sound") / "index"
    with FaissIndex.create(path, CONFIG) as index:
        index.add(records(np.arange(300), np.zeros(300)))
        index.add(records(np.arange(400, 600), np.ones(200)))
        index.remove([2, 0, 1])
    return path


@pytest.fixture
def path(sound, tmp_path) -> Path:
    """A copy of the sound index, to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "index"))


def flip(file: Path, at: int, bit: int = 0) -> None:
    """Invert one bit of a file."""
    with open(file, "r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ (1 << bit)]))


def right_or_refused(path: Path) -> bool:
    """Return whether at least one operation raises a storage error and all others give the right answer."""
    refused = False
    with FaissIndex.create(None, CONFIG) as reference:
        reference.add(HELD)
        expected = reference.search(QUERIES, **OPTIONS)
    try:
        index = FaissIndex.open(path)
    except StorageError:
        return True
    with index:
        operations = (
            lambda: assert_same(index.search(QUERIES, **OPTIONS), expected),
            lambda: assert_same_records(index.get(HELD.ids), HELD),
            lambda: [assert_same_records(index.get([number]), HELD[[place]]) for place, number in sample()],
            lambda: index.uris(HELD.ids) == HELD.uris or pytest.fail("a wrong uri"),
            lambda: index.ids().tolist() == HELD.ids.tolist() or pytest.fail("a wrong id"),
            lambda: len(list(index.iterate(100))) == 5 or pytest.fail("a wrong number of batches"),
            lambda: index.backup(path.with_name("copy")),
            index.compact,
        )
        for operation in operations:
            with suppress(SemcutError):
                operation()
                continue
            refused = True
    return refused


def sample() -> list[tuple[int, int]]:
    return list(enumerate(HELD.ids.tolist()))[::40]


# bytes


@settings(PROPERTY, max_examples=examples(40))
@given(
    name=st.sampled_from(names_of(CONFIG)),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    small=st.booleans(),
)
def test_a_flipped_bit_in_a_column_is_never_a_wrong_answer(sound, tmp_path_factory, name, place, bit, small):
    path = Path(shutil.copytree(sound, tmp_path_factory.mktemp("flipped") / "index"))
    file = path / "generation-0" / name
    flip(file, int(place * file.stat().st_size), bit)
    damage = verify_path(path)
    assert [Path(found.where).name for found in damage if "checksum" in found.what][-1] == name
    with pytest.MonkeyPatch.context() as patch:
        if not small:  # as if the columns were too large to stay mapped
            patch.setattr(mapped_columns, "_MAPPED_BYTES", 0)
        assert right_or_refused(path)
    shutil.rmtree(path.parent)


@settings(PROPERTY, max_examples=examples(60))
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@example(place=0.15625, bit=7)  # a name in the schema is no longer valid UTF-8
def test_a_flipped_bit_in_the_catalogue_is_never_a_wrong_answer(sound, tmp_path_factory, place, bit):
    path = Path(shutil.copytree(sound, tmp_path_factory.mktemp("flipped") / "index"))
    file = path / "catalogue.sqlite"
    flip(file, int(place * file.stat().st_size), bit)
    right_or_refused(path)
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_has_become_too_short_is_refused(path, name):
    file = path / "generation-0" / name
    os.truncate(file, file.stat().st_size - 1)
    assert right_or_refused(path)
    assert any(name in found.where + found.what for found in verify_path(path))


def test_records_of_a_damaged_block_can_be_replaced_and_the_index_is_sound_again(path):
    width = specs(CONFIG)["features"].row_bytes
    flip(path / "generation-0" / "features", 130 * width)
    in_rows = np.fromfile(path / "generation-0" / "ids", "<i8")
    first, second = (np.setdiff1d(in_rows[rows], [0, 1, 2]) for rows in (slice(128), slice(128, 256)))
    rest = np.setdiff1d(HELD.ids, [*first, *second])
    held = {number: place for place, number in enumerate(HELD.ids.tolist())}
    flip(path / "generation-0" / "probabilities", 3)
    with FaissIndex.open(path) as index:
        damage = index.verify()
        assert [Path(found.where).name for found in damage] == ["probabilities", "features"]
        assert sorted(damage[0].ids.tolist()) == first.tolist()
        assert sorted(damage[1].ids.tolist()) == second.tolist()
        with pytest.raises(DamagedIndexError, match=r"rows 128 to 255 do not match their checksum.*remove or replace"):
            index.get(second[:1])
        with pytest.raises(DamagedIndexError):
            index.compact()
        assert_same_records(index.get(rest), HELD[[held[number] for number in rest.tolist()]])
        index.remove(first)
        index.upsert(HELD[[held[number] for number in second.tolist()]])
        index.compact()
        assert index.verify() == []
        left = np.union1d(second, rest)
        assert_same_records(index.get(left), HELD[[held[number] for number in left.tolist()]])
    assert verify_path(path) == []


def test_damage_to_removed_records_does_not_stop_a_compaction(path):
    with FaissIndex.open(path) as index:
        ids = np.fromfile(path / "generation-0" / "ids", "<i8")[:128]
        index.remove(np.setdiff1d(ids, [0, 1, 2]))
    flip(path / "generation-0" / "features", 0)
    with FaissIndex.open(path) as index:
        (damage,) = index.verify()
        assert damage.ids.tolist() == []
        index.compact()
        assert index.verify() == []
        assert set(index.ids().tolist()) == set(HELD.ids.tolist()) - set(ids.tolist())


def test_a_missing_column_is_named_with_what_else_is_damaged(path):
    (path / "generation-0" / "codes").unlink()
    flip(path / "generation-0" / "features", 0)
    messages = [found.where + found.what for found in verify_path(path)]
    assert any("codes is missing" in text for text in messages)
    assert any("features" in text and "rows 0 to 127" in text for text in messages)


# contents that match their checksums and contradict each other


def forge(path: Path, name: str, row: int, value: object) -> None:
    """Write another value to one row of a column, and the checksum that matches."""
    spec, file = specs(CONFIG)[name], path / "generation-0" / name
    values = np.fromfile(file, spec.dtype).reshape(-1, *spec.shape)
    values[row] = value
    values.tofile(file)
    data = values.tobytes()
    size = spec.block * spec.row_bytes
    crcs = np.array([zlib.crc32(data[start : start + size]) for start in range(0, len(data), size)], "<u4")
    with sqlite3.connect(path / "catalogue.sqlite") as db:
        db.execute("UPDATE checksums SET crcs = ? WHERE name = ?", (crcs.tobytes(), name))
    db.close()


@pytest.mark.parametrize(
    ("name", "row", "value", "what", "ids"),
    [
        ("ids", 10, 11, "more than once", [11]),
        ("ids", 10, -5, "negative", [-5]),
        ("probabilities", 10, [0, 65535, 0, 0, 0, 0, 0, 0], "outside of their cell", ["id"]),
        ("probabilities", 10, [6, 65535, 0, 0, 0, 0, 0, 0], "outside of their cell", ["id"]),
        ("uri_ends", 10, 2**40, "uri_ends", []),
        ("uri_bytes", 100, 0xFF, "uri_bytes", []),
    ],
)
def test_contradictions_are_named(path, name, row, value, what, ids):
    if ids == ["id"]:
        ids = np.fromfile(path / "generation-0" / "ids", "<i8")[[row]].tolist()
    forge(path, name, row, value)
    found = verify_path(path)
    assert [damage for damage in found if what in damage.what and damage.ids.tolist() == ids]


@pytest.mark.parametrize(
    "row",
    {
        "ascending": [1, 100, 0, 60_000, 0, 0, 0, 0],
        "a class twice": [0, 20_000, 0, 20_000, 1, 9, 0, 0],
        "a class that does not exist": [60_000, 40_000, 0, 10, 0, 0, 0, 0],
        "a class without a value": [0, 65_535, 3, 0, 0, 0, 0, 0],
        "a gap": [0, 60_000, 0, 0, 1, 9, 0, 0],
        "equal values in another order": [1, 30_000, 0, 30_000, 0, 0, 0, 0],
    }.values(),
)
@pytest.mark.parametrize("engine", ["compiled", "faiss"])
def test_a_row_that_semcut_does_not_write_is_damage(path, row, engine):
    """Bounds rely on the order of a row, and its classes are added up where they are different."""
    forge(path, "probabilities", 10, row)
    (damage,) = verify_path(path)
    assert damage.what == "rows 0 to 127 are not as semcut writes them"
    assert 125 <= len(damage.ids) <= 128  # some are removed
    assert right_or_refused(path)
    with FaissIndex.open(path, engine=engine) as index:
        for call in (index.compact, lambda: index.get(damage.ids), lambda: index.search(QUERIES, **OPTIONS)):
            with pytest.raises(DamagedIndexError, match="rows 0 to 127 are not as semcut writes them"):
                call()
        index.remove(damage.ids)
        index.compact()
        index.search(QUERIES, **OPTIONS)
    assert not verify_path(path)


def test_a_record_outside_of_its_cell_is_not_compacted(path):
    """Otherwise a small forged index could become one of as many cells as it has records."""
    forge(path, "probabilities", 10, [6, 65535, 0, 0, 0, 0, 0, 0])
    files = {file.name: file.read_bytes() for file in path.glob("*/*")}
    with FaissIndex.open(path) as index, pytest.raises(DamagedIndexError, match="outside of their cell"):
        index.compact()
    assert {file.name: file.read_bytes() for file in path.glob("*/*")} == files


@pytest.mark.parametrize("value", [1.0, 1.0001, 65_535.5 / 65_536, np.nan])
def test_an_envelope_that_could_not_be_written_again_is_damage(path, value):
    """Earlier formats have envelopes as float32; as a multiple of 2^-16 it would wrap around, and lose its records."""
    with sqlite3.connect(path / "catalogue.sqlite") as db:
        cell, number, low = db.execute("SELECT cell, number, low FROM cells LIMIT 1").fetchone()
        envelope = np.full(CONFIG.classes + 1, value, "<f4").tobytes()
        crc = _cell_crc(cell, number, low, envelope)
        db.execute("UPDATE cells SET envelope = ?, crc = ? WHERE cell = ?", (envelope, crc, cell))
    db.close()
    for call in (lambda: FaissIndex.open(path), lambda: Catalogue(path / "catalogue.sqlite").read()):
        with pytest.raises(DamagedIndexError, match="the bounds of its cells are not probabilities"):
            call()
    assert "not probabilities" in verify_path(path)[0].what


def test_written_envelopes_are_never_lower():
    values = np.array([[0, 1e-9, 0.3, 0.3000001, 1 - 2.0**-16, 0.5, 2.0**-16]], np.float32)
    one = np.ones(1, np.float32)
    cells = Cells(CONFIG, np.zeros(1, np.int64), np.ones(1, np.int64), one / 2, values, one)
    read = _cells(CONFIG, [*cell_rows(cells, np.arange(1))]).envelopes
    assert (read >= values).all()
    assert (read - values < 2.0**-16).all()


def test_an_envelope_that_is_too_low_is_named(path):
    """A bound that is too low is the one fault that would make pruning lose a record."""
    store = Store.open(path)
    snapshot = store.snapshot
    cells = snapshot.cells
    cell = int(snapshot.columns.cells[10])
    envelopes = cells.envelopes.copy()
    envelopes[cell] *= np.float32(0.9)
    after = snapshot.committed._replace(
        version=snapshot.committed.version + 1, cells=replace(cells, envelopes=envelopes)
    )
    store.close()
    catalogue = Catalogue(path / "catalogue.sqlite")
    catalogue.commit(snapshot.committed, after, np.array([cell]))
    catalogue.close()
    (damage,) = verify_path(path)
    assert "outside of their cell" in damage.what
    assert set(damage.ids.tolist()) <= set(snapshot.columns.ids[snapshot.columns.cells == cell].tolist())


def test_the_sound_index_is_sound(sound, path):
    reported = []
    assert verify_path(sound, lambda done, total, task="": reported.append(done / total)) == []
    assert reported[-1] == 1
    assert not right_or_refused(path)


# space


@pytest.mark.parametrize("operation", ["upsert", "remove", "compact", "backup"])
def test_without_space_nothing_changes(path, operation):
    with FaissIndex.open(path) as index:
        if operation == "remove":  # of enough records that their tombstones do not fit
            index.add(records(np.arange(1000, 6000), np.full(5000, 3)))
            index.remove(np.arange(1000, 1500))
        change = {
            "upsert": lambda: index.upsert(records(np.arange(5000), np.full(5000, 3))),
            "remove": lambda: index.remove(np.arange(1500, 6000)),
            "compact": index.compact,
            "backup": lambda: index.backup(path.with_name("copy")),
        }[operation]
        before, version = index.ids().tolist(), index.version
        expected = index.search(QUERIES, **OPTIONS)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
        try:
            with pytest.raises(StorageError, match=r"File too large|full|disk I/O"):
                change()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert index.ids().tolist() == before
        assert index.version == version
        assert_same(index.search(QUERIES, **OPTIONS), expected)
        assert index.verify() == []
        index.upsert(records(np.arange(700, 800), np.full(100, 3)))
        index.compact()
        index.backup(path.with_name("copy"))
    assert verify_path(path) == verify_path(path.with_name("copy")) == []


@pytest.mark.parametrize(
    ("name", "stored", "value", "read"),
    [
        ("features", "int8", -128, True),
        ("features", "float16", np.inf, False),
        ("features", "float16", 1e-4, True),
        ("features", "float32", np.nan, False),
        ("probabilities", "float32", np.nan, False),
        ("probabilities", "float32", 2.0, False),
        ("probabilities", "float32", -0.5, False),
    ],
)
def test_values_that_an_index_cannot_have_stored_are_damage(tmp_path, name, stored, value, read):
    """They are named by `verify`, refused by what copies records, and their records can be removed."""
    config = IndexConfig(classes=4, bits=32, dim=4, stored_probabilities=4, stored_features=stored)
    batch = stored_values(config, classified(np.random.default_rng(0), config, 20))
    with FaissIndex.create(tmp_path, config, engine="faiss") as index:
        index.add(batch)
        values = index.snapshot.columns.raw()[name].copy()
        (row,) = np.flatnonzero(index.snapshot.columns.ids == 7)
    values[row] = value
    forge_column(tmp_path, name, values)
    with FaissIndex.open(tmp_path, engine="faiss") as index:
        assert any("cannot have stored" in damage.what and damage.ids.tolist() == [7] for damage in index.verify())
        with pytest.raises(DamagedIndexError, match="cannot have stored"):
            index.compact()
        for refused in (lambda: index.get([7]), lambda: next(index.iterate())):
            with nullcontext() if read else pytest.raises(DamagedIndexError, match="cannot have stored"):
                refused()
        index.remove([7])
        index.compact()
        assert index.verify() == []
        assert_same_records(index.get(index.ids()), batch[np.delete(np.arange(20), 7)])
