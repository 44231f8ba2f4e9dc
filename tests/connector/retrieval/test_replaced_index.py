"""No index gets, or is opened with, the network, the folder or the defaults of another that was at its path."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.explore import open_index
from semcut.connector.explore.open_index import open_stored, reopen_stored
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval import image_index
from semcut.connector.retrieval.model_link import ModelLink, change_link, read_link, required_link
from semcut.indexes import FaissIndex, StorageError
from semcut.indexes.errors import CheckpointError


@pytest.fixture
def path(digits, model: Checkpoint, tmp_path: Path) -> Path:
    """Make an index of four digits, and one of six in `later`, both with the folder `photos`."""
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for number, file in enumerate(digits.files[:6]):
        shutil.copy(file, folder / "a" / f"{number}.png")
    files = sorted((folder / "a").iterdir())
    for name, count in (("index", 4), ("later", 6)):
        with Connector.create(tmp_path / name, model.path, roots=[str(folder)]) as connector:
            connector.add_files(files[:count])
    change_link(tmp_path / "later", cutoff=0.25, root=str(tmp_path / "moved"))
    return tmp_path / "index"


def replace(path: Path) -> None:
    if (path.parent / "later").exists():
        path.rename(path.parent / "former")
        (path.parent / "later").rename(path)


def late(read: Callable[..., ModelLink | None]) -> Callable[..., ModelLink | None]:
    def after(path: Path) -> ModelLink | None:
        replace(path)
        return read(path)

    return after


def test_an_index_is_opened_with_its_own_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_index, "required_link", late(required_link))
    with Connector.open(path) as connector:
        assert (len(connector.index), connector.files.root) == (6, str(path.parent / "moved"))
        assert connector.defaults.cutoff == 0.25


def test_an_index_is_served_with_its_own_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_stored(path, None, "cpu", pytest.fail)
    monkeypatch.setattr(open_index, "read_link", late(read_link))
    opened = open_stored(path, None, "cpu", pytest.fail)
    followed = reopen_stored(path, first)
    for one in (opened, followed):
        assert (len(one.index), one.root, one.defaults.cutoff) == (6, str(path.parent / "moved"), 0.25)
    for one in (first, opened, followed):
        one.index.close()


@pytest.mark.parametrize("call", ["add_files", "sync"])
def test_images_are_added_only_by_the_network_and_below_the_folder_of_the_index(path: Path, call: str) -> None:
    photos = path.parent / "photos"

    def add(changed: dict[str, str]) -> None:
        with Connector.open(path) as connector:
            change_link(path, **changed)
            connector.add_files(photos.rglob("*.png")) if call == "add_files" else connector.sync()

    link = required_link(path)
    for error, changed, before in (
        (CheckpointError, {"sha256": "0" * 64}, {"sha256": str(link.sha256)}),
        (StorageError, {"root": "/elsewhere"}, {"root": str(link.root)}),
    ):
        with pytest.raises(error, match="open it again"):
            add(changed)
        change_link(path, **before)
        with FaissIndex.open(path) as index:
            assert len(index) == 4
    add({})
    with FaissIndex.open(path) as index:
        assert len(index) == 6


def test_nothing_is_said_of_an_index_that_was_replaced(path: Path) -> None:
    with Connector.open(path) as connector:
        replace(path)
        with pytest.raises(StorageError, match="was replaced or deleted meanwhile: open it again"):
            connector.sync(dry_run=True)
