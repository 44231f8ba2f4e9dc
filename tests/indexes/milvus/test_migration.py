"""`semcut migrate`: there and back, interrupted at any moment, and what it refuses, notices and reports."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidParameterError,
    NotAnIndexError,
    ServerError,
    StorageError,
)
from semcut.indexes.migration.copy import Journal, Migration, SourceChangedError, check_shape, checksum
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import Server
from semcut.indexes.milvus.schema import to_keys
from tests.command import SEMCUT, semcut
from tests.indexes.generate import assert_same, assert_same_records, classified
from tests.indexes.milvus.conftest import REAL
from tests.indexes.milvus.server import RealServer

CONFIG = IndexConfig(classes=6, bits=64, dim=8, prior=[1, 2, 3, 4, 5, 6])
ROWS = 400
SCRIPT = Path(__file__).parents[3] / "scripts" / "migrate_to_milvus.py"


def records(rows: int = ROWS, config: IndexConfig = CONFIG, seed: int = 0) -> Encodings:
    """Records in no order, the largest id among them; some with uris of all kinds."""
    rng = np.random.default_rng(seed)
    batch = classified(rng, config, rows)
    ids = rng.permutation(rows * 3)[:rows].astype(np.int64)
    ids[rows // 2] = 2**63 - 1
    uris = [(None, "", "a b.jpg", "ü\n'\".jpg")[number % 4] for number in range(rows)]
    return Encodings(probabilities=batch.probabilities, codes=batch.codes, features=batch.features, ids=ids, uris=uris)


def all_of(index: FaissIndex | MilvusIndex) -> Encodings:
    """All records, in order of ids."""
    batches = list(index.iterate(150))
    uris = [uri for batch in batches for uri in (batch.uris or [None] * len(batch))]
    whole = Encodings.concatenate(batches)
    return Encodings(
        probabilities=whole.probabilities, codes=whole.codes, features=whole.features, ids=whole.ids, uris=uris
    )


@pytest.fixture(params=["lite", REAL])
def uri(request, tmp_path) -> str:
    """Where Milvus is. Not the file of other tests, which is open in this process and so closed to commands."""
    if request.param == "lite":
        return str(tmp_path / "milvus.db")
    return request.getfixturevalue("real_server").uri


@pytest.fixture
def source(tmp_path) -> Path:
    """A stored index with a past: replaced and removed records."""
    batch = records()
    with FaissIndex.create(tmp_path / "source", CONFIG) as index:
        index.add(batch)
        index.upsert(records(seed=1)[:50])
        index.remove(index.ids()[::7])
    return tmp_path / "source"


@pytest.fixture
def collection(uri) -> Iterator[str]:
    """The name of a collection that is not there yet, and is dropped afterwards."""
    name = f"migration_{secrets.token_hex(6)}"
    yield name
    with contextlib.suppress(NotAnIndexError):
        MilvusIndex.drop(uri, collection=name)


def report_of(*arguments: object, cwd: Path, status: int = 0) -> dict:
    """The report that the command prints."""
    done = semcut("migrate", *arguments, "--json", cwd=cwd, status=status)
    return json.loads(done.stdout)


def complaint(*arguments: object, cwd: Path, status: int = 1) -> str:
    """The one line that the command ends with when it fails."""
    done = semcut("migrate", *arguments, cwd=cwd, status=status)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("semcut: ")
    return line


def test_there_and_back(source, collection, uri, tmp_path):
    """Everything arrives, and comes back the same; both sides give the same answers."""
    there = report_of(
        source, collection, "--uri", uri, "--verify", "--batch-size", 90, "--report", "r.json", cwd=tmp_path
    )
    assert there == json.loads((tmp_path / "r.json").read_text())
    with FaissIndex.open(source) as faiss:
        held, queries = all_of(faiss), records(20, seed=2)
        expected = faiss.search(queries, shortlist=None)
    assert there["records"] == there["copied"] == len(held)
    assert (there["verified"], there["differences"], there["resumed_at"]) == (True, [], 0)
    assert there["searches"] == 64  # 32 with each ranking
    with MilvusIndex.open(uri, collection=collection) as milvus:
        assert milvus.config == CONFIG
        assert len(milvus) == len(held)
        assert_same_records(all_of(milvus), held)
        assert_same(milvus.search(queries, shortlist=None), expected)
    back = report_of("back", collection, "--uri", uri, "--reverse", "--verify", "--batch-size", 77, cwd=tmp_path)
    assert (back["records"], back["verified"], back["differences"]) == (len(held), True, [])
    with FaissIndex.open(tmp_path / "back") as faiss:
        assert faiss.config == CONFIG
        assert_same_records(all_of(faiss), held)
        assert faiss.verify() == []


def test_an_empty_index(collection, uri, tmp_path):
    """Nothing is copied, and there is an index."""
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


def test_a_dry_run_makes_nothing(source, collection, uri, tmp_path):
    """It says what would be made, how much, and what is in the way."""
    before = sorted(path.name for path in tmp_path.iterdir())
    plan = report_of(source, collection, "--uri", uri, "--dry-run", "--batch-size", 100, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        held = len(index)
    assert plan["records"] == held
    assert plan["batches"] == -(-held // 100)
    assert plan["bytes"] == held * (8 + 8 + 4 * (6 + 8))
    assert plan["in the way"] is None
    assert {collection, f"{collection}_catalogue"} <= set(plan["would create"])
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    with pytest.raises(NotAnIndexError):
        MilvusIndex.open(uri, collection=collection)
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    plan = report_of(source, collection, "--uri", uri, "--dry-run", cwd=tmp_path)
    assert f"{held} records" in plan["in the way"]
    plan = report_of(source, collection, "--uri", uri, "--reverse", "--dry-run", cwd=tmp_path)
    assert "holds something" in plan["in the way"]


def test_what_is_there_is_not_overwritten(source, collection, uri, tmp_path):
    """An index of the same name, of another shape, a directory with something in it: refused, and untouched."""
    other = IndexConfig(classes=6, bits=32, dim=8)
    with MilvusIndex.create(uri, other, collection=collection) as milvus:
        milvus.add(records(10, other))
    line = complaint(source, collection, "--uri", uri, cwd=tmp_path)
    assert f"there is an index {collection}" in line
    line = complaint(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    assert "bits 32 instead of 64" in line
    assert "another prior" in line
    with MilvusIndex.open(uri, collection=collection) as milvus:
        assert len(milvus) == 10
    assert "exists already" in complaint(source, collection, "--uri", uri, "--reverse", cwd=tmp_path)
    with FaissIndex.open(source) as index:
        assert index.config == CONFIG


def test_what_the_journal_is_about(source, collection, uri, tmp_path):
    """A copy that was begun, another pair, a target that is gone, another file."""
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    journal = tmp_path / f"source.{collection}.journal"
    assert "--resume" in complaint(source, collection, "--uri", uri, cwd=tmp_path)
    line = complaint(source, "elsewhere", "--uri", uri, "--resume", "--journal", journal, cwd=tmp_path)
    assert "is about" in line
    MilvusIndex.drop(uri, collection="elsewhere")
    MilvusIndex.drop(uri, collection=collection)
    assert "but they are not" in complaint(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    journal.write_text('{"something": "else"}\n')
    assert "no journal" in complaint(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    journal.unlink()
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path)
    assert report["verified"] is True
    journal.unlink()
    line = complaint(source, collection, "--uri", uri, "--resume", cwd=tmp_path)  # whose records are these?
    assert "is not there that would tell" in line


def test_going_on_with_other_batches(source, collection, uri, tmp_path):
    """Cut off in a large batch, a copy goes on with small ones, and leaves nothing behind."""
    with FaissIndex.open(source) as reader, MilvusIndex.create(uri, CONFIG, collection=collection) as target:
        migration = Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 150)
        for calls in (7, 9):
            with pytest.MonkeyPatch.context() as patch:
                call, made = Server.call, []

                def fails(self, name, /, *args, call=call, made=made, calls=calls, **kwargs):
                    made.append(name)
                    if len(made) == calls:
                        raise ServerError("the server is gone")
                    return call(self, name, *args, **kwargs)

                patch.setattr(Server, "call", fails)
                with pytest.raises(ServerError, match="is gone"):
                    migration.copy()
            migration = Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 20)
        assert migration.copy().differences == []
        assert migration.verify().verified is True
        key = target._layout.key
        rows = sum(len(page[key]) for page in target._server.pages(target._layout.records, key, f"{key} >= -1", []))
        assert rows == len(target) == len(reader)


def test_a_source_that_changes_is_noticed(source, collection, uri, tmp_path):
    """In the middle of a copy, after it, and between its parts."""
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
        with pytest.raises(SourceChangedError, match="start anew"):
            Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 100)
    MilvusIndex.drop(uri, collection=collection)
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    with FaissIndex.open(source) as index:
        index.remove(index.ids()[:1])
    line = complaint(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=4)
    assert "has been changed" in line


def test_a_collection_that_changes_is_noticed(collection, uri, tmp_path):
    """By another client: an added, a replaced and a removed record."""
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
    """A lost record, another code, feature, probability or uri, and a record too many: status 3, with the ids."""
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
    )
    cases = [
        (lambda milvus: milvus.remove(ids[10:12]), ids[10:12], "records, source"),
        (lambda milvus: milvus.upsert(swapped), ids[:4], "not the same"),
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
    assert "holds" in done.stderr


def test_bounds_that_do_not_hold_are_found(source, collection, uri, tmp_path):
    """Records of which the catalogue knows no bounds are pruned: the searches that are compared show it."""
    semcut("migrate", source, collection, "--uri", uri, cwd=tmp_path)
    with MilvusIndex.open(uri, collection=collection) as milvus:
        server = milvus._server
        server.delete(f"{collection}_catalogue", "cell >= 0 and cell < 45")
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
    assert any("searches" in difference for difference in report["differences"])
    assert not any("records" in difference for difference in report["differences"])


def killed_and_resumed(source: Path, collection: str, uri: str, tmp_path: Path, kills: int, batch: int) -> None:
    """A copy that is killed at so many moments, all over the copy and at any point of a batch, and then completed."""
    rng = random.Random(kills)
    journal = tmp_path / f"{source.name}.{collection}.journal"
    command = [SEMCUT, "migrate", source, collection, "--uri", uri, "--resume", "--batch-size", str(batch)]
    with FaissIndex.open(source) as index:
        total = len(index)
    seen = 0
    for kill in range(kills):
        process = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stderr=subprocess.PIPE)
        goal = min(total - batch, (kill + 1) * total // (kills + 1))
        while process.poll() is None and (Journal(journal).copied if journal.exists() else 0) < goal:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), said
        copied = Journal(journal).copied
        assert copied >= seen
        seen = copied
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", "--batch-size", batch, cwd=tmp_path)
    assert (report["verified"], report["differences"], report["records"]) == (True, [], total)
    assert report["resumed_at"] >= seen
    with MilvusIndex.open(uri, collection=collection, strong=True) as milvus, FaissIndex.open(source) as index:
        assert milvus.stats().records == len(milvus) == total
        np.testing.assert_array_equal(milvus.ids(), np.sort(index.ids()))
        rows = milvus._server.pages(milvus._layout.records, milvus._layout.key, f"{milvus._layout.key} >= -1", [])
        assert sum(len(page[milvus._layout.key]) for page in rows) == total  # nothing twice, nothing left over


def test_killed_and_resumed(source, collection, uri, tmp_path):
    """The copy is complete and whole, whenever it was killed."""
    killed_and_resumed(source, collection, uri, tmp_path, 3, 40)


@pytest.mark.long
@pytest.mark.milvus
def test_a_large_copy_is_killed_twenty_times(real_server, tmp_path):
    """100,000 records, SIGKILL at 20 random moments, resumed each time: complete, nothing twice, verified."""
    config = IndexConfig(classes=100, bits=64, dim=128)
    rng = np.random.default_rng(7)
    with FaissIndex.create(tmp_path / "large", config, durability="close") as index:
        for first in range(0, 100_000, 20_000):
            index.add(classified(rng, config, 20_000, first_id=first))
    name = f"migration_{secrets.token_hex(6)}"
    try:
        killed_and_resumed(tmp_path / "large", name, real_server.uri, tmp_path, 20, 2000)
    finally:
        MilvusIndex.drop(real_server.uri, collection=name, timeout=60)


@pytest.mark.milvus
def test_the_server_is_killed_in_the_middle(tmp_path, real_server):
    """A clear message and status 5; when the server is back, the copy is completed."""
    config = IndexConfig(classes=20, bits=64, dim=32)
    with FaissIndex.create(tmp_path / "source", config) as index:
        index.add(classified(np.random.default_rng(3), config, 30_000))
    server = RealServer(tmp_path / "server", binaries=real_server.directory)
    try:
        server.start()
        arguments = ["source", "copy", "--uri", server.uri, "--batch-size", "500", "--timeout", "5"]
        process = subprocess.Popen(
            [str(SEMCUT), "migrate", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        journal = tmp_path / "source.copy.journal"
        while process.poll() is None and not (journal.exists() and Journal(journal).copied >= 10_000):
            time.sleep(0.01)
        server.kill()
        started = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 5
        assert time.monotonic() - started < 15
        (line,) = said.splitlines()
        assert "did not answer within 5 s" in line
        assert "--resume" in line
        server.start()
        arguments[-1] = "120"
        report = report_of(*arguments, "--resume", "--verify", cwd=tmp_path)
        assert (report["verified"], report["differences"], report["records"]) == (True, [], 30_000)
        assert report["resumed_at"] >= 10_000
    finally:
        server.delete()


def test_interrupted_by_hand(source, collection, uri, tmp_path):
    """Ctrl-C: one line that says how to go on, status 130."""
    process = subprocess.Popen(
        [str(SEMCUT), "migrate", str(source), collection, "--uri", uri, "--batch-size", "1"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = tmp_path / f"source.{collection}.journal"
    while process.poll() is None and not (journal.exists() and Journal(journal).copied >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.splitlines() == ["semcut: interrupted: go on with --resume"]
    assert report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path)["verified"] is True


def test_no_server_at_all(source, tmp_path):
    """Status 5, in time, and nothing but the journal's place is said."""
    started = time.monotonic()
    line = complaint(source, "--uri", "http://user:secret@127.0.0.1:1", "--timeout", 2, cwd=tmp_path, status=5)
    assert time.monotonic() - started < 20
    assert "did not answer within 2 s" in line
    assert "secret" not in line


