"""The files of a stored index, and its content when it is opened again."""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    FaissIndex,
    IndexConfig,
)
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.generation_folders import delete_tree
from tests.indexes.generate import assert_same, assert_same_records, classified
from tests.indexes.storage.stored_index import (
    COLUMNS,
    assert_holds,
    catalogue,
    column,
    contents,
    moved,
)


def test_an_index_is_opened_as_it_was(path, batch):
    assert_holds(path, batch[:4])
    assert_holds(path, batch[:4])


def test_an_empty_index_can_be_opened_and_filled(tmp_path, config, batch):
    FaissIndex.create(tmp_path / "index", config).close()
    with FaissIndex.open(tmp_path / "index") as index:
        assert len(index) == 0
        assert index.config == config
        index.add(batch)
    assert_holds(tmp_path / "index", batch)


def test_an_index_is_one_file_per_column_a_catalogue_and_a_lock(path, batch):
    assert sorted(contents(path)) == sorted([*(f"generation-0/{name}" for name in COLUMNS), CATALOGUE, "lock"])
    np.testing.assert_array_equal(np.fromfile(column(path, "ids"), "<i8"), batch.ids[:4])
    np.testing.assert_array_equal(np.fromfile(column(path, "codes"), np.uint8), batch.codes[:4].ravel())
    np.testing.assert_array_equal(np.fromfile(column(path, "probabilities"), "<f4"), batch.probabilities[:4].ravel())
    np.testing.assert_array_equal(np.fromfile(column(path, "features"), "<f4"), batch.features[:4].ravel())
    assert column(path, "uri_bytes").read_bytes() == b"a.jpg\0c.jpg\0d.jpg\0"
    assert np.fromfile(column(path, "uri_ends"), "<i8").tolist() == [6, 6, 12, 18]
    assert column(path, "removed").read_bytes() == b""


def test_batches_and_compacted_indexes_are_stored_in_order_of_cells(tmp_path, config):
    rng = np.random.default_rng(7)
    with FaissIndex.create(tmp_path / "index", config) as index:
        for first in (0, 300):
            index.add(classified(rng, config, 300, first_id=first))
        cells = index.snapshot.columns.cells
        assert (np.diff(cells[:300]) >= 0).all()
        assert (np.diff(cells[300:]) >= 0).all()
        assert (np.diff(cells) < 0).any()
        index.remove(np.arange(100, 150))
        held = index.get(index.ids())
        index.compact()
        snapshot = index.snapshot
        assert len(snapshot.columns) == 550
        assert (np.diff(snapshot.cells.numbers[snapshot.columns.cells]) >= 0).all()
        assert_same_records(index.get(index.ids()), held)


def test_the_catalogue_has_the_checksums_of_every_column(path):
    with catalogue(path) as db:
        found = dict(db.execute("SELECT name, crcs FROM checksums"))
    filled = [name for name in COLUMNS if name != "removed"]
    assert found == {name: zlib.crc32(column(path, name).read_bytes()).to_bytes(4, "little") for name in filled}


@pytest.mark.parametrize("name", ["a b", "50% of #1?", "ü\N{SNOWMAN}", "a'b\"c", "new/nested/directory", "-x"])
def test_a_path_may_be_any_name(tmp_path, config, batch, name):
    with FaissIndex.create(tmp_path / name, config) as index:
        index.add(batch)
    assert_holds(tmp_path / name, batch)


