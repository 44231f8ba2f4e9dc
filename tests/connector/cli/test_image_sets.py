"""Commands on the same images agree: by content, by one rule for folders, with everything left out named."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import semcut

TRAIN = ("--image-size", 16, "--epochs", 1, "--dim", 8)


def picture(path: Path, seed: int, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes with all that is left out, and a network that was trained on it."""
    place = tmp_path_factory.mktemp("sets")
    for number in range(12):
        picture(place / "photos" / "cat" / ("2021/summer" if number % 2 else "") / f"{number}.png", number)
        picture(place / "dogs" / f"{number}.png", 100 + number)
    (place / "photos" / "dog").symlink_to(place / "dogs")
    (place / "photos" / "ant").mkdir()
    (place / "photos" / "ant" / "notes.txt").write_text("no image")
    (place / "photos" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (place / "photos" / "cat" / "loop").symlink_to(place / "photos")
    picture(place / "photos" / "dog" / os.fsdecode(b"\xff.png"), 1)
    done = semcut("train", "photos", "--out", "model", *TRAIN, "--json", cwd=place)
    content = json.loads(done.stdout)
    assert content["images"] == 24
    names = [os.path.basename(name) for name, _ in content["skipped"]]
    assert names == ["loop", os.fsdecode(b"\xff.png"), "notes.txt", "broken.png", "ant"]
    assert all(f"skipped {name}" in done.stderr or f"/{name}: " in done.stderr for name in names if name.isprintable())
    return place


def index(place: Path, source: object, *options: object, cwd: Path | None = None) -> tuple[int, str]:
    """Index images into a new directory; return the number added, and what is printed beside."""
    out = place / f"index {len(list(place.glob('index *')))}"
    done = semcut("index", source, "--model", place / "model", "--out", out, *options, "--json", cwd=cwd or place)
    return json.loads(done.stdout)["added"], done.stderr


def test_train_index_and_evaluate_see_the_same_images_and_classes(place: Path) -> None:
    done = semcut("index", "photos", "--model", "model", "--out", "all", "--json", cwd=place)
    content = json.loads(done.stdout)
    assert content["added"] == 24
    assert {os.path.basename(name) for name, _ in content["skipped"]} == {
        "loop", os.fsdecode(b"\xff.png"), "notes.txt", "broken.png",
    }  # fmt: skip
    measured = json.loads(semcut("evaluate", "all", "photos", "-t", 0, "--json", cwd=place).stdout)
    assert {name: row["queries"] for name, row in measured["per_class"].items()} == {"cat": 12, "dog": 12}
    assert {os.path.basename(name) for name, _ in measured["skipped"]} >= {"broken.png", "notes.txt", "ant", "loop"}


@pytest.mark.parametrize(
    "case",
    ["another way to write the path", "moved", "copied flat", "linked", "links", "strange names", "in an archive",
     "in a zip", "in a list"],
)  # fmt: skip
def test_training_images_are_left_out_by_their_content(place: Path, case: str, tmp_path: Path) -> None:
    source: object = "../photos"
    cwd = place / "photos"
    if case == "moved":
        shutil.copytree(place / "photos" / "cat", tmp_path / "elsewhere" / "bird", ignore=lambda *_: ["loop"])
        source = tmp_path / "elsewhere"
    elif case == "copied flat":
        for number, file in enumerate(sorted((place / "dogs").glob("[0-9]*.png"))):
            os.utime(shutil.copyfile(file, tmp_path / f"x{number}.jpeg"), (5, 5))
        source = tmp_path
        picture(tmp_path / "new.png", 778)
    elif case == "linked":
        (tmp_path / "link").symlink_to(place / "photos" / "cat")
        source = tmp_path / "link"
    elif case == "links":
        for number, file in enumerate(sorted((place / "dogs").glob("[0-9]*.png"))):
            (os.link if number % 2 else os.symlink)(file, tmp_path / f"link{number}")
        source = picture(tmp_path / "new.png", 778).parent
    elif case == "strange names":
        for number, file in enumerate(sorted((place / "dogs").glob("[0-9]*.png"))):
            shutil.copyfile(file, tmp_path / f"-\x1b[1m {number}%20\u0301\\.PNG.txt")
        source = picture(tmp_path / "new.png", 778).parent
    elif case == "in a zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted((place / "dogs").glob("[0-9]*.png")):
                archive.write(file, f"other/{file.stem}.jpg")
            archive.write(picture(tmp_path / "new.png", 778), "other/new.png")
        os.utime(tmp_path / "a.zip", (5, 5))
        source = tmp_path / "a.zip"
    elif case == "in a list":
        files = [*sorted((place / "dogs").glob("[0-9]*.png")), picture(tmp_path / "new.png", 778)]
        (tmp_path / "a.csv").write_text("path\n" + "".join(f"{file}\n" for file in files))
        source = tmp_path / "a.csv"
    elif case == "in an archive":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(place / "dogs", "dogs", filter=lambda member: member if "\udcff" not in member.name else None)
            tar.add(picture(tmp_path / "new.png", 778), "dogs/new.png")
        source = tmp_path / "a.tar"
    if (tmp_path / "new.png").exists():
        added, printed = index(place, source, "--exclude-training", cwd=cwd)
        assert added == 1
    else:  # nothing is left, since all others are training images or cannot be read
        options = ("--model", place / "model", "--out", tmp_path / "none", "--exclude-training")
        printed = semcut("index", source, *options, cwd=cwd, status=1).stderr
        assert "so there is no index" in printed
    assert "files left out, because the network was trained on them" in printed
    picture(place / "new" / "cat" / "1.png", 777)
    shutil.copyfile(place / "dogs" / "3.png", place / "new" / "cat" / "2.png")
    added, printed = index(place, place / "new", "--exclude-training")
    assert added == 1
    assert "1 of 2 files left out" in printed


def test_a_network_that_does_not_know_its_training_images_excludes_none_in_silence(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "old")
    for content, message in ((None, "train it again"), (b"damaged", "cannot read")):
        file = tmp_path / "old" / "training-images.safetensors"
        file.unlink() if content is None else file.write_bytes(content)
        done = semcut(
            "index", place / "photos", "--model", "old", "--out", "i", "--exclude-training", cwd=tmp_path, status=1
        )
        assert message in done.stderr
        assert not (tmp_path / "i").exists()


def test_a_frozen_backbone_needs_weights(place: Path) -> None:
    for backbone in ((), ("--backbone", "small"), ("--backbone", "resnet18")):
        done = semcut("train", "photos", "--out", "noise", "--freeze", *backbone, *TRAIN, cwd=place, status=1)
        assert "add --backbone efficientnet_lite0 --weights imagenet" in done.stderr
        assert not (place / "noise").exists()


def test_a_training_that_fails_can_be_given_again(place: Path) -> None:
    for _ in range(2):
        done = semcut(
            "train",
            "photos",
            "--out",
            "runs/a",
            *TRAIN,
            "--batch-size",
            4,
            "--learning-rate",
            1e30,
            cwd=place,
            status=1,
        )
        assert "lower the learning rate" in done.stderr
        assert not (place / "runs").exists()
    done = semcut("train", "photos/ant", "--out", "runs/a", *TRAIN, cwd=place, status=1)
    assert "0 class folders with images" in done.stderr
    assert not (place / "runs").exists()


def test_index_names_a_folder_that_is_in_two_classes(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "dogs", tmp_path / "photos" / "dog", ignore=lambda *_: [os.fsdecode(b"\xff.png")])
    (tmp_path / "photos" / "wolf").symlink_to(tmp_path / "photos" / "dog")
    added, printed = index(place, tmp_path / "photos")
    assert added == 24
    assert "are in two classes, and their images count for both" in " ".join(printed.split())


def test_evaluate_counts_copies_of_training_images_as_queries(place: Path, tmp_path: Path) -> None:
    index(place, place / "photos")
    made = max(place.glob("index *"), key=os.path.getmtime)
    for number in range(3):
        (tmp_path / "queries" / "dog").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / "dogs" / f"{number}.png", tmp_path / "queries" / "dog" / f"new{number}.jpg")
    picture(tmp_path / "queries" / "cat" / "new.png", 779)
    measured = json.loads(semcut("evaluate", made, tmp_path / "queries", "-t", 0, "--json", cwd=place).stdout)
    assert measured["trained"] == {"records": 24, "known_records": 24, "queries": 3}
