"""A backup is complete or is not an index, and it copies the other files in the directory of the index."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress

import pytest

from semcut.indexes import (
    DamagedIndexError,
    FaissIndex,
    IndexExistsError,
    StorageError,
)
from semcut.indexes.storage import backup as backup_module
from semcut.indexes.storage import files_beside
from semcut.indexes.storage.directory import FACTS, MARK, delete_index
from semcut.indexes.unfinished import adding, is_marked
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


def test_a_backup_has_no_lines_of_files_of_a_later_version(path, tmp_path):
    """They would become true in the backup with its next changes."""
    with FaissIndex.open(path) as index:
        version = index.version
        lines = [b'[%d,1,"a"]\n' % number for number in (0, version, version + 1, 10**18)]
        long = b'[0,"' + b"x" * (1 << 17) + b'[0,2,"b"]\n'
        (path / FACTS).write_bytes(b"".join(lines) + b"junk\n\n[x,\n" + long + lines[0] + b'[0,1,"torn"]')
        index.backup(tmp_path / "copy")
    assert (tmp_path / "copy" / FACTS).read_bytes() == lines[0] + lines[1] + lines[0]


@pytest.mark.parametrize("opened", ["before", "while"])
def test_a_backup_of_records_that_are_being_added_is_marked(path, tmp_path, batch, opened, monkeypatch):
    """Also if the command that adds them has ended when the other files are copied."""
    copy_columns = backup_module._copy_columns
    with FaissIndex.open(path, engine="faiss") as writer, adding(path, 5, len(writer)):
        writer.remove(writer.ids()[:1])
        with pytest.warns(Warning, match="unfinished"):
            reader = FaissIndex.open(path, engine="faiss")
        if opened == "before":
            reader.close()
            reader = writer
        content = (path / MARK).read_bytes()

        def slow(*arguments):
            (path / MARK).unlink()
            return copy_columns(*arguments)

        if opened == "while":  # the command ends after the reader has opened the index, and before the backup begins
            writer.remove(writer.ids()[:1])
            (path / MARK).unlink()
        else:
            monkeypatch.setattr(backup_module, "_copy_columns", slow)
        reader.backup(tmp_path / "copy")
        reader.close()
    assert (tmp_path / "copy" / MARK).read_bytes() == content
    assert not is_marked(path)


def test_a_backup_of_a_whole_index_is_not_marked(path, tmp_path):
    with FaissIndex.open(path) as index:
        with adding(path, 1, len(index)):
            pass
        index.backup(tmp_path / "copy")
    assert not is_marked(tmp_path / "copy")


def test_scratch_files_and_files_that_vanish_are_not_copied(path, tmp_path, monkeypatch):
    for name in (f"{MARK}.0123456789abcdef.new", f"notes.{'a' * 16}.new", "gone.txt", "stays.txt"):
        (path / name).write_text("{}")
    copy_file = files_beside.copy_file

    def slow(source, target):
        (path / "gone.txt").unlink(missing_ok=True)
        copy_file(source, target)

    monkeypatch.setattr(files_beside, "copy_file", slow)
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
    names = {file.name for file in (tmp_path / "copy").iterdir()}
    assert names == {"stays.txt", "catalogue.sqlite", "generation-0", "lock"}


@pytest.mark.parametrize("when", ["before", "during"])
def test_no_backup_has_records_of_one_index_and_files_of_another(path, tmp_path, when):
    (path / "connector.json").write_text("{}")
    shutil.copytree(path, tmp_path / "later")
    (tmp_path / "later" / "connector.json").write_text('{"model": "/later"}')

    def replace_it(*numbers: int) -> None:
        path.rename(tmp_path / "former")
        (tmp_path / "later").rename(path)

    with FaissIndex.open(path) as index:
        if when == "before":
            replace_it()
        with pytest.raises(StorageError, match="is not the index that was opened here, it was replaced or deleted"):
            index.backup(tmp_path / "copy", replace_it)
    assert not (tmp_path / "copy").exists() or [file.name for file in (tmp_path / "copy").iterdir()] == ["lock"]
