"""`semcut migrate` copies an index to Milvus and back, refuses what does not fit, and reports differences."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    DamagedIndexError,
    Encodings,
    FaissIndex,
    IndexConfig,
    NotAnIndexError,
)
from semcut.indexes.errors import SemcutWarning
from semcut.indexes.migration.copy import Migration
from semcut.indexes.migration.journal import Journal, SourceChangedError
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.attribute_fields import field_of
from semcut.indexes.milvus.schema import to_keys
from tests.command import semcut
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.milvus.migration.command import CONFIG, all_of, error_of, records, report_of
from tests.indexes.storage.stored_index import forge_column

SCRIPT = Path(__file__).parents[4] / "scripts" / "migrate_to_milvus.py"


def test_there_and_back(source, collection, uri, tmp_path):
    """All records arrive and come back unchanged; both indexes give the same answers."""
    there = report_of(
        source, collection, "--uri", uri, "--verify", "--batch-size", 90, "--report", "r.json", cwd=tmp_path
    )
    assert there == json.loads((tmp_path / "r.json").read_text())
    with FaissIndex.open(source) as faiss:
        stored, queries = all_of(faiss), records(20, seed=2)
        expected = faiss.search(queries, shortlist=None)
        matching = faiss.matching('camera == "a" or stars > 1').tolist()
    assert there["records"] == there["copied"] == len(stored)
    assert (there["verified"], there["differences"], there["resumed_at"]) == (True, [], 0)
    assert there["searches"] == 64  # 32 with each ranking
    with MilvusIndex.open(uri, collection=collection) as milvus:
        assert milvus.config == CONFIG
        assert len(milvus) == len(stored)
        assert_same_records(all_of(milvus), stored)
        assert_same(milvus.search(queries, shortlist=None), expected)
        assert milvus.matching('camera == "a" or stars > 1').tolist() == matching
    back = report_of("back", collection, "--uri", uri, "--reverse", "--verify", "--batch-size", 77, cwd=tmp_path)
    assert (back["records"], back["verified"], back["differences"]) == (len(stored), True, [])
    with FaissIndex.open(tmp_path / "back") as faiss:
        assert faiss.config == CONFIG
        assert_same_records(all_of(faiss), stored)
        assert faiss.verify() == []


def test_an_empty_index(collection, uri, tmp_path):
    """Nothing is copied, but the target is an index."""
    FaissIndex.create(tmp_path / "source", CONFIG).close()
    assert report_of("source", collection, "--uri", uri, "--verify", cwd=tmp_path)["verified"] is True
    with MilvusIndex.open(uri, collection=collection) as milvus:
        assert len(milvus) == 0


def test_features_of_any_length(collection, uri, tmp_path):
    """Without L2-normalised features, only searches by distance are compared."""
    batch = records()
    with FaissIndex.create(tmp_path / "source", CONFIG) as index:
        index.add(Encodings(**{**vars(batch), "features": batch.features * 3}))
    report = report_of("source", collection, "--uri", uri, "--verify", cwd=tmp_path)
    assert (report["verified"], report["searches"]) == (True, 32)


def test_a_dry_run_changes_nothing(source, collection, uri, tmp_path):
    """The report says what would be created, how much would be copied, and what prevents the migration."""
    before = sorted(path.name for path in tmp_path.iterdir())
    plan = report_of(source, collection, "--uri", uri, "--dry-run", "--batch-size", 100, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        stored = len(index)
    assert plan["records"] == stored
    assert plan["batches"] == -(-stored // 100)
    assert plan["bytes"] == stored * (8 + 8 + 4 * (6 + 8) + 8 + 8 + 8 + 1)
    assert plan["in the way"] is None
    assert {collection, f"{collection}_catalogue"} <= set(plan["would create"])
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with pytest.raises(NotAnIndexError):
        MilvusIndex.open(uri, collection=collection)
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    plan = report_of(source, collection, "--uri", uri, "--dry-run", cwd=tmp_path)
    assert f"{stored} records" in plan["in the way"]
    plan = report_of(source, collection, "--uri", uri, "--reverse", "--dry-run", cwd=tmp_path)
    assert "holds something" in plan["in the way"]


def test_an_existing_target_is_not_overwritten(source, collection, uri, tmp_path):
    """An index of the same name, another configuration, or a directory that is not empty: refused, and unchanged."""
    other = IndexConfig(classes=6, bits=32, dim=8)
    with MilvusIndex.create(uri, other, collection=collection) as milvus:
        milvus.add(records(10, other))
    line = error_of(source, collection, "--uri", uri, cwd=tmp_path)
    assert f"there is an index {collection}" in line
    line = error_of(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    assert "bits 32 instead of 64" in line
    assert "another prior" in line
    with MilvusIndex.open(uri, collection=collection) as milvus:
        assert len(milvus) == 10
    assert "exists already" in error_of(source, collection, "--uri", uri, "--reverse", cwd=tmp_path)
    with FaissIndex.open(source) as index:
        assert index.config == CONFIG


def test_a_journal_that_does_not_fit(source, collection, uri, tmp_path):
    """The journal of a copy that was begun, or of another migration; a target that was dropped; another file."""
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    journal = tmp_path / f"source.{collection}.journal"
    assert "--resume" in error_of(source, collection, "--uri", uri, cwd=tmp_path)
    line = error_of(source, "elsewhere", "--uri", uri, "--resume", "--journal", journal, cwd=tmp_path)
    assert "belongs to a copy from" in line
    MilvusIndex.drop(uri, collection="elsewhere")
    MilvusIndex.drop(uri, collection=collection)
    assert "but they are not there" in error_of(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    journal.write_text('{"something": "else"}\n')
    assert "no journal" in error_of(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    journal.unlink()
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path)
    assert report["verified"] is True
    journal.unlink()
    line = error_of(source, collection, "--uri", uri, "--resume", cwd=tmp_path)  # whose records are in the target?
    assert "that lists which of them were copied" in line


def test_a_source_that_changes_is_noticed(source, collection, uri, tmp_path):
    """A source that changes during a copy, after it, or while it is interrupted."""
    writer = FaissIndex.open(source)
    with (
        FaissIndex.open(source) as reader,
        MilvusIndex.create(uri, CONFIG, collection=collection) as target,
    ):
        journal = Journal(tmp_path / "journal")
        migration = Migration(reader, target, journal, ("source", collection), 100)
        with pytest.raises(SourceChangedError, match="has been changed"):
            migration.copy(lambda done, total: writer.remove(writer.ids()[:1]) if done == 200 else None)
        writer.close()
        with pytest.raises(SourceChangedError, match="start again while no process changes the source"):
            Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 100)
    MilvusIndex.drop(uri, collection=collection)
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        index.remove(index.ids()[:1])
    line = error_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=4)
    assert "has been changed" in line


def test_a_collection_that_changes_is_noticed(collection, uri, tmp_path):
    """Another client removes, replaces and adds a record."""
    with MilvusIndex.create(uri, CONFIG, collection=collection) as writer:
        writer.add(records())
        ids = writer.ids()
        changes = [
            lambda: writer.remove(ids[:1]),
            lambda: writer.upsert(writer.get(ids[1:2])),
            lambda: writer.add(Encodings(**{**vars(records(1, seed=3)), "ids": np.array([5000])})),
        ]
        for number, change in enumerate(changes):
            with (
                MilvusIndex.open(uri, collection=collection) as source,
                FaissIndex.create(None, CONFIG) as target,
            ):
                journal = Journal(tmp_path / f"journal {number}")
                migration = Migration(source, target, journal, (collection, "copy"), 150)
                with pytest.raises(SourceChangedError):
                    migration.copy(lambda done, total, change=change: change() if done == 150 else None)


def test_verifying_finds_what_differs(source, collection, uri, tmp_path):
    """A missing, changed or additional record, whatever is changed: status 3, with the ids."""
    semcut("migrate", source, collection, "--uri", uri, "--batch-size", 100, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        ids = index.ids()
        ids = np.sort(ids[ids < 2**62])
        some = index.get(ids[:4])
    swapped = Encodings(
        probabilities=np.vstack([some.probabilities[0][::-1], some.probabilities[1:]]),
        codes=np.vstack([some.codes[:1], ~some.codes[1:2], some.codes[2:]]),
        features=np.vstack([some.features[:2], -some.features[2:3], some.features[3:]]),
        ids=some.ids,
        uris=[*(some.uris or [None] * 4)[:3], "another"],
        attributes=some.attributes,
    )
    tagged = Encodings(**{**vars(some[:1]), "attributes": {**some[:1].attributes, "tags": [["another"]]}})
    cases = [
        (lambda milvus: milvus.remove(ids[10:12]), ids[10:12], "records, source"),
        (lambda milvus: milvus.upsert(swapped), ids[:4], "not the same"),
        (lambda milvus: milvus.upsert(tagged), ids[:1], "not the same"),
        (lambda milvus: milvus.remove(ids[-1:]), ids[-1:], "records, source"),
    ]
    for change, wrong, said in cases:
        with MilvusIndex.open(uri, collection=collection) as milvus:
            change(milvus)
        report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
        assert (report["verified"], report["copied"]) == (False, 0)
        text = "\n".join(report["differences"])
        assert said in text
        assert f"{len(wrong)} records are missing or not the same: {', '.join(map(str, wrong))}" in text
        with FaissIndex.open(source) as index, MilvusIndex.open(uri, collection=collection) as milvus:
            milvus.upsert(index.get(wrong))
    with MilvusIndex.open(uri, collection=collection) as milvus:
        milvus.add(Encodings(**{**vars(records(1, seed=3)), "ids": np.array([5000])}))
    done = semcut("migrate", source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
    assert "differs:" in done.stderr
    assert " records, source has " in " ".join(done.stderr.split())


def test_missing_bounds_are_found(source, collection, uri, tmp_path):
    """Searches prune records whose cells have no bounds; the comparison of searches finds this."""
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    with MilvusIndex.open(uri, collection=collection) as milvus:
        server = milvus._server
        server.delete(f"{collection}_catalogue", "cell >= 0 and cell < 45")
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
    assert any("searches" in difference for difference in report["differences"])
    assert not any("records" in difference for difference in report["differences"])


def test_a_filter_that_matches_other_records_is_found(source, collection, uri, tmp_path):
    """A server may filter by other values than it returns, since Milvus 2.3 stores attributes twice."""
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        ids = index.ids()
        middle = index.get(ids[len(ids) // 2 :][:1])
        (stars,) = middle.attributes["stars"]
    with MilvusIndex.open(uri, collection=collection) as milvus:
        key = int(to_keys(middle.ids)[0])
        fields = ["id", "row", "cell", "dominant", "flags", *map(field_of, CONFIG.attributes), "code"]
        fields += ["uri", "feature", "probabilities"] if milvus._schema.kind != "apart" else []
        (row,) = milvus._server.read("query", collection, filter=f"id in [{key}]", output_fields=fields, strong=True)
        row = {name: row[name] for name in fields} | {field_of("stars"): 1 - (stars or 0)}
        if milvus._schema.kind != "floats":  # a binary vector is returned in a list
            row["code"] = row["code"][0]
        milvus._server.call("upsert", collection, [row])
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
    assert f"a filter by stars matches other records, 1 in all: {middle.ids[0]}" in report["differences"]


def test_no_server_answers(source, tmp_path):
    """Status 5, in time, in one line without the address."""
    started = time.monotonic()
    line = error_of(source, "--uri", "http://user:secret@127.0.0.1:1", "--timeout", 2, cwd=tmp_path, status=5)
    assert time.monotonic() - started < 20
    assert "did not answer within 2 s" in line
    assert "secret" not in line


def test_the_script_is_the_command(source, collection, uri, tmp_path):
    """scripts/migrate_to_milvus.py does the same, with the address from the environment."""
    done = subprocess.run(
        [sys.executable, SCRIPT, source, collection, "--verify", "--json"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MILVUS_URI": uri}, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["verified"] is True


def create_one_cell(path: Path, classes: int) -> None:
    """Store 100 records of class 3 with the probability 0.5, and of no other class."""
    config = IndexConfig(classes=classes, bits=64, dim=8, stored_probabilities=1, stored_features="int8")
    batch = records(100, config)
    probabilities = np.zeros((100, classes), np.float32)
    probabilities[:, 3] = 0.5
    with FaissIndex.create(path, config) as index:
        index.add(Encodings(**{**vars(batch), "probabilities": probabilities, "any_mass": True}))
        assert index.stats().cells == 1


def test_records_outside_of_the_cells_of_their_index_are_not_copied(tmp_path, collection, uri):
    """A forged catalogue with one cell, and a record of every class: the target would make a cell for each of them."""
    create_one_cell(tmp_path / "source", classes=300)
    rows = np.full((100, 2), 1 << 15, np.uint16)
    rows[:, 0] = np.arange(100)
    forge_column(tmp_path / "source", "probabilities", rows)
    line = error_of("source", collection, "--uri", uri, cwd=tmp_path)
    assert "source has records outside of their cell, such as " in line
    assert "semcut verify" in line
    with pytest.warns(SemcutWarning):
        milvus = MilvusIndex.open(uri, collection=collection)
    with milvus:
        assert len(milvus) == 0
        assert not milvus.cells_per_partition().any()


@pytest.mark.parametrize(("multiple", "outside"), [(32_768, False), (32_767, True), (32_769, True), (60_000, True)])
def test_records_beyond_the_bounds_of_their_cell_are_not_copied(tmp_path, multiple, outside):
    create_one_cell(tmp_path / "source", classes=6)
    rows = np.tile(np.array([[3, 32_768]], np.uint16), (100, 1))
    rows[-1, 1] = multiple
    forge_column(tmp_path / "source", "probabilities", rows)
    with FaissIndex.open(tmp_path / "source") as source, FaissIndex.create(None, source.config) as target:
        migration = Migration(source, target, Journal(tmp_path / "journal"), ("source", "target"))
        with pytest.raises(DamagedIndexError, match="outside") if outside else nullcontext():
            migration.copy()
        assert bool(source.verify()) is outside
        assert len(target) == (0 if outside else 100)
