"""An open index whose directory was deleted: its records can be read, and all that needs the files says what to do."""

from __future__ import annotations

import shutil

import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, StorageError
from semcut.indexes.storage import catalogue_guard
from semcut.indexes.storage.catalogue_guard import judge_files
from semcut.indexes.storage.directory import CATALOGUE

GONE = "is no longer there: if the index was moved, open it where it is now; if it was deleted, restore it"


def deleted(path):
    shutil.rmtree(path)


def emptied(path):
    shutil.rmtree(path)
    path.mkdir()


def replaced_by_a_file(path):
    shutil.rmtree(path)
    path.write_text("x")


@pytest.fixture(params=[deleted, emptied, replaced_by_a_file])
def index(request, path, batch):
    """An index that another one has changed, before its directory was deleted."""
    with FaissIndex.open(path, engine="faiss") as index:
        with FaissIndex.open(path) as other:
            other.add(batch[4:])
        request.param(path)
        yield index


def test_refreshing_it(index):
    with pytest.raises(StorageError, match=GONE):
        index.refresh()
    assert len(index) == 4


def test_reading_it(index, batch):
    assert index.search(batch[:1], k=1, cutoff=0.0).ids.tolist() == [[10]]
    assert index.get([10]).ids.tolist() == [10]
    assert [part.ids.tolist() for part in index.iterate()] == [[10, 20, 30, 40]]


def test_verifying_it(index):
    assert [GONE in damage.what for damage in index.verify()] == [True]


def test_changing_it(index, batch, tmp_path):
    for change in (lambda: index.add(batch[4:]), lambda: index.remove([10]), index.compact):
        with pytest.raises(StorageError, match=r"it was replaced or deleted|can be read, not changed"):
            change()
    assert len(index) == 4


def test_a_backup_of_it_names_what_is_missing(path, tmp_path):
    with FaissIndex.open(path) as index:
        shutil.rmtree(path)
        with pytest.raises(StorageError, match=rf"^{path} is not the index .* it was replaced or deleted"):
            index.backup(tmp_path / "backup")


def test_a_statement_ends_though_its_file_was_deleted(path, monkeypatch):
    """An exception where the steps are counted would look like Ctrl-C."""
    monkeypatch.setattr(catalogue_guard, "_STEPS_PER_CALL", 1)
    with FaissIndex.open(path) as index:
        shutil.rmtree(path)
        assert not index.refresh()


def test_judging_a_journal_of_a_catalogue_that_was_deleted_meanwhile(path, monkeypatch):
    (path / f"{CATALOGUE}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(1000))

    def page_bytes(_):
        shutil.rmtree(path)
        return 0

    monkeypatch.setattr(catalogue_guard, "_page_bytes", page_bytes)
    with pytest.raises(StorageError, match=GONE) as error:
        judge_files(path / CATALOGUE)
    assert not isinstance(error.value, DamagedIndexError)
