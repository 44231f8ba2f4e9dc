"""A backup is complete or is not an index, and it copies the other files in the directory of the index."""

from __future__ import annotations

import pytest

from semcut.indexes import (
    DamagedIndexError,
    FaissIndex,
    IndexExistsError,
    StorageError,
)
from tests.indexes.storage.stored_index import (
    assert_holds,
    column,
)


def test_a_backup_that_fails_leaves_nothing_large(path, tmp_path):
    data = bytearray(column(path, "features").read_bytes())
    data[5] ^= 1
    column(path, "features").write_bytes(data)
    with FaissIndex.open(path) as index:
        with pytest.raises(DamagedIndexError, match=r"features is damaged.*the backup was not made"):
            index.backup(tmp_path / "copy")
        assert [file.name for file in (tmp_path / "copy").iterdir()] == ["lock"]


def test_a_backup_copies_the_other_files_in_the_directory(path, tmp_path, batch):
    (path / "connector.json").write_text("{}")
    (path / "notes").mkdir()
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
        with pytest.raises(StorageError, match="is inside the index itself: choose a path outside of it"):
            index.backup(path / "copy")
        with pytest.raises(IndexExistsError):
            index.backup(tmp_path / "copy")
    assert (tmp_path / "copy" / "connector.json").read_text() == "{}"
    assert_holds(tmp_path / "copy", batch[:4])
