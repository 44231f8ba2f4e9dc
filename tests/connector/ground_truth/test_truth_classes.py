"""Classes to train on, from a ground truth of any form."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.cli.truth_options import TruthSource, labelled_by_truth
from semcut.connector.data.image_folders import ImageFolder
from semcut.connector.data.sources import list_images
from semcut.connector.ground_truth.judged_queries import ALL, GroundTruth, Judgement, Query
from semcut.connector.ground_truth.read_truth import read_ground_truth
from semcut.connector.ground_truth.truth_classes import OTHERS, images_of_truth
from semcut.indexes import DataError
from tests.command import semcut
from tests.connector.ground_truth.pictures import DISTRACTORS, FORMS, THINGS, save, variants, write_holidays


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("others", [False, True])
def test_each_thing_is_a_class(form: str, others: bool, tmp_path: Path) -> None:
    FORMS[form](tmp_path)
    found, (name, _, source) = list_images(tmp_path / "photos"), form.partition("=")
    truth = read_ground_truth(name, str(tmp_path / source) if source else None, found.files)
    images = images_of_truth(truth, found, others=others)
    sizes = Counter(images.classes[label] for label in images.labels)
    assert sizes.pop(OTHERS, 0) == (DISTRACTORS if others else 0)
    assert list(sizes.values()) == [4] * THINGS
    for file, label in zip(images.files, images.labels, strict=True):
        things = {
            images.classes[n] for f, n in zip(images.files, images.labels, strict=True) if thing(f) == thing(file)
        }
        assert things == {images.classes[label]}
    reasons = Counter(reason for _, reason in images.skipped)
    assert reasons["junk in the ground truth"] == (THINGS if name not in ("holidays", "ukbench") else 0)
    assert reasons["not named by the ground truth"] == (0 if others else DISTRACTORS)
    if name in ("oxford5k", "paris6k"):
        assert images.classes[:2] == ("hall_0", "hall_1")


def thing(file: str) -> str:
    """Return what a picture of `tests.connector.ground_truth.pictures` shows."""
    path = Path(file)
    if path.parent.name.startswith(("thing", "other")):
        return path.parent.name
    if path.stem.startswith("ukbench"):
        return str(int(path.stem[7:]) // 4)
    return path.stem[:4] if path.stem.isdigit() else path.stem[:6]


def truth_of(form: str, *queries: tuple[str, str, set[str]]) -> GroundTruth:
    named = tuple(Query(name, image) for name, image, _ in queries)
    return GroundTruth(form, named, {ALL: tuple(Judgement(frozenset(right), frozenset()) for *_, right in queries)})


def folder_of(*names: str) -> ImageFolder:
    return ImageFolder("/photos", [f"/photos/{name}.jpg" for name in names], {}, (), [])


def test_queries_that_share_an_image_or_a_landmark_are_one_class() -> None:
    queries = [("a_1", "u", {"v"}), ("b_1", "w", {"x", "v"}), ("c_1", "y", {"z"}), ("c_2", "p", {"q"})]
    images = images_of_truth(truth_of("oxford5k", *queries), folder_of(*"uvwxyzpq"))
    assert images.classes == ("a", "c")
    found = {Path(file).stem: images.classes[label] for file, label in zip(images.files, images.labels, strict=True)}
    assert found == {
        **dict.fromkeys("uvwx", "a"), **dict.fromkeys("pqyz", "c"),
    }  # fmt: skip


def test_names_of_a_table_may_be_whole_paths(tmp_path: Path) -> None:
    FORMS["csv=truth.csv"](tmp_path)
    table, photos = tmp_path / "truth.csv", tmp_path / "photos"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *(row.replace("thing ", f"{photos}/thing ") for row in rows)]) + "\n")
    found = list_images(photos)
    images = images_of_truth(read_ground_truth("csv", str(table), found.files), found)
    assert np.bincount(images.labels).tolist() == [4] * THINGS


@pytest.mark.parametrize("others", [False, True])
def test_a_limit_leaves_images_of_every_thing_to_search(others: bool, tmp_path: Path) -> None:
    write_holidays(tmp_path)
    truth = TruthSource("holidays", None)
    every = labelled_by_truth(str(tmp_path / "photos"), truth, others=others, limit=None, seed=0)
    some = labelled_by_truth(str(tmp_path / "photos"), truth, others=others, limit=len(every) // 2, seed=0)
    assert some.classes == every.classes
    assert np.array_equal(np.bincount(some.labels) * 2, np.bincount(every.labels))
    other = labelled_by_truth(str(tmp_path / "photos"), truth, others=others, limit=len(every) // 2, seed=1)
    assert set(other.files) != set(some.files)
    assert len(labelled_by_truth(str(tmp_path / "photos"), truth, others=others, limit=9**9, seed=0)) == len(every)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["u", "v"], "images of 1 classes among the 2 images of /photos, expected at least 2"),
        (["u", "v", "w", "below/u"], "two images have the name u"),
    ],
)
def test_what_cannot_be_trained_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        images_of_truth(truth_of("csv", ("1", "u", {"v"}), ("2", "w", {"x"})), folder_of(*names))


def test_a_network_is_trained_on_a_ground_truth(tmp_path: Path) -> None:
    write_holidays(tmp_path)
    save(variants(0)[1], tmp_path / "photos" / "100004.png")  # five of one thing, four of the others
    settings = ["--backbone", "small", "--image-size", "16", "--epochs", "2", "--batch-size", "8", "--balance", "6"]
    command = ["train", "photos", "--ground-truth", "holidays", "--others", *settings, "--validation", "0.25"]
    done = json.loads(semcut(*command, "--out", "model", "--json", cwd=tmp_path).stdout)
    assert done["images"] == 4 * THINGS + 1 + DISTRACTORS
    described = json.loads((tmp_path / "model" / "model.json").read_text())
    assert described["architecture"]["classes"][-1] == OTHERS
    assert described["training"]["config"]["balance"] == 6
    done = semcut(
        "index", "photos", "--model", "model", "--exclude-training", "--out", "index", cwd=tmp_path, status=None
    )
    assert "the network was trained on" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--others"], "--others needs --ground-truth"),
        (["--ground-truth", "holidays", "--protocol", "cifar10-1"], "leave out --protocol"),
        (["--ground-truth", "holidays", "--balance", "0"], "balance"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, tmp_path: Path) -> None:
    write_holidays(tmp_path, 2)
    done = semcut("train", "photos", *options, "--out", "model", cwd=tmp_path, status=None)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "model").exists()
