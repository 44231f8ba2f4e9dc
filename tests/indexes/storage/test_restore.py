"""An index is replaced by a backup in one step; readers go on reading, and copying files over an index kills nobody."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, IndexExistsError, LockedError, NotAnIndexError, StorageError
from semcut.indexes.storage import directory_exchange
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.restore import restore
from tests.indexes.storage.stored_index import assert_holds, column, contents, python


@pytest.fixture
def backup(path, tmp_path) -> Path:
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    return tmp_path / "backup"


@pytest.mark.parametrize("exchange", [True, False], ids=["by exchange", "by renames"])
def test_an_index_is_replaced_while_it_is_read(path, backup, batch, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(directory_exchange, "_exchange", lambda one, other: False)
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    before = contents(backup)
    with FaissIndex.open(path) as reader:
        assert restore(backup, path) == 4
        assert reader.search(batch, k=1, cutoff=0.0).ids.ravel().tolist() == batch.ids.tolist()
        with pytest.raises(StorageError, match="was replaced or deleted: open it again"):
            reader.add(batch[4:])
    assert_holds(path, batch[:4])
    assert contents(backup) == before
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert_holds(path, batch)
    assert sorted(file.name for file in path.parent.iterdir()) == ["backup", "index"]


def test_a_damaged_or_missing_index_is_replaced(path, backup, batch):
    (path / CATALOGUE).write_bytes(b"damage")
    shutil.rmtree(path / "generation-0")
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])
    shutil.rmtree(path)
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])


def test_what_cannot_be_restored_leaves_the_index_as_it_was(path, backup, batch, tmp_path):
    before = contents(path)
    with pytest.raises(NotAnIndexError):
        restore(tmp_path / "nothing", path)
    with FaissIndex.open(path) as writer:
        writer.flush()
        writer.remove([])
        writer.add(batch[4:])
        with pytest.raises(LockedError, match="is being written to by"):
            restore(backup, path)
        writer.remove(batch.ids[4:])
    assert len(contents(path)) == len(before)
    before = contents(path)
    os.truncate(column(backup, "features"), 10)
    with pytest.raises(DamagedIndexError):
        restore(backup, path)
    assert contents(path) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for target in (tmp_path / "photos", tmp_path / "photos" / "a.jpg"):
        with pytest.raises(IndexExistsError, match="is not the directory of an index"):
            restore(backup, target)
    (tmp_path / "photos" / "lock").touch()
    with pytest.raises(IndexExistsError, match=r"belongs neither to an index nor to the backup .* such as 'a\.jpg'"):
        restore(backup, tmp_path / "photos")
    (path / "notes").mkdir()
    with pytest.raises(IndexExistsError, match="such as 'notes': move it away"):
        restore(backup, path)
    (path / "notes").rmdir()
    assert (tmp_path / "photos" / "a.jpg").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup", "index", "photos"]


def test_files_that_are_also_in_the_backup_are_replaced_and_a_sparse_file_is_not_copied(path, backup, tmp_path):
    for place, text in ((path, "old"), (backup, "new")):
        (place / "connector.json").write_text(text)
    (path / "unfinished.json").write_text("{}")
    restore(backup, path)
    assert (path / "connector.json").read_text() == "new"
    assert not (path / "unfinished.json").exists()
    os.truncate(backup / "connector.json", 1 << 34)
    with pytest.raises(StorageError, match="is a sparse file of 17,179,869,184 bytes: move it away"):
        restore(backup, path)


def listed(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


@pytest.mark.parametrize(
    ("own", "in_backup"),
    [
        ("photos/a.jpg", "photos"),
        ("notes.txt/a.jpg", "link to file"),
        ("notes.txt", "link to file"),
        ("link to file", "link to file"),
        ("fifo", "fifo"),
        ("generation-photos/a.jpg", None),
        ("generation-/a.jpg", None),
        ("generation-1", None),
        ("generation-1.copy", None),
        ("generation-photos/a.jpg", "generation-photos"),
        ("catalogue.sqlite.my-own-backup", None),
        ("catalogue.sqlite-copy", None),
        ("catalogue.newest", None),
        ("catalogue.new/a.jpg", None),
        ("unfinished.json/a.jpg", None),
        ("lock.txt", None),
    ],
)
def test_files_of_the_user_stay_whatever_the_backup_has(path, backup, tmp_path, own, in_backup):
    (tmp_path / "precious").write_text("precious")
    for place, name in ((path, own), (backup, in_backup)):
        file = place / (name or "nothing")
        file.parent.mkdir(exist_ok=True)
        if name == "fifo":
            os.mkfifo(file)
        elif name == "link to file":
            file = file if place == path else place / own.split("/")[0]
            file.symlink_to(tmp_path / "precious")
        elif name is not None:
            file.write_text("mine")
    before, files = listed(tmp_path), contents(path)
    with pytest.raises(IndexExistsError, match=r"belongs neither to an index nor to the backup.*: move it away"):
        restore(backup, path)
    assert (listed(tmp_path), contents(path)) == (before, files)


def test_a_file_of_the_user_that_appears_during_the_copy_stays(path, backup):
    files = contents(path)
    with pytest.raises(IndexExistsError, match=r"such as 'a\.jpg': move it away"):
        restore(backup, path, lambda done, total: (path / "a.jpg").write_text("mine"))
    assert {**contents(path), "lock": files["lock"]} == {**files, "a.jpg": b"mine"}
    assert not path.with_name("index.restoring").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "fifo"])
@pytest.mark.parametrize("present", [True, False])
def test_what_has_the_name_of_the_copy_stays_unless_an_interrupted_restore_left_it(path, backup, kind, present):
    if not present:
        shutil.rmtree(path)
    copy = path.with_name("index.restoring")
    other = path.with_name("other")
    other.mkdir()
    (other / "lock").touch()
    if kind == "directory":
        copy.mkdir()
        (copy / "lock").touch()
        (copy / "mine").write_text("mine")
    elif kind == "file":
        copy.write_text("mine")
    elif kind == "link":
        copy.symlink_to(other)
    else:
        os.mkfifo(copy)
    before = listed(path.parent)
    with pytest.raises(IndexExistsError, match=r"index\.restoring is not what an interrupted .* leaves: move it away"):
        restore(backup, path)
    assert listed(path.parent) == before


@pytest.mark.parametrize("present", [True, False])
def test_an_index_of_the_user_with_the_name_of_the_copy_stays_and_a_marked_one_is_replaced(
    path, backup, batch, present
):
    mine = Path(shutil.copytree(path, path.with_name("index.restoring")))
    mode = stat.S_IMODE((path if present else backup).stat().st_mode)
    if not present:
        shutil.rmtree(path)
    before = contents(mine)
    with pytest.raises(IndexExistsError, match=r"index\.restoring is not what an interrupted .* leaves: move it away"):
        restore(backup, path)
    assert contents(mine) == before
    (mine / "semcut.rebuilding").touch()
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])
    assert not mine.exists()
    assert not (path / "semcut.rebuilding").exists()
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_copy_that_an_interrupted_restore_left_is_no_backup_before_it_is_renamed(path, backup, batch):
    copy = backup.rename(path.with_name("index.restoring"))
    files = contents(path.parent)
    with pytest.raises(StorageError, match=r"index\.restoring itself or inside of it, which is deleted"):
        restore(copy, path)
    assert contents(path.parent) == files
    assert restore(copy.rename(path.with_name("backup")), path) == 4
    assert_holds(path, batch[:4])


def test_an_index_with_links_and_a_foreign_log_is_replaced(path, backup, batch, tmp_path):
    """Other errors say that such an index is to be restored from a backup."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    (path / "catalogue.sqlite-wal").touch()
    (path / "catalogue.sqlite").unlink()
    (path / "catalogue.sqlite").symlink_to(tmp_path / "other" / "precious")
    (path / "generation-1").symlink_to(tmp_path / "other")
    os.mkfifo(path / "generation-2")
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])
    assert (tmp_path / "other" / "precious").exists()


