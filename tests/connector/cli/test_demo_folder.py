"""`semcut demo` in a directory that has something of the user, or came from someone else: nothing of it is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import semcut.connector.cli.train_command as training
from semcut.connector import Connector
from semcut.connector.cli.demo_folder import (
    delete_index_of_demo,
    is_index_of_demo,
    require_own_directories,
    require_own_files,
)
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.indexes.errors import DataError
from tests.command import semcut
from tests.connector.benchmark.test_run_folders import tree


@pytest.fixture
def place(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> Path:
    """Make a directory as the demo leaves it, with fewer digits."""
    out = tmp_path / "demo"
    shutil.copytree(model.path, out / "model")
    with Connector.create(out / "index", out / "model", roots=digits.roots) as connector:
        connector.add_files(digits.files[:20])
    (out / "queries" / "0").mkdir(parents=True)
    shutil.copy(digits.files[0], out / "queries" / "0")
    return out


def test_the_demo_replaces_links_by_files_and_makes_its_index_again(
    digits_test: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training.train_with_progress
    monkeypatch.setattr(
        training, "train_with_progress",
        lambda images, architecture, config, out, **options: whole(
            images, architecture, config.model_copy(update={"epochs": 1}), out, **options
        ),
    )  # fmt: skip
    semcut("demo", cwd=tmp_path)
    out = tmp_path / "demo"
    catalogue = (out / "index" / "catalogue.sqlite").stat().st_ctime_ns
    copies = sorted((out / "queries").rglob("*.png"))
    assert len(copies) == 6
    victim = tmp_path / "mine"
    victim.write_text("mine")
    for link in (copies[0], out / "digits.png"):
        link.unlink()
        link.symlink_to(victim)
    (out / "index" / "unfinished.json").write_text("{}")
    semcut("demo", cwd=tmp_path)
    assert victim.read_text() == "mine"
    assert not copies[0].is_symlink()
    assert not (out / "digits.png").is_symlink()
    assert (out / "index" / "catalogue.sqlite").stat().st_ctime_ns != catalogue
    written = copies[1].stat().st_mtime_ns
    picture = (out / "digits.png").read_bytes()
    for path, what in ((out / "digits.png", "picture"), (copies[0], "digit")):
        before = path.read_bytes()
        path.write_bytes(b"\xff\xd8\xff my only photo")
        now = tree(out)
        done = semcut("demo", cwd=tmp_path, status=1)
        assert f"{path.relative_to(tmp_path)} is not the {what} that the demo would write there" in done.stderr
        assert tree(out) == now
        path.write_bytes(before)
    semcut("demo", cwd=tmp_path)
    assert copies[1].stat().st_mtime_ns == written
    assert (out / "digits.png").read_bytes() == picture
    (out / "index" / "notes.txt").write_text("mine")
    before = tree(out / "index")
    assert "'notes.txt', which semcut did not write" in semcut("demo", cwd=tmp_path, status=1).stderr
    assert tree(out / "index") == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in ("model", "index", "queries") for kind in ("link", "dangling", "file")]
    + [("queries/0", "link"), ("queries/0", "dangling")],
)
def test_folders_of_the_demo_are_real_directories(name: str, kind: str, place: Path) -> None:
    mine = (place / name).rename(place.parent / "mine")
    if kind == "file":
        (place / name).touch()
    else:
        (place / name).symlink_to(mine if kind == "link" else "nowhere")
    before = tree(place.parent)
    assert "expected a directory that the demo made" in semcut("demo", cwd=place.parent, status=1).stderr
    assert tree(place.parent) == before


def test_a_network_without_a_state_is_not_trained_again(place: Path) -> None:
    (place / "model" / "training.safetensors").unlink()
    before = tree(place)
    assert "the demo did not train this network" in semcut("demo", cwd=place.parent, status=1).stderr
    assert tree(place) == before


@pytest.mark.parametrize("name", ["index", "queries", "digits.png"])
def test_what_the_demo_makes_later_is_not_there_before_the_network(name: str, tmp_path: Path) -> None:
    if name == "digits.png":
        (tmp_path / name).write_text("mine")
    else:
        (tmp_path / name).mkdir()
        require_own_directories(tmp_path)
        (tmp_path / name / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="was not made by the demo"):
        require_own_directories(tmp_path)


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "other bytes", "more bytes"])
@pytest.mark.parametrize("name", ["digits.png", "queries/0/a.png"])
def test_what_is_under_the_name_of_a_file_of_the_demo_stays(kind: str, name: str, tmp_path: Path) -> None:
    path, digits = tmp_path / name, {tmp_path / "queries/0/a.png": b"digit"}
    assert require_own_files(tmp_path, digits) == list(digits)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"digiT" if kind == "other bytes" else b"digits")
    with pytest.raises(DataError, match=f"{name} is not the .* that the demo would write there: move it away"):
        require_own_files(tmp_path, digits)


def test_a_training_that_was_killed_before_its_first_epoch_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("training-images.txt", "training-images.safetensors", "training.safetensors.0123456789abcdef.new"):
        (tmp_path / "model" / name).touch()
    require_own_directories(tmp_path)


@pytest.mark.parametrize(
    "change", ["a photo", "notes", "a folder", "a photo in a generation", "a link", "a folder as link"]
)
def test_an_index_with_something_of_the_user_stays(change: str, place: Path, digits: ImageSet) -> None:
    index, mine = place / "index", place.parent / "mine"
    mine.mkdir()
    if change == "a photo":
        shutil.copy(digits.files[0], mine / "photo.png")
        with Connector.open(index) as connector:
            connector.add_files([str(mine / "photo.png")])
    elif change == "notes":
        (index / "notes.txt").write_text("mine")
    elif change == "a folder":
        (index / "generation-2024").mkdir()
        (index / "generation-2024" / "photo.jpg").write_text("mine")
    elif change == "a photo in a generation":
        (index / "generation-0" / "photo.jpg").write_text("mine")
    elif change == "a link":
        (index / "unfinished.json").symlink_to(mine)
    else:
        (index / "generation-7").symlink_to(mine)
    before = tree(place)
    with pytest.raises(DataError, match="and would be deleted: move it away"):
        delete_index_of_demo(place, digits.roots, digits.files)
    assert tree(place) == before


def test_the_demo_deletes_an_index_of_its_own(place: Path, digits: ImageSet) -> None:
    delete_index_of_demo(place, ("other roots",), digits.files)
    assert (place / "index").is_dir()
    delete_index_of_demo(place, digits.roots, digits.files)
    assert not (place / "index").exists()
    delete_index_of_demo(place, digits.roots, digits.files)


def test_an_index_of_other_images_or_of_another_network_is_not_of_the_demo(
    place: Path, model: Checkpoint, digits: ImageSet
) -> None:
    for network, roots, own in (
        (place / "model", digits.roots, True), (place / "model", ("/pictures",), False), (place / "model", (), False),
        (model.path, digits.roots, False),
    ):  # fmt: skip
        shutil.rmtree(place / "index")
        Connector.create(place / "index", network, roots=roots).close()
        assert is_index_of_demo(place, digits.roots) is own
