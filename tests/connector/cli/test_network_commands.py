"""Tests of the commands that need a network, run as a user runs them: train, index, search, evaluate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from semcut.connector.data.sources import ImageSet
from tests.command import semcut


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, digits: ImageSet) -> Path:
    """Create a directory with a trained network and an index made with the network."""
    place = tmp_path_factory.mktemp("cli")
    trained = semcut(
        "train", "digits/train", "--out", "model", "--image-size", 16, "--epochs", 4, "--limit", 500, "--dim", 32,
        "--augment", "shift", "--json", cwd=place,
    )  # fmt: skip
    assert json.loads(trained.stdout)["images"] == 500
    extra = place / "pictures" / "5"
    extra.mkdir(parents=True)
    for file in digits.files:
        if Path(file).parent.name == "5":
            os.symlink(file, extra / Path(file).name)
    (extra / "notes.txt").write_text("not an image")
    indexed = semcut(
        "index", "digits/train", "--model", "model", "--out", "index", "--exclude-training", "--json", cwd=place
    )
    assert json.loads(indexed.stdout) == {"index": "index", "added": 1442 - 500, "skipped": []}
    return place


def test_info_shows_the_size_of_the_index(place: Path) -> None:
    content = json.loads(semcut("info", "index", "--json", cwd=place).stdout)
    assert content["records"] == 942
    assert sum(content["partitions"]) == 942
    assert (content["classes"], content["bits"], content["dim"]) == (10, 64, 32)
    assert "records" in semcut("info", "index", cwd=place).stdout


def test_index_skips_and_lists_files_that_are_not_images(place: Path) -> None:
    done = semcut("index", "pictures", "--model", "model", "--out", "fives", "--json", cwd=place)
    content = json.loads(done.stdout)
    assert content["added"] > 100
    assert [Path(file).name for file, _ in content["skipped"]] == ["notes.txt"]
    assert "notes.txt: not an image" in done.stderr


def test_search_finds_records_and_draws_them(place: Path, digits_test: ImageSet) -> None:
    images = digits_test.files[:2]
    done = semcut("search", "index", *images, "-k", 4, "--picture", "out/hits.png", "--json", cwd=place)
    content = json.loads(done.stdout)
    assert [entry["image"] for entry in content] == list(images)
    assert all(len(entry["hits"]) == 4 for entry in content)
    with Image.open(place / "out" / "hits.png") as picture:
        assert picture.format == "PNG"
        assert picture.height > 200
    assert "relevance" in semcut("search", "index", images[0], "--shortlist", "all", "-t", 0, cwd=place).stdout


def test_places_that_relevant_records_leave_are_filled(place: Path, digits_test: ImageSet) -> None:
    few = ("search", "index", digits_test.files[0], "-k", 6, "-t", 0.9999)
    hits = json.loads(semcut(*few, "--json", cwd=place).stdout)[0]["hits"]
    assert [hit["filled"] for hit in hits] == [True] * 6
    assert "no record is relevant" in semcut(*few, cwd=place).stdout
    assert json.loads(semcut(*few, "--no-fill", "--json", cwd=place).stdout)[0]["hits"] == []
    assert "no record has a relevance above the cutoff" in semcut(*few, "--no-fill", cwd=place).stdout
    few = ("search", "index", digits_test.files[0], "-k", 6, "-t", "none", "--ranking", "relevance", "--json")
    values = [hit["relevance"] for hit in json.loads(semcut(*few, cwd=place).stdout)[0]["hits"]]
    assert len(values) == 6
    assert values == sorted(values, reverse=True)


def test_search_loads_neither_training_nor_the_compiled_engine(place: Path, digits_test: ImageSet) -> None:
    """Loading either of the two takes longer than a search with one image."""
    script = (
        "import sys; from semcut.connector.cli.app import app; app(sys.argv[1:], standalone_mode=False)\n"
        "print(*sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SEMCUT_ENGINE"}
    done = subprocess.run(
        [sys.executable, "-c", script, "search", "index", digits_test.files[0]],
        cwd=place, capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"torch", "faiss", "semcut.connector.retrieval.image_index"} <= loaded
    assert not loaded & {
        "numba",
        "scipy",
        "sklearn",
        "torchvision",
        "semcut.connector.training.loop",
        "PIL.IcoImagePlugin",
    }


def test_evaluate_reports_quality_and_cost(place: Path) -> None:
    content = json.loads(semcut("evaluate", "index", "digits/test", "--limit", 100, "--json", cwd=place).stdout)
    assert content["overall"]["queries"] == 100
    assert content["overall"]["map_all"] > 0.5
    assert 0 < content["codes_scanned"] < 1
    assert content["trained"] == {"records": 0, "known_records": 942, "queries": 0}
    seen = json.loads(semcut("evaluate", "index", "digits/train", "--json", cwd=place).stdout)
    assert seen["trained"]["queries"] == 500
    table = semcut("evaluate", "index", "digits/test", "--ranking", "fused", cwd=place).stdout
    assert "mAP@all" in table
    assert "codes scanned" in table
    assert "Seen in training" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nowhere"], "nowhere is not a directory"),
        (["info", "pictures"], "is not a semcut index"),
        (["search", "index", "missing.png"], "skipped missing.png: no such file"),
        (["search", "index", "missing.png", "-k", "0"], "k = 0"),
        (["train", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["train", "digits/train", "--out", "x", "--bits", "63"], "bits = 63"),
        (["train", "digits/train", "--out", "x", "--image-size", "0"], "image_size = 0"),
        (["train", "digits/train", "--out", "x", "--learning-rate", "0"], "learning_rate = 0"),
        (["train", "digits/train", "--out", "pictures"], "pictures exists already"),
        (
            ["train", "digits/train", "--out", "pictures/5/notes.txt/x", "--limit", "50"],
            "cannot be used: Not a directory",
        ),
        (["index", "digits/test", "--model", "nowhere", "--out", "x"], "nowhere holds no model"),
        (["index", "digits/test", "--model", "model", "--out", "index"], "index exists already"),
        (["evaluate", "index", "pictures"], "1 class folders"),
    ],
)
def test_an_error_is_one_line(place: Path, arguments: list[str], message: str) -> None:
    done = semcut(*arguments, cwd=place, status=1)
    assert message in done.stderr
    assert done.stdout == ""
    assert not (place / "x").exists()


def test_a_wrong_value_of_an_option_is_status_2(place: Path) -> None:
    assert (
        "0 is not in the range" in semcut("evaluate", "index", "digits/test", "--limit", 0, cwd=place, status=2).stderr
    )
    assert "neither a number nor all" in semcut(
        "search", "index", "a.png", "--shortlist", "some", cwd=place, status=2
    ).stderr  # fmt: skip


def test_help_lists_every_command(place: Path) -> None:
    shown = semcut("--help", cwd=place).stdout
    for command in ("demo", "evaluate", "index", "info", "search", "train"):
        assert f"\n  {command} " in shown
        assert "--json" in semcut(command, "--help", cwd=place).stdout


def test_a_picture_of_results_replaces_only_another_of_them(place: Path, digits: ImageSet, tmp_path: Path) -> None:
    photo = Path(shutil.copy(digits.files[0], tmp_path / "photo.png"))
    before = photo.read_bytes()
    arguments = ["search", place / "index", photo, "--picture"]
    done = semcut(*arguments, "photo.png", cwd=tmp_path, status=2)
    assert "exists, and is not a picture of results: choose another name" in " ".join(done.stderr.split())
    assert photo.read_bytes() == before
    for _ in range(2):
        semcut(*arguments, "found.png", cwd=tmp_path)