@pytest.mark.parametrize("call", ["rename", "fsync", "unlink"])
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_a_crash_leaves_one_of_the_two(path, backup, batch, call, number):
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    python(
        """
        from pathlib import Path
        from semcut.indexes.storage.restore import restore
        original, calls = getattr(os, sys.argv[3]), []

        def killed_at(*arguments, **named):
            calls.append(arguments)
            if len(calls) == int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **named)

        setattr(os, sys.argv[3], killed_at)
        restore(Path(sys.argv[1]), Path(sys.argv[2]))
        """,
        backup,
        path,
        call,
        number,
    )
    with FaissIndex.open(path) as index:
        records = len(index)
    assert records in (4, 6)
    assert_holds(path, batch[:records])
    assert restore(backup, path) == 4
    assert_holds(path, batch[:4])
    assert sorted(file.name for file in path.parent.iterdir()) == ["backup", "index"]


@pytest.mark.parametrize("name", ["ids", "probabilities", "features", "uri_ends", "uri_bytes"])
@pytest.mark.parametrize("engine", ["auto", "faiss"])
def test_a_column_that_is_cut_while_it_is_open_is_an_error(path, name, engine):
    done = python(
        """
        index = FaissIndex.open(sys.argv[1], engine=sys.argv[3])
        index.search(batch, k=1)
        ids = index.ids().tolist()
        os.truncate(sys.argv[2], 0)
        for call in ("search(batch, k=1)", "ids()", "get(ids)", "uris(ids)", "next_id()", "members(0)", "verify()"):
            try:
                print(eval(f"index.{call}"))
            except DamagedIndexError as error:
                print(error)
        """,
        path,
        column(path, name),
        engine,
    )
    assert done.returncode == 0, done.stderr
    assert f"{name} has 0 bytes, expected" in done.stdout


def test_files_of_a_backup_that_are_copied_over_an_open_index_kill_nobody(path, backup, batch, tmp_path):
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
        index.remove(batch.ids[:1])
    with FaissIndex.open(path) as reader:
        reader.search(batch, k=1)
        shutil.copytree(backup, path, dirs_exist_ok=True)
        assert reader.refresh()
        assert reader.search(batch[:4], k=1).ids.ravel().tolist() == batch.ids[:4].tolist()
        assert len(reader) == 4
    assert_holds(path, batch[:4])


@pytest.mark.parametrize("place", ["index", "index/generation-9", "index.restoring/generation-1"])
def test_a_backup_inside_of_what_is_deleted_is_refused(path, tmp_path, place):
    backup = tmp_path / place
    if backup != path:
        with FaissIndex.open(path) as index:
            index.backup(tmp_path / "made")
        backup.parent.mkdir(exist_ok=True)
        (tmp_path / "made").rename(backup)
    before = contents(tmp_path)
    reason = r"itself or inside of it, which is deleted: move the backup|belongs neither to an index nor to the backup"
    with pytest.raises(StorageError, match=reason):
        restore(backup, path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["connector.json", "files.jsonl", "unfinished.json", "notes.txt"])
def test_a_scratch_file_of_a_command_that_was_killed_is_replaced_with_the_index(path, backup, name):
    (path / f"{name}.0123456789abcdef.new").write_text("")
    if name == "notes.txt":
        with pytest.raises(IndexExistsError, match="belongs neither"):
            restore(backup, path)
    else:
        assert restore(backup, path) == 4
