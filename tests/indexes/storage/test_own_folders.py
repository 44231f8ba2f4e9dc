"""Folders and files of the user beside an index, or in its folders, stay whatever becomes of the index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semcut.indexes import FaissIndex, IndexExistsError
from semcut.indexes.storage import compaction
from semcut.indexes.storage.restore import restore
from tests.indexes.storage.stored_index import COLUMNS, assert_holds


def keep(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    return file


@pytest.mark.parametrize("own", ["generation-2024/photo.jpg", "generation-1/photo.jpg", "generation-7/features/a.jpg"])
def test_no_change_deletes_a_folder_that_is_named_like_a_generation(path, batch, own):
    file = keep(path / own)
    changes = [("add", batch[4:]), ("remove", batch.ids[:1]), ("upsert", batch), ("compact",), ("compact",)]
    for change, *arguments in changes:
        with FaissIndex.open(path) as index:
            getattr(index, change)(*arguments)
        assert file.read_text() == "mine", change
    assert_holds(path, batch)


def test_compact_takes_the_next_number_and_leaves_files_in_the_folder_of_an_index(path, batch):
    kept = [keep(path / name) for name in ("generation-0/notes.txt", "generation-1/photo.jpg", "generation-2")]
    (path / "generation-3").symlink_to(path / "generation-1")
    (path / "generation-4").mkdir()
    (path / "generation-4" / "ids").touch()  # a compaction that was killed left it
    with FaissIndex.open(path) as index:
        index.compact()
    assert [file.read_text() for file in kept] == ["mine"] * 3
    assert (path / "generation-3").is_symlink()
    assert [file.name for file in (path / "generation-0").iterdir()] == ["notes.txt"]
    assert {file.name for file in (path / "generation-4").iterdir()} == set(COLUMNS)
    assert_holds(path, batch[:4])


def test_a_failed_compaction_deletes_only_its_columns(path, batch, monkeypatch):
    def fail(*_):
        keep(path / "generation-1" / "photo.jpg")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction, "write_records", fail)
    with FaissIndex.open(path) as index, pytest.raises(OSError, match="No space"):
        index.compact()
    assert [file.name for file in (path / "generation-1").iterdir()] == ["photo.jpg"]
    assert_holds(path, batch[:4])


def test_restore_names_a_folder_with_the_name_of_a_column(path, tmp_path):
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    file = keep(path / "generation-7" / "features" / "photo.jpg")
    with pytest.raises(IndexExistsError, match="such as 'generation-7': move it away"):
        restore(tmp_path / "backup", path)
    assert file.read_text() == "mine"
    assert os.path.exists(path / "generation-0" / "ids")
