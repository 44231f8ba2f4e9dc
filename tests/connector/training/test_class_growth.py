"""A network is trained further with more classes: the old ones keep their numbers, rows and codewords."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from semcut.connector.data.image_contents import digests_of
from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.sources import ImageSet, load
from semcut.connector.models import HeadName
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.heads import make_head
from semcut.connector.models.heads.codewords import codewords, further_codewords
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.training.class_growth import continued, grown, new_classes
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.errors import CheckpointError, InvalidParameterError
from tests.command import semcut
from tests.connector.training.stopping import Stop, stop_in

TRAIN = ("--image-size", 16, "--dim", 16, "--epochs", 1)


def folder_of(images: ImageSet, place: Path, count: int, **names: str) -> Path:
    """Link the first images of some classes: `names` says which digit is in the class folder."""
    for name, digit in names.items():
        (place / name).mkdir(parents=True)
        for file in [file for file in images.files if Path(file).parent.name == digit][:count]:
            (place / name / Path(file).name).symlink_to(file)
    return place


@pytest.fixture(scope="module")
def place(digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the classes bee, cat and dog."""
    place = tmp_path_factory.mktemp("growth")
    folder_of(digits, place / "first", 30, bee="0", cat="1", dog="2")
    semcut("train", "first", "--out", "model", *TRAIN, "--calibrate", cwd=place)
    return place


def test_sets_of_labels_get_the_numbers_of_the_network(place: Path) -> None:
    labels = np.array([0, 2, 1])
    images = ImageSet(("/1", "/2", "/3"), labels, ("ant", "bee", "dog"), label_sets=LabelSets.single(labels))
    found = continued(images, place / "model")
    assert found.classes == ("bee", "cat", "dog", "ant")
    assert found.label_sets is not None
    assert found.label_sets.labels.tolist() == found.labels.tolist() == [3, 2, 0]


