"""An index is replaced by a backup in one step; readers go on reading, and copying files over an index kills nobody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, IndexExistsError, LockedError, NotAnIndexError, StorageError
from semcut.indexes.storage import restore as restoring
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
        monkeypatch.setattr(restoring, "_exchange", lambda one, other: False)
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    before = contents(backup)
    with FaissIndex.open(path) as reader:
        assert restore(backup, path) == 4
        assert reader.search(batch, k=1, cutoff=0.0).ids.ravel().tolist() == batch.ids.tolist()
        with pytest.raises(StorageError, match="was replaced: open it again"):
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
