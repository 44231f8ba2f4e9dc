"""`semcut migrate` copies indexes whose ids are strings to Milvus and back, and names the keys that differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, Encodings, FaissIndex, ServerError
from semcut.indexes.migration import comparison
from semcut.indexes.migration.copy import Migration
from semcut.indexes.migration.journal import Journal, SourceChangedError
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.milvus.core_process import unless_core
from tests.indexes.milvus.migration.command import CONFIG, all_of, error_of, records, report_of

KEYED = CONFIG.model_copy(update={"string_ids": True})
ODD = ['a"b', "a'b", "\\", "\n", "\N{GRINNING FACE}" * 1000, "e\u0301", "\u00e9", "x" * 1000, "1", " "]


def keyed(rows: int, first: int = 0, seed: int = 0) -> Encodings:
    """Return records whose keys have numbers from `first`; the first ten of all have odd ones."""
    keys = [ODD[number] if number < len(ODD) else f"photos/{number}.jpg" for number in range(first, first + rows)]
    return Encodings(**{**vars(records(rows, KEYED, seed)), "ids": keys})


@pytest.fixture
def source(tmp_path) -> Path:
    """The directory of a stored index with keys, in which records were replaced and removed."""
    with FaissIndex.create(tmp_path / "source", KEYED) as index:
        index.add(keyed(200))
        index.upsert(keyed(50, seed=1))
        index.remove(list(keyed(200).keys)[20::7])
    return tmp_path / "source"


@unless_core("reads escapes in texts otherwise")
def test_keys_there_and_back(source, collection, uri, tmp_path):
    plan = report_of(source, collection, "--uri", uri, "--dry-run", cwd=tmp_path)
    assert "key VARCHAR" in plan["would create"][collection]
    there = report_of(source, collection, "--uri", uri, "--verify", "--batch-size", 40, cwd=tmp_path)
    assert (there["verified"], there["differences"]) == (True, [])
    with FaissIndex.open(source) as faiss, MilvusIndex.open(uri, collection=collection) as milvus:
        stored, queries = all_of(faiss), keyed(20, seed=2)
        assert there["records"] == len(stored)
        assert milvus.config == KEYED
        assert_same_records(all_of(milvus), stored)
        assert_same_records(milvus.get(ODD), faiss.get(ODD))
        expected, found = (one.search(queries, shortlist=None) for one in (faiss, milvus))
        assert_same(found, expected)
        assert found.keys.tolist() == expected.keys.tolist()
    back = report_of("back", collection, "--uri", uri, "--reverse", "--verify", "--batch-size", 77, cwd=tmp_path)
    assert (back["records"], back["verified"], back["differences"]) == (len(stored), True, [])
    with FaissIndex.open(tmp_path / "back") as faiss:
        assert faiss.config == KEYED
        assert_same_records(all_of(faiss), stored)
        assert faiss.verify() == []


@unless_core("reads escapes in texts otherwise")
def test_a_copy_of_keys_that_was_interrupted_resumes(source, collection, uri, tmp_path, monkeypatch):
    """The batch that was written in part is completed, and no record is there twice."""
    call, made = ServerConnection.call, []

    def fails(self, name, /, *args, **kwargs):
        made.append(name)
        if made.count("upsert") == 9:
            raise ServerError("the server has crashed")
        return call(self, name, *args, **kwargs)

    with FaissIndex.open(source) as reader, MilvusIndex.create(uri, KEYED, collection=collection) as target:
        with monkeypatch.context() as patch:
            patch.setattr(ServerConnection, "call", fails)
            with pytest.raises(ServerError, match="has crashed"):
                Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 40).copy()
        assert 0 < Journal(tmp_path / "journal").copied < len(reader)
        migration = Migration(reader, target, Journal(tmp_path / "journal"), ("source", collection), 15)
        assert migration.copy().differences == []
        assert migration.verify().verified is True
        key = target._schema.record_key
        pages = list(target._server.pages(target._schema.record_collection, key, f"{key} >= -1", []))
        assert sum(len(page[key]) for page in pages) == len(target) == len(reader)


def test_verifying_names_the_keys_that_differ(source, collection, uri, tmp_path):
    report_of(source, collection, "--uri", uri, "--batch-size", 50, cwd=tmp_path)
    with FaissIndex.open(source) as index, MilvusIndex.open(uri, collection=collection) as milvus:
        changed = index.get(["photos/15.jpg"])
        milvus.upsert(Encodings(**{**vars(changed), "codes": ~changed.codes}))
        milvus.remove(['a"b'])
        milvus.add(keyed(1, first=5000))
    report = report_of(source, collection, "--uri", uri, "--resume", "--verify", cwd=tmp_path, status=3)
    text = "\n".join(report["differences"])
    assert "'photos/15.jpg'" in text
    assert "'a\"b'" in text
    assert not any(str(number) in text for number in keyed(200).ids.tolist())


def test_a_target_without_keys_is_another_configuration(source, collection, uri, tmp_path):
    MilvusIndex.create(uri, CONFIG, collection=collection).close()
    line = error_of(source, collection, "--uri", uri, "--resume", cwd=tmp_path)
    assert "another configuration (string_ids False instead of True)" in line


def test_the_journal_of_an_index_without_keys_is_that_of_another_source(tmp_path):
    """A journal of an index without keys names none, as those of earlier versions."""
    for config, other in ((CONFIG, KEYED), (KEYED, CONFIG)):
        path = tmp_path / f"journal {config.string_ids}"
        Migration(*(FaissIndex.create(None, config) for _ in range(2)), Journal(path), ("a", "b"))
        assert (b"keys" in path.read_bytes()) == config.string_ids
        source, target = (FaissIndex.create(None, other) for _ in range(2))
        with pytest.raises(SourceChangedError):
            Migration(source, target, Journal(path), ("a", "b"))


def test_records_outside_of_their_cells_are_named_by_their_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "outside_cells", lambda cells, probabilities: np.ones(len(probabilities), bool))
    source, target = (FaissIndex.create(None, KEYED) for _ in range(2))
    source.add(keyed(1))
    with pytest.raises(DamagedIndexError, match=r"such as 'a\"b': restore"):
        Migration(source, target, Journal(tmp_path / "journal"), ("a", "b")).copy()
