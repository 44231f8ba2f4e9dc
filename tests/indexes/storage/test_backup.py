"""A backup is complete or is not an index, and it copies the other files in the directory of the index."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import pytest

from semcut.indexes import (
    DamagedIndexError,
    FaissIndex,
    IndexExistsError,
    StorageError,
)
from semcut.indexes.storage.directory import delete_index
from tests.indexes.storage.stored_index import (
    assert_holds,
    column,
    contents,
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


def test_a_copied_file_has_no_rights_but_those_to_read_and_write(path, tmp_path):
    """A program of another user must not become one of the user who makes the backup."""
    before = os.umask(0o022)
    try:
        for name, mode in (("a", 0o6755), ("b", 0o600), ("c", 0o1777), ("d", 0o444)):
            (path / name).write_text("program")
            (path / name).chmod(mode)
            os.utime(path / name, ns=(10**18 + 1, 10**18 + 2))
        with suppress(OSError):  # not every file system has attributes
            os.setxattr(path / "a", "user.from", b"elsewhere")
        with FaissIndex.open(path) as index:
            index.backup(tmp_path / "copy")
    finally:
        os.umask(before)
    for name, expected in (("a", 0o644), ("b", 0o600), ("c", 0o644), ("d", 0o644)):
        found = (tmp_path / "copy" / name).stat()
        assert (name, stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (name, expected, 10**18 + 2)
        assert os.listxattr(tmp_path / "copy" / name) == []


def test_every_file_that_is_not_of_the_index_is_in_the_backup(path, tmp_path):
    others = ["catalogue.sqlite.copy", "catalogue.newest", "lock.txt", "generation-photos"]
    for name in others:
        (path / name).write_text(name)
    for name in ("catalogue.new", "catalogue.new-journal"):
        (path / name).write_text(name)
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
    assert sorted(file.name for file in (tmp_path / "copy").iterdir()) == sorted(
        [*others, "catalogue.sqlite", "generation-0", "lock"]
    )


@pytest.mark.parametrize(
    "own", [None, "catalogue.newest", "generation-photos/a", "generation-7/a", "generation-0/ids/a"]
)
def test_an_index_is_created_where_one_was_interrupted_unless_there_are_other_files(tmp_path, config, own):
    path = tmp_path / "index"
    for name in ("generation-7/ids", "catalogue.new", "catalogue.new-journal", own or "lock"):
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        (path / name).write_text("mine" if name == own else "")
    if own is not None:
        before = contents(path)
        with pytest.raises(IndexExistsError, match=f"{own.split('/')[0]}' there belongs to no index: move it away"):
            FaissIndex.create(path, config)
        assert contents(path) == before
        delete_index(path)
        assert (path / own).read_text() == "mine"
        return
    FaissIndex.create(path, config).close()
    assert {file.name for file in path.iterdir()} == {"catalogue.sqlite", "generation-0", "lock"}
    delete_index(path)
    assert not path.exists()


@pytest.mark.parametrize("left", ["of the source", "of the s", "", "mine", None])
def test_an_interrupted_backup_is_repeated_and_files_of_the_user_stay(path, tmp_path, left, batch):
    (path / "notes.txt").write_text("of the source")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "catalogue.new").touch()
    if left is not None:
        (copy / "notes.txt").write_text(left)
    with FaissIndex.open(path) as index:
        if left == "mine":
            with pytest.raises(IndexExistsError, match=r"'notes\.txt' there belongs to no index"):
                index.backup(copy)
        else:
            index.backup(copy)
            assert_holds(copy, batch[:4])
    assert (copy / "notes.txt").read_text() == ("mine" if left == "mine" else "of the source")