def test_the_script_is_the_command(source, collection, uri, tmp_path):
    """scripts/migrate_to_milvus.py, with the address from the environment."""
    done = subprocess.run(
        [sys.executable, SCRIPT, source, collection, "--verify", "--json"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "MILVUS_URI": uri}, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["verified"] is True


def test_the_journal(tmp_path):
    """A line that was cut off is not there; what cannot be read or written is an error."""
    batch = records(30)
    order = np.argsort(batch.ids)
    journal = Journal(tmp_path / "journal")
    assert (journal.header, journal.copied, journal.last) == (None, 0, -1)
    journal.begin({"source": "a", "target": "b"})
    journal.append(batch[order[:10]])
    journal.append(batch[order[10:]])
    whole = (tmp_path / "journal").read_bytes()
    for cut in range(len(whole) + 1):
        (tmp_path / "journal").write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n")
        read = Journal(tmp_path / "journal")
        assert read.copied == (0, 0, 10, 30)[lines]
        assert (read.header is None) == (lines == 0)
        read.begin({}) if lines == 0 else read.append(batch[order[:10]])
        assert Journal(tmp_path / "journal").copied == (0, 10, 20, 40)[lines]
    (tmp_path / "journal").write_text("nothing\n")
    with pytest.raises(StorageError, match="is no journal"):
        Journal(tmp_path / "journal")
    with pytest.raises(StorageError, match="cannot be written"):
        Journal(tmp_path / "nowhere" / "journal").begin({})
    with pytest.raises(StorageError, match="cannot be read"):
        Journal(tmp_path)


def test_the_checksum_sees_everything():
    """Any value, id and uri; also None and an empty uri are not the same."""
    batch = records(4)
    columns = dict(vars(batch))
    known = {checksum(batch)}
    uris = list(batch.uris)
    changed = [
        {"ids": to_keys(batch.ids)[::-1].clip(0)},
        {"codes": batch.codes ^ np.eye(4, 8, dtype=np.uint8)},
        {"probabilities": batch.probabilities[::-1]},
        {"features": np.nextafter(batch.features, np.float32(1))},
        {"uris": [*uris[:3], "x"]},
        {"uris": ["", *uris[1:]]},
        {"uris": [uris[1], uris[0], *uris[2:]]},
        {"uris": None},
    ]
    for change in changed:
        known.add(checksum(Encodings(**{**columns, **change})))
    assert len(known) == 1 + len(changed)


def test_shapes():
    """What must be the same, and how the difference is named."""
    check_shape(CONFIG, CONFIG, "it")
    for change, said in (
        ({"classes": 7, "prior": None}, "classes 7 instead of 6"),
        ({"bits": 32}, "bits 32 instead of 64"),
        ({"dim": 9}, "dim 9 instead of 8"),
        ({"groups": 2}, "groups 2 instead of 6"),
        ({"prior": None}, "another prior"),
    ):
        with pytest.raises(InvalidParameterError, match=said):
            check_shape(CONFIG, IndexConfig(**{**CONFIG.model_dump(), **change}), "it")
