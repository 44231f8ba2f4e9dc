"""An index gets more classes in one step, with the same records; a kill at any moment leaves one whole index."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import Encodings, FaissIndex, IndexConfig, IndexExistsError, InvalidParameterError, StorageError
from semcut.indexes.storage import directory_exchange, loaded_index
from semcut.indexes.storage.files_beside import REBUILDING
from semcut.indexes.storage.rebuilding import config_with_classes, rebuilt, write_with_more_classes
from semcut.indexes.storage.store import Store
from tests.indexes.generate import classified
from tests.indexes.storage.stored_index import ROOT, assert_holds, contents

DENSE = IndexConfig(classes=7, bits=64, dim=8)
PACKED = IndexConfig(classes=30, bits=64, dim=8, stored_probabilities=5, stored_features="int8")


def grow(path: Path, classes: int) -> None:
    store = Store.open(path)
    try:
        store.begin()
        with rebuilt(path) as scratch:
            config = config_with_classes(store.config, classes)
            write_with_more_classes(store.snapshot, path, scratch, config)
    finally:
        store.close()


def with_zeros(records: Encodings, classes: int) -> Encodings:
    wide = np.pad(records.probabilities, ((0, 0), (0, classes - records.probabilities.shape[1])))
    return Encodings(
        probabilities=wide, codes=records.codes, features=records.features, ids=records.ids, uris=records.uris,
        any_mass=True,
    )  # fmt: skip


@pytest.mark.parametrize("config", [DENSE, PACKED], ids=["dense", "packed"])
@pytest.mark.parametrize("exchange", [True, False], ids=["by exchange", "by renames"])
def test_an_index_gets_more_classes_and_keeps_every_record(config, exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(directory_exchange, "_exchange", lambda one, other: False)
    path, rng = tmp_path / "index", np.random.default_rng(0)
    written = classified(rng, config, 500)
    with FaissIndex.create(path, config) as index:
        index.add(replace(written, uris=[f"é{row}" if row % 3 else None for row in range(500)]))
        index.remove(written.ids[:40])
        stored, version = index.get(index.ids()), index.version
    (path / "connector.json").write_text("{}")
    (path / "notes.txt").write_text("mine")
    os.chmod(path, 0o750)
    with FaissIndex.open(path) as reader:
        grow(path, config.classes + 12)
        assert reader.search(stored, k=1, cutoff=0.0, shortlist=None).ids.ravel().tolist() == stored.ids.tolist()
        with pytest.raises(StorageError, match="was replaced or deleted: open it again"):
            reader.remove(stored.ids)
    with FaissIndex.open(path) as index:
        assert index.version == version + 1
        assert index.verify() == []
        assert index.uris(stored.ids) == stored.uris
        assert index.config == config_with_classes(config, config.classes + 12)
        assert index.stats().removed == 0
    assert_holds(path, with_zeros(stored, config.classes + 12))
    with FaissIndex.open(path) as index:  # a record of the last new class
        more = classified(rng, index.config, 300)
        index.add(replace(more, ids=more.ids + 10_000))
        assert index.verify() == []
        assert index.stats().partitions[-1] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index"]
    assert (path / "connector.json").read_text() == "{}"
    assert (path / "notes.txt").read_text() == "mine"
    assert path.stat().st_mode & 0o777 == 0o750


def test_the_configuration_stays_but_for_the_classes():
    assert config_with_classes(DENSE, 12) == IndexConfig(classes=12, bits=64, dim=8)
    assert config_with_classes(DENSE, 40).stored_probabilities == 40  # packed values would be rounded
    grown = config_with_classes(PACKED, 300)
    assert grown == IndexConfig(classes=300, bits=64, dim=8, stored_probabilities=5, stored_features="int8")
    own = IndexConfig(classes=30, bits=64, dim=8, groups=3)
    assert config_with_classes(own, 300).groups == 3
    weighted = IndexConfig(classes=2, bits=64, dim=8, prior=(0.5, 0.5))
    assert config_with_classes(weighted, 2) == weighted
    with pytest.raises(InvalidParameterError, match="a prior or a similarity"):
        config_with_classes(weighted, 3)


def build(path: Path, interfere: Callable[[], object]) -> None:
    with rebuilt(path):
        interfere()


def test_nothing_of_the_user_is_deleted(path, tmp_path):
    before = contents(path)
    for name in ("photos", "link"):
        mine = path / name
        mine.mkdir() if name == "photos" else mine.symlink_to(tmp_path)
        with pytest.raises(IndexExistsError, match=rf"would be deleted, such as '{name}': move it away"):
            grow(path, 9)
        mine.rmdir() if name == "photos" else mine.unlink()
    scratch = tmp_path / "index.rebuilding"
    scratch.mkdir()
    (scratch / "photo.jpg").touch()
    with pytest.raises(IndexExistsError, match="is not what an interrupted command leaves"):
        grow(path, 9)
    assert (scratch / "photo.jpg").exists()
    (scratch / REBUILDING).touch()
    with pytest.raises(IndexExistsError, match="is not what an interrupted command leaves"):
        grow(path, 9)
    (scratch / "photo.jpg").rename(tmp_path / "photo.jpg")
    with pytest.raises(ZeroDivisionError):
        build(path, lambda: 1 / 0)
    with pytest.raises(IndexExistsError, match="which came meanwhile"):
        build(path, (path / "late").mkdir)
    (path / "late").rmdir()
    assert {**contents(path), "lock": before["lock"]} == before  # names the last writer
    assert not scratch.exists()


@pytest.mark.parametrize("mark", ["none", "link", "directory"])
def test_an_index_of_the_user_with_the_name_of_a_rebuilding_is_kept(path, tmp_path, mark):
    mine = Path(shutil.copytree(path, tmp_path / "index.rebuilding"))
    if mark != "none":
        (mine / REBUILDING).mkdir() if mark == "directory" else (mine / REBUILDING).symlink_to(
            path / "catalogue.sqlite"
        )
    before = contents(mine)
    with pytest.raises(IndexExistsError, match="is not what an interrupted command leaves: move it away"):
        grow(path, 9)
    assert contents(mine) == before
    shutil.rmtree(mine)
    with pytest.raises(StorageError), patched_mkdir(lambda: shutil.copytree(path, mine)):
        grow(path, 9)
    assert (mine / "catalogue.sqlite").exists()


@contextmanager
def patched_mkdir(before: Callable[[], object]) -> Iterator[None]:
    """Let something happen right before a directory for a new index is created."""
    original = os.mkdir

    def late(*arguments, **options):
        os.mkdir = original
        before()
        return original(*arguments, **options)

    os.mkdir = late
    try:
        yield
    finally:
        os.mkdir = original


def test_a_mark_that_a_crash_left_is_neither_copied_nor_kept(path, tmp_path):
    (path / REBUILDING).touch()
    with FaissIndex.open(path) as index:
        index.backup(tmp_path / "backup")
    assert not (tmp_path / "backup" / REBUILDING).exists()
    with pytest.raises(ZeroDivisionError):
        build(path, lambda: 1 / 0)
    assert not (path / REBUILDING).exists()


def test_a_reader_that_opens_the_index_while_it_is_replaced_gets_one_of_the_two(path, batch, monkeypatch):
    opened = loaded_index.open_columns
    calls = []

    def replaced_before(*arguments):
        calls.append(arguments)
        if len(calls) == 1:  # the former catalogue was read
            monkeypatch.setattr(loaded_index, "open_columns", opened)
            grow(path, 9)
            monkeypatch.setattr(loaded_index, "open_columns", replaced_before)
        return opened(*arguments)

    monkeypatch.setattr(loaded_index, "open_columns", replaced_before)
    with FaissIndex.open(path) as index:
        assert index.config.classes == 9
        assert index.in_place
        assert index.verify() == []
    assert len(calls) == 2


def test_a_file_that_comes_meanwhile_is_kept(path):
    store = Store.open(path)
    store.begin()
    with rebuilt(path) as scratch:
        write_with_more_classes(store.snapshot, path, scratch, config_with_classes(store.config, 9))
        (path / "late.txt").write_text("mine")
    store.close()
    assert (path / "late.txt").read_text() == "mine"
    with FaissIndex.open(path) as index:
        assert index.config.classes == 9


KILLS = """
import json, os, shutil, signal, sys
from contextlib import suppress
from pathlib import Path
from semcut.indexes import SemcutError
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.verify import verify
from tests.indexes.storage.fault_injection import Faults
from tests.indexes.storage.faults import BASE, CONFIG, content, new_copy
from tests.indexes.storage.test_rebuilding import grow
from tests.thorough import THOROUGH