def test_new_classes_follow_the_old_ones_and_a_missing_one_keeps_its_place(
    place: Path, digits: ImageSet, tmp_path: Path
) -> None:
    folder_of(digits, tmp_path / "more", 40, ant="3", bee="0", dog="2", ewe="4")
    before = Checkpoint.load(place / "model")
    train = ("train", "more", "--start", place / "model", "--out", "later", *TRAIN)
    done = semcut(*train, "--learning-rate", 1e-12, "--augment", "none", "--json", cwd=tmp_path)
    assert "2 new classes: ant, ewe" in done.stderr
    assert json.loads(done.stdout)["new_classes"] == ["ant", "ewe"]
    later = Checkpoint.load(tmp_path / "later")
    assert later.net.architecture.classes == ("bee", "cat", "dog", "ant", "ewe")
    assert json.loads((tmp_path / "later" / "model.json").read_text())["architecture"]["classes"][3:] == ["ant", "ewe"]
    assert later.digest != before.digest
    state = later.net.state_dict()
    for name, value in before.net.state_dict().items():
        if "running" not in name and "num_batches" not in name and name != "temperature":
            assert torch.allclose(state[name][: len(value)] if value.ndim else state[name], value, atol=1e-6), name
    assert state["semantic.weight"].shape == (5, 16)
    assert len(torch.unique(state["semantic.weight"], dim=0)) == 5

    # what was trained on is trained on, what was held out is held out, and nothing that was seen is forgotten
    first, second = before.training_digests(), later.training_digests()
    assert first.training <= second.training
    assert first.validation <= second.validation
    assert not second.training & second.validation
    assert second.all == {*first.all, *digests_of([str(file) for file in (tmp_path / "more").rglob("*.png")])}
    assert len(second.validation - first.validation) == 4 + 4 + 1 + 1  # of 40, 40, 10 and 10 new images

    # a network that has grown is trained further by the same rules, and its images are read in its order of classes
    folder_of(digits, tmp_path / "all", 40, ant="3", bee="0", cat="1", dog="2", ewe="4", fox="5")
    train = ("train", "all", "--start", "later", "--out", "last", *TRAIN)
    assert "1 new class: fox" in semcut(*train, cwd=tmp_path).stderr
    last = Checkpoint.load(tmp_path / "last")
    assert last.net.architecture.classes == ("bee", "cat", "dog", "ant", "ewe", "fox")
    again = semcut("train", "all", "--start", "last", "--out", "again", *TRAIN, "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["new_classes"] == []
    assert Checkpoint.load(tmp_path / "again").net.architecture == last.net.architecture
    assert [line["epoch"] for line in last.epochs()] == [1, 1, 1]
    other = semcut("train", "all", "--start", "last", "--out", "other", *TRAIN, "--seed", 1, cwd=tmp_path, status=1)
    assert "held out others for validation" in other.stderr


def test_a_growing_training_resumes_to_the_same_network(place: Path, digits: ImageSet, tmp_path: Path) -> None:
    folder_of(digits, tmp_path / "more", 20, ant="3", bee="0", cat="1", dog="2")
    images = load(tmp_path / "more")
    architecture = Architecture(image_size=16, dim=16, classes=images.classes)
    config, start = TrainConfig(epochs=2), place / "model"
    whole = train(images, architecture, config, tmp_path / "whole", start=start)
    with pytest.raises(Stop):
        train(images, architecture, config, tmp_path / "parts", start=start, progress=stop_in(1))
    parts = train(images, architecture, config, tmp_path / "parts", start=start, resume=True)
    assert parts.digest == whole.digest


def test_with_frozen_codes_only_the_classifiers_change(place: Path, digits: ImageSet, tmp_path: Path) -> None:
    folder_of(digits, tmp_path / "more", 20, ant="3", bee="0", cat="1", dog="2")
    for head in ("paper", "orthohash"):
        semcut("train", place / "first", "--out", f"{head} 1", "--head", head, *TRAIN, cwd=tmp_path)
        train = ("train", "more", "--start", f"{head} 1", "--out", f"{head} 2", "--head", head, *TRAIN)
        semcut(*train, "--freeze-codes", "--learning-rate", 0.1, cwd=tmp_path)
        before, after = (Checkpoint.load(tmp_path / f"{head} {number}").net.state_dict() for number in (1, 2))
        changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
        classifiers = {"semantic.weight", "semantic.bias"}
        more = {"head.classifier.weight", "head.classifier.bias"} if head == "paper" else {"head.targets"}
        assert changed == classifiers | more
        assert after["semantic.weight"][:3].ne(before["semantic.weight"]).any()


def test_frozen_codes_need_a_network_to_start_from(place: Path, tmp_path: Path) -> None:
    done = semcut("train", place / "first", "--out", "new", "--freeze-codes", *TRAIN, cwd=tmp_path, status=1)
    assert "give that network with --start" in done.stderr
    with pytest.raises(InvalidParameterError, match="freeze_codes also needs freeze"):
        TrainConfig(freeze_codes=True)


def test_what_is_no_growth_is_refused(place: Path, digits: ImageSet, tmp_path: Path) -> None:
    folder_of(digits, tmp_path / "fewer", 20, bee="0", cat="1")
    folder_of(digits, tmp_path / "more", 20, bee="0", cat="1", fox="5")
    start = ("--start", place / "model", "--out", "new")
    assert "another architecture" in semcut("train", "fewer", *start, *TRAIN, cwd=tmp_path, status=1).stderr
    other = semcut("train", "more", *start, *TRAIN, "--head", "csq", cwd=tmp_path, status=1).stderr
    assert "another architecture (head 'paper', expected 'csq')" in " ".join(other.split())
    shutil.copytree(place / "model", tmp_path / "old")
    (tmp_path / "old" / "training-images.safetensors").unlink()
    done = semcut("train", "more", "--start", "old", "--out", "new", *TRAIN, cwd=tmp_path, status=1)
    assert "does not record the contents of its training images" in done.stderr
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="holds no model"):
        new_classes(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("bits", "before", "after"), [(32, 5, 9), (32, 30, 40), (32, 60, 64), (32, 60, 70), (40, 7, 9)]
)
def test_codewords_of_more_classes_begin_with_those_of_fewer(bits: int, before: int, after: int) -> None:
    first = codewords(before, bits)
    words = further_codewords(first, after)
    assert words.shape == (after, bits)
    assert torch.equal(words[:before], first)
    assert set(words.unique().tolist()) == {-1, 1}
    products = (words @ words.T).numpy()
    np.fill_diagonal(products, 0)
    least = codewords(after, bits)
    others = (least @ least.T).numpy()
    np.fill_diagonal(others, 0)
    assert products.max() <= max(others.max(), (first @ first.T - bits * torch.eye(before)).max().item())
    assert torch.equal(further_codewords(words, after), words)


@pytest.mark.parametrize("head", ["paper", "csq", "orthohash", "dpn"])
def test_every_head_scores_old_classes_as_before(head: HeadName) -> None:
    torch.manual_seed(0)
    small = Architecture(image_size=16, dim=16, head=head, classes=tuple("abc"))
    net = SemanticHashNet(small).eval()
    after = grown(net, small.model_copy(update={"classes": tuple("abcde")})).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    one, two = net(images), after(images)
    assert torch.equal(one.features, two.features)
    assert torch.equal(one.hash, two.hash)
    assert torch.allclose(one.logits, two.logits[:, :3], atol=1e-6)
    assert torch.allclose(net.head.class_scores(one.hash), after.head.class_scores(two.hash)[:, :3], atol=1e-6)
    assert make_head(head, 64, 5).state_dict().keys() == after.head.state_dict().keys()
