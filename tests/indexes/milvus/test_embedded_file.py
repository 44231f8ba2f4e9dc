"""An embedded Milvus is a directory that milvus-lite trusts: nothing in it leads milvus-lite to files outside."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from semcut.indexes import DamagedIndexError, IndexConfig, MissingDependencyError
from semcut.indexes.milvus import MilvusIndex, embedded_file
from tests.command import semcut
from tests.indexes.milvus.error_checks import refused, ways_to_connect

pytestmark = pytest.mark.usefixtures("nothing_printed")

CONFIG = IndexConfig(classes=3, bits=32, dim=4)
STRANGE = {
    "a symbolic link": lambda place, outside: place.symlink_to(outside),
    "a FIFO": lambda place, outside: os.mkfifo(place),
    "a socket": lambda place, outside: bind(place),
}
PLACES = ["LOCK", "new", ".database-staging", "collections/semcut/wal/new", "collections/semcut/partitions/new/data"]


def bind(place: Path) -> None:
    """Make a socket, by a name that is short enough for one."""
    here = os.open(place.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{place.name}")
    finally:
        os.close(here)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    """An embedded Milvus that is closed, with an index of the usual name."""
    path = tmp_path_factory.mktemp("embedded") / "milvus.db"
    MilvusIndex.create(path, CONFIG).close()
    return path


@pytest.fixture
def copy(embedded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(embedded, tmp_path / "copy.db")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the user, with a file in it and a file in a directory in it."""
    (tmp_path / "outside" / "folder").mkdir(parents=True)
    for name in ("thesis.txt", "folder/key"):
        (tmp_path / "outside" / name).write_text(name)
    return tmp_path / "outside"


def content_of(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def put(path: Path, place: str, outside: Path, make: Callable[[Path, Path], None]) -> None:
    target = path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)
    make(target, outside)


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("place", PLACES)
def test_anything_but_files_and_directories_is_refused(place, kind, copy, outside, tmp_path):
    put(copy, place, outside, STRANGE[kind])
    before = content_of(tmp_path)
    for connect in ways_to_connect(copy):
        with refused(DamagedIndexError, f"holds {kind} at '{place}', expected .*exchange indexes as dir", str(copy)):
            connect()
    assert content_of(tmp_path) == before


def test_links_to_files_and_to_nothing_are_refused(copy, outside):
    for target in (outside / "thesis.txt", outside / "nothing", Path("..")):
        put(copy, "collections/semcut/new", target, STRANGE["a symbolic link"])
        with refused(DamagedIndexError, "holds a symbolic link"):
            MilvusIndex.open(copy)
    assert len(content_of(outside)) == 2


def test_commands_refuse_it_as_well(copy, outside, tmp_path):
    put(copy, PLACES[-1], outside, STRANGE["a symbolic link"])
    for command in (["migrate", "back", "semcut", "--reverse", "--dry-run"], ["explore", "semcut", "--no-browser"]):
        done = semcut(*command, "--uri", "copy.db", cwd=tmp_path, status=1)
        assert "holds a symbolic link" in done.stderr
    assert len(content_of(outside)) == 2


def test_a_fifo_in_its_place_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.db")
    with refused(DamagedIndexError, "the embedded Milvus is a FIFO"):
        MilvusIndex.open(tmp_path / "fifo.db")


def test_too_many_entries_are_refused(copy, monkeypatch):
    monkeypatch.setattr(embedded_file, "_MOST_ENTRIES", 10)
    with refused(DamagedIndexError, "more than 10 files"):
        MilvusIndex.open(copy)


def test_the_user_may_name_it_by_a_link_and_open_it_again(copy, tmp_path):
    (tmp_path / "link.db").symlink_to(copy)
    for path in (tmp_path / "link.db", copy):
        with MilvusIndex.open(path) as first, MilvusIndex.open(path) as second:
            assert len(first) == len(second) == 0


@pytest.mark.parametrize("installed", ["2.5.1", "2.4.12"])
def test_an_older_milvus_lite_is_named(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(embedded_file, "version", lambda name: installed)
    with refused(MissingDependencyError, f"needs milvus-lite 3.2 or newer, {installed} is installed: run `pip install"):
        MilvusIndex.create(tmp_path / "new.db", CONFIG)
    assert list(tmp_path.iterdir()) == []