folder = Path(sys.argv[1])
store = Store.create(folder / "base", CONFIG)
store.write(BASE)
whole = content(store)
store.close()
kinds, calls = [], 0
for mode in ("kill", "error", "late", "stop"):
    at = 0
    while True:
        at += (1 if THOROUGH else 2) if mode == "kill" else 11
        path = new_copy(folder / "base", folder / "work")
        if mode == "kill":
            child = os.fork()
            if not child:
                with suppress(BaseException), Faults(at, mode):
                    grow(path, 9)
                os._exit(0)
            reached = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        else:
            with Faults(at, mode) as faults, suppress(SemcutError, KeyboardInterrupt):
                grow(path, 9)
            reached = faults.count >= at
        store = Store.open(path)
        kinds.append(store.config.classes)
        assert store.config.classes == 9 or reached, (mode, at)
        assert store.config.classes in (7, 9), (mode, at)
        assert verify(store, store.snapshot) == [], (mode, at)
        rows = store.snapshot.live
        assert set(store.snapshot.columns.ids[rows].tolist()) == set(whole), (mode, at)
        if store.config.classes == 7:
            assert content(store) == whole, (mode, at)
        store.close()
        grow(path, 11)
        store = Store.open(path)
        assert store.config.classes == 11, (mode, at)
        store.close()
        assert [file.name for file in path.parent.iterdir()] == ["index"], (mode, at)
        assert not (path / "semcut.rebuilding").exists(), (mode, at)
        calls = max(calls, at)
        if not reached:
            break
print(json.dumps([calls, sorted(set(kinds))]))
"""


def test_a_process_killed_at_any_call_leaves_the_previous_or_the_new_index(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLS, tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    calls, kinds = json.loads(done.stdout)
    assert calls > 40
    assert kinds == [7, 9]