def test_paths_may_be_relative_and_strings(tmp_path, config, batch, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with FaissIndex.create("index", config) as index:
        index.add(batch)
        monkeypatch.chdir("/")
        index.add(moved(batch, 1000))
    with FaissIndex.open(str(tmp_path / "index")) as index:
        assert len(index) == 12


def test_a_copied_directory_is_an_index(path, tmp_path, batch):
    shutil.copytree(path, tmp_path / "copy")
    shutil.rmtree(path)
    assert_holds(tmp_path / "copy", batch[:4])


@pytest.mark.parametrize(
    "settings",
    [{"prior": (0.1, 1 / 3, 1e-6)}, {"similarity": [[1, 0.1, 0], [0.1, 1, 1 / 3], [0, 1 / 3, 50]]}, {"groups": 2}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_configuration_is_kept_exactly(tmp_path, batch, settings):
    config = IndexConfig(classes=3, bits=32, dim=4, **settings)
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(replace(batch, attributes=None))
        expected = index.search(batch, k=6, cutoff=0.0)
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.config == config
        assert_same(index.search(batch, k=6, cutoff=0.0), expected)


def test_a_relative_path_stays_where_it_was(path, tmp_path, config, batch, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    with FaissIndex.create(tmp_path / "elsewhere" / "index", config) as other:
        other.compact()
    monkeypatch.chdir(tmp_path)
    with FaissIndex.open("index") as index:
        monkeypatch.chdir(tmp_path / "elsewhere")
        index.add(batch[4:])
        index.compact()
    assert_holds(path, batch)
    assert_holds(tmp_path / "elsewhere" / "index", batch[:0])


def test_opening_reads_neither_features_nor_probabilities_nor_uris(path, monkeypatch):
    read = set()

    def spied(original):
        def spy(handle, *rest):
            read.add(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
            return original(handle, *rest)

        return spy

    for name in ("pread", "preadv"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    with FaissIndex.open(path):
        assert read == {"ids", "codes", "cells"}


def test_files_are_not_kept_open_by_changes(path, batch):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with FaissIndex.open(path) as index:
        index.add(batch[4:])
        before = open_files()
        for _ in range(5):
            index.remove([10])
            index.add(batch[:1])
            index.compact()
            index.search(batch, k=3)
        assert open_files() <= before


def test_ctrl_c_while_a_directory_is_deleted_stays_ctrl_c(tmp_path):
    """`shutil.rmtree` closes a directory twice if it is interrupted after the first time."""
    steps, interrupted = 0, 1
    while interrupted:
        (tmp_path / "folder" / "inner").mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "inner" / "file").touch()
        steps, interrupted, left = steps + 1, 0, steps

        def interrupt(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename != shutil.__file__:
                return None
            left -= event == "line"
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
            return interrupt

        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            delete_tree(tmp_path / "folder")
        except KeyboardInterrupt:
            interrupted = 1
        finally:
            sys.settrace(before)
    assert steps > 20
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("kind", ["fifo", "link to fifo", "link to directory", "file"])
def test_a_fifo_or_a_link_in_place_of_a_directory_is_deleted_without_waiting(tmp_path, kind):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    os.mkfifo(tmp_path / "fifo")
    folder = tmp_path / "generation-1"
    if kind == "fifo":
        os.mkfifo(folder)
    elif kind == "file":
        folder.touch()
    else:
        folder.symlink_to(tmp_path / ("fifo" if kind == "link to fifo" else "other"))
    delete_tree(folder)
    assert os.path.lexists(folder) == (kind == "file")
    assert (tmp_path / "other" / "precious").exists()
    assert (tmp_path / "fifo").exists()


def test_a_writer_deletes_generations_and_nothing_that_is_only_named_alike(path, batch):
    (path / "generation-6").mkdir()
    for name in ("generation-5/ids", "generation-7/a.jpg", "generation-photos/a.jpg", "generation-/a.jpg"):
        (path / name).parent.mkdir()
        (path / name).touch()
    (path / "generation-8").symlink_to(path / "generation-photos")
    with FaissIndex.open(path) as index:
        index.add(batch[4:])
    assert_holds(path, batch)
    assert {file.name[11:] for file in path.glob("generation*")} == {"", "0", "7", "8", "photos"}
    assert {file.name[11:] for file in path.glob("generation*") if list(file.glob("a.jpg"))} == {"", "7", "8", "photos"}
