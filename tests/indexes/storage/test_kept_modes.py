"""What copies or replaces an index or a file is as private as the original."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from semcut.indexes import FaissIndex
from semcut.indexes.storage.atomic_write import replacing, write_file
from semcut.indexes.storage.restore import restore
from tests.indexes.storage.stored_index import assert_holds


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def give(path: Path, folders: int, files: int) -> None:
    for file in [path, *path.rglob("*")]:
        file.chmod(folders if file.is_dir() else files)


def found(path: Path) -> set[tuple[bool, int]]:
    """The modes of all folders and files, without the lock, which has nothing of the index."""
    return {(file.is_dir(), mode(file)) for file in [path, *path.rglob("*")] if file.name != "lock"}


MODES = [(0o700, 0o600), (0o770, 0o660), (0o755, 0o644), (0o500, 0o400)]


@pytest.mark.parametrize(("folders", "files"), MODES)
def test_backup_and_compact_keep_the_modes(path, tmp_path, batch, folders, files):
    (path / "connector.json").write_text("{}")
    give(path, folders | 0o200, files | 0o200)
    with FaissIndex.open(path) as index:
        index.compact()
        assert found(path) == {(True, folders | 0o200), (False, files | 0o200)}
        index.backup(tmp_path / "copy")
    assert found(tmp_path / "copy") - {(False, files & ~0o022 | 0o200)} <= found(path)
    assert mode(tmp_path / "copy") == folders | 0o200
    assert mode(tmp_path / "copy" / "catalogue.sqlite") == files | 0o200
    assert_holds(tmp_path / "copy", batch[:4])


def test_a_backup_into_an_empty_directory_does_not_widen_it(path, tmp_path):
    path.chmod(0o750)
    for name, own in (("wide", 0o755), ("private", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(own)
        with FaissIndex.open(path) as index:
            index.backup(tmp_path / name)
    assert (mode(tmp_path / "wide"), mode(tmp_path / "private")) == (0o750, 0o700)


@pytest.mark.parametrize(("folders", "files"), MODES[:3])
@pytest.mark.parametrize("damaged", [False, True])
def test_restore_keeps_the_modes_of_what_it_replaces(path, tmp_path, batch, folders, files, damaged):
    (path / "connector.json").write_text("{}")
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    give(path, folders, files)
    if damaged:
        (path / "generation-0" / "ids").write_bytes(b"")
    restore(tmp_path / "backup", path)
    assert found(path) == {(True, folders), (False, files)}
    assert_holds(path, batch[:4])
    give(tmp_path / "backup", 0o700, 0o600)
    restore(tmp_path / "backup", tmp_path / "new")
    assert found(tmp_path / "new") == {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("own", [0o600, 0o640, 0o444, 0o777])
def test_a_file_that_is_replaced_keeps_its_mode_and_is_never_wider(tmp_path, own):
    file = tmp_path / "file"
    file.write_text("previous")
    file.chmod(own)
    with replacing(file) as scratch:
        scratch.write_text("new")
        assert mode(scratch) & ~own & 0o077 == 0
    assert (file.read_text(), mode(file)) == ("new", own)
    write_file(file, "")
    assert (file.read_text(), mode(file)) == ("", own)
    write_file(tmp_path / "first", "new")
    assert mode(tmp_path / "first") == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("allowed", [True, False])
def test_the_rights_of_a_group_are_those_of_the_same_group(path, tmp_path, batch, monkeypatch, allowed):
    (path / "connector.json").write_text("{}")
    give(path, 0o2770, 0o660)
    for file in [path, *path.rglob("*")]:
        os.chown(file, 1234, 4321)
        file.chmod(0o2770 if file.is_dir() else 0o660)
    if not allowed:

        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "chown", refuse)
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "copy")
        index.compact()
    write_file(path / "connector.json", "[]")
    restore(tmp_path / "copy", path)
    for place, user in ((tmp_path / "copy", 0), (path, 1234)):
        for file in (place, *place.rglob("*")):
            state = file.stat()
            if file.name == "lock":
                continue
            if allowed:
                assert (state.st_uid, state.st_gid, state.st_mode & 0o070 >= 0o040) == (user, 4321, True), file
            else:
                assert (state.st_gid, state.st_mode & 0o070) == (0, 0), file
    assert_holds(path, batch[:4])
