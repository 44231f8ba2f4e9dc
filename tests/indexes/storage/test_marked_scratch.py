"""Two commands that replace one index do not delete each other's files, and no mark leads to a file elsewhere."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from semcut.indexes import FaissIndex, LockedError
from semcut.indexes.storage import marked_scratch
from semcut.indexes.storage.files_beside import REBUILDING
from semcut.indexes.storage.marked_scratch import Marks, created, is_left
from semcut.indexes.storage.restore import restore
from semcut.indexes.storage.writer_lock import WriterLock
from tests.indexes.storage.stored_index import assert_holds


@pytest.fixture
def backup(path, tmp_path) -> Path:
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    return tmp_path / "backup"


def refuse_another(backup: Path, path: Path) -> None:
    with pytest.raises(LockedError, match=r"index\.restoring is in use by another command"):
        restore(backup, path)


@pytest.mark.parametrize("present", [True, False])
def test_a_second_restore_ends_while_the_first_copies_or_deletes(path, backup, batch, present, monkeypatch):
    if not present:
        shutil.rmtree(path)
    delete, deleted = marked_scratch.delete_tree, []

    def slow(folder):
        deleted.append(folder)
        refuse_another(backup, path)
        delete(folder)

    monkeypatch.setattr(marked_scratch, "delete_tree", slow)
    assert restore(backup, path, lambda done, of: refuse_another(backup, path)) == 4
    assert bool(deleted) == present
    assert_holds(path, batch[:4])
    assert sorted(file.name for file in path.parent.iterdir()) == ["backup", "index"]
    assert not (path / REBUILDING).exists()


def test_a_directory_that_another_command_makes_or_deletes_is_not_deleted(tmp_path):
    scratch = tmp_path / "index.rebuilding"
    with created(scratch):
        with pytest.raises(LockedError, match="is in use by another command"), created(scratch):
            pass
        with pytest.raises(LockedError):
            is_left(scratch)
        scratch.rename(tmp_path / "index")
        scratch.mkdir()  # of another command, which has not marked it yet
    assert scratch.exists()
    scratch.rmdir()
    (tmp_path / "index" / "mine").touch()
    (tmp_path / "index").rename(scratch)
    assert is_left(scratch)
    with created(scratch):
        assert not (scratch / "mine").exists()
    assert not scratch.exists()


def _begin_in(folder: Path, theirs: Marks) -> None:
    """Do in a new directory what another command does next: mark it, and write an index."""
    theirs.mark(folder)
    (folder / "generation-0").mkdir()
    (folder / "generation-0" / "ids").write_bytes(b"theirs")


def _make(scratch: Path) -> None:
    with created(scratch):
        pass


@pytest.mark.parametrize("seen", ["empty", "begun"])
def test_a_directory_that_another_command_marks_while_it_is_looked_at_is_in_use(tmp_path, seen, monkeypatch):
    scratch, theirs, listdir = tmp_path / "index.restoring", Marks(), os.listdir
    scratch.mkdir()

    def meanwhile(folder):
        before = listdir(folder)
        if folder == scratch and not theirs.on(scratch):
            _begin_in(scratch, theirs)
        return before if seen == "empty" else listdir(folder)

    monkeypatch.setattr(os, "listdir", meanwhile)
    with pytest.raises(LockedError, match=r"index\.restoring is in use by another command"):
        _make(scratch) if seen == "empty" else is_left(scratch)
    assert theirs.on(scratch)
    assert (scratch / "generation-0" / "ids").read_bytes() == b"theirs"
    theirs.release()


def test_a_new_directory_whose_mark_another_command_has_locked_first_is_left_to_it(tmp_path, monkeypatch):
    scratch, lock, others = tmp_path / "index.restoring", marked_scratch._lock, []

    def late(descriptor, folder):
        others.append(os.open(folder / REBUILDING, os.O_RDWR))
        fcntl.flock(others[0], fcntl.LOCK_EX)
        (folder / "theirs").touch()
        lock(descriptor, folder)

    monkeypatch.setattr(marked_scratch, "_lock", late)
    with pytest.raises(LockedError), created(scratch):
        pass
    assert sorted(os.listdir(scratch)) == [REBUILDING, "theirs"]
    os.close(others[0])


def test_a_mark_of_another_command_is_kept(tmp_path):
    ours, theirs = Marks(), Marks()
    with ours.marked(tmp_path):
        os.unlink(tmp_path / REBUILDING)
        theirs.mark(tmp_path)
    assert theirs.on(tmp_path)
    theirs.release()
    ours.release()


@pytest.mark.parametrize("kind", ["file", "nothing", "fifo"])
def test_what_a_link_in_place_of_the_mark_leads_to_is_not_touched(path, backup, batch, tmp_path, kind):
    outside = tmp_path / "outside"
    if kind == "file":
        outside.write_text("mine")
        os.utime(outside, ns=(10**18, 10**18))
    if kind == "fifo":
        os.mkfifo(path / REBUILDING)
    else:
        (path / REBUILDING).symlink_to(outside)
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])
    assert not os.path.lexists(path / REBUILDING)
    assert outside.exists() == (kind == "file")
    assert kind != "file" or outside.stat().st_mtime_ns == 10**18


def test_the_lock_of_an_index_that_was_replaced_just_before_is_not_that_of_the_new_one(path, backup, monkeypatch):
    acquire = FileLock.acquire

    def late(lock, *arguments, **options):
        found = acquire(lock, *arguments, **options)
        path.rename(path.with_name("former"))
        backup.rename(path)
        return found

    monkeypatch.setattr(FileLock, "acquire", late)
    lock = WriterLock(path)
    with pytest.raises(LockedError, match="was replaced or deleted by another process just now: try again"):
        lock.acquire()
    assert not lock.held
