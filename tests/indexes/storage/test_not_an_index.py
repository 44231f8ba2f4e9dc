"""An index is created only in a new or empty directory, and only an index is opened; otherwise the error is clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    FaissIndex,
    FormatVersionError,
    IndexExistsError,
    NotAnIndexError,
    StorageError,
)
from semcut.indexes.storage.directory import CATALOGUE
from tests.indexes.storage.stored_index import (
    assert_holds,
    catalogue,
    contents,
)


def test_an_index_is_not_created_over_anything(path, tmp_path, config, batch):
    before = contents(path)
    with pytest.raises(IndexExistsError, match=r"index exists already .*open the index there, or choose another path"):
        FaissIndex.create(path, config)
    assert contents(path) == before
    (tmp_path / "file").write_text("text")
    with pytest.raises(IndexExistsError, match="file exists already"):
        FaissIndex.create(tmp_path / "file", config)
    assert (tmp_path / "file").read_text() == "text"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(IndexExistsError, match="photos exists already"):
        FaissIndex.create(tmp_path / "photos", config)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


def test_an_index_is_created_in_an_empty_directory(tmp_path, config, batch):
    (tmp_path / "index").mkdir()
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
    assert_holds(tmp_path / "index", batch)


def test_an_index_cannot_be_created_below_a_file(tmp_path, config):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        FaissIndex.create(tmp_path / "file" / "index", config)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_an_impossible_path_is_refused(tmp_path, config, name):
    with pytest.raises(StorageError, match=r"cannot be accessed|is not a directory"):
        FaissIndex.open(tmp_path / name)
    with pytest.raises(StorageError, match="cannot create the directory"):
        FaissIndex.create(tmp_path / name, config)


def test_an_index_that_lost_its_catalogue_is_neither_opened_nor_overwritten(path, config):
    (path / CATALOGUE).unlink()
    before = contents(path)
    with pytest.raises(NotAnIndexError, match=r"has no catalogue.sqlite; if it was one, restore it from a backup"):
        FaissIndex.open(path)
    with pytest.raises(IndexExistsError):
        FaissIndex.create(path, config)
    assert contents(path) == before


def test_an_index_whose_creation_was_interrupted_is_reported_and_can_be_created_again(path, config, batch):
    (path / CATALOGUE).rename(path / "catalogue.new")
    with pytest.raises(NotAnIndexError, match="whose creation was interrupted: create it there again"):
        FaissIndex.open(path)
    with FaissIndex.create(path, config) as index:
        index.add(batch)
    assert_holds(path, batch)


def missing(path: Path) -> None:
    pass


def plain_file(path: Path) -> None:
    path.write_text("text")


def empty_directory(path: Path) -> None:
    path.mkdir()


def catalogue_of(data: bytes):
    def write(path: Path) -> None:
        path.mkdir()
        (path / CATALOGUE).write_bytes(data)

    return write


def another_database(path: Path) -> None:
    path.mkdir()
    with catalogue(path) as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('format', '1')")


def catalogue_is_a_directory(path: Path) -> None:
    (path / CATALOGUE).mkdir(parents=True)


@pytest.mark.parametrize(
    "make",
    [
        missing,
        plain_file,
        empty_directory,
        catalogue_of(b""),
        catalogue_of(b"garbage"),
        catalogue_of(np.random.default_rng(0).bytes(10_000)),
        catalogue_of(b"SQLite format 3\0" + bytes(1000)),
        another_database,
        catalogue_is_a_directory,
    ],
    ids=["missing", "file", "empty", "no bytes", "text", "noise", "header only", "other database", "directory"],
)
def test_what_is_not_an_index_is_not_opened(tmp_path, make):
    make(tmp_path / "index")
    with pytest.raises(NotAnIndexError, match="index"):
        FaissIndex.open(tmp_path / "index")
    assert (tmp_path / "index").exists() == (make is not missing)


@pytest.mark.parametrize("version", ["0", "2", "7", "3.0", ""])
def test_another_format_version_is_not_opened(path, version):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (version,))
    with pytest.raises(FormatVersionError, match=rf"version {version} but .* reads the versions 3, 4, 5 and 6: open"):
        FaissIndex.open(path)
