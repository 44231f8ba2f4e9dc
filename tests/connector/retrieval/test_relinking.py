"""An index is linked to a later network with the same codes: it gets the new classes, and no image is encoded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector import AdoptionChoices, Connector, adopt
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.encoding_parts import different_part
from semcut.connector.retrieval.relinking import relink
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.errors import CheckpointError, IndexExistsError, StorageError
from tests.command import semcut
from tests.connector.adoption import networks
from tests.indexes.storage.stored_index import contents

TRAIN = ("--image-size", 16, "--dim", 16, "--epochs", 1)


def link_images(images: ImageSet, place: Path, count: int, **names: str) -> None:
    for name, digit in names.items():
        (place / name).mkdir(parents=True)
        for file in [file for file in images.files if Path(file).parent.name == digit][:count]:
            (place / name / Path(file).name).symlink_to(file)


@pytest.fixture(scope="module")
def made(digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three classes, its network, a later one with the same codes, and one that was trained further."""
    place = tmp_path_factory.mktemp("relinking")
    link_images(digits, place / "first", 20, bee="0", cat="1", dog="2")
    link_images(digits, place / "more", 30, ant="3", bee="0", cat="1", dog="2", ewe="4")
    semcut("train", "first", "--out", "model", *TRAIN, cwd=place)
    start = ("train", "more", "--start", "model", *TRAIN, "--learning-rate", 0.05)
    semcut(*start, "--out", "later", "--freeze-codes", cwd=place)
    semcut(*start, "--out", "further", "--freeze", cwd=place)
    link_images(digits, place / "photos" / "old", 40, bee="0", cat="1", dog="2")
    semcut("index", "photos/old", "--model", "model", "--out", "index", cwd=place)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of all, which a test may change; the links still lead to the images."""
    return Path(shutil.copytree(made, tmp_path / "copy", symlinks=True))


def records(index: Path) -> Encodings:
    with FaissIndex.open(index, engine="faiss") as opened:
        return opened.get(opened.ids())


def test_an_index_gets_the_classes_of_a_later_network(place: Path, digits: ImageSet) -> None:
    index = place / "index"
    semcut("relocate", "index", "--images", "photos/old", cwd=place)
    before = records(index)
    with Connector.open(index) as reader:
        done = semcut("relink", "index", "--model", "later", "--json", cwd=place)
        assert len(reader.index) == 120
    assert json.loads(done.stdout) == {"index": "index", "new_classes": ["ant", "ewe"], "records": 120}
    after = records(index)
    assert np.array_equal(after.probabilities, np.pad(before.probabilities, ((0, 0), (0, 2))))
    for name in ("codes", "features", "ids", "uris"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name
    shown = json.loads(semcut("info", "index", "--json", cwd=place).stdout)
    assert shown["classes"] == 5
    assert shown["network"] == str(place / "later")
    assert shown["seen in training"] == {"records": 90, "known records": 120}  # 60 with the former network
    assert "is sound" in semcut("verify", "index", cwd=place).stdout
    assert json.loads(semcut("sync", "index", "--dry-run", "--json", cwd=place).stdout)["unchanged"] == 120

    new = [file for file in digits.files if Path(file).parent.name == "3"][30:40]
    assert "10 images added" in semcut("add", "index", *new, cwd=place).stdout
    with Connector.open(index) as connector:
        assert connector.encoder.architecture.classes == ("bee", "cat", "dog", "ant", "ewe")
        added = connector.index.get(connector.ids_of(new))
        expected = connector.encoder.encode(new)
        assert np.array_equal(added.codes, expected.codes)
        assert np.allclose(added.probabilities, expected.probabilities)
        assert (added.probabilities[:, 3:] > 0).all()
        found = connector.search([new[0]], k=130, cutoff=0.0, shortlist=None)[0]
        assert {hit.uri for hit in found} == set(connector.paths(connector.index.ids()))
    assert "130 records, 0 new classes" in semcut("relink", "index", "--model", "later", cwd=place).stdout
    assert sorted(file.name for file in place.iterdir() if file.name.startswith("index")) == ["index"]


def test_a_network_with_other_codes_is_refused_with_what_to_do(place: Path) -> None:
    semcut("relocate", "index", "--images", "photos/old", "--model", "model", cwd=place)
    before = contents(place / "index")
    done = semcut("relink", "index", "--model", "further", cwd=place, status=1)
    assert "computes other features or codes" in done.stderr
    assert "`semcut sync" in done.stderr
    assert "--reencode --model" in done.stderr
    semcut("train", "more", "--out", "other", *TRAIN, cwd=place)
    done = semcut("relink", "index", "--model", "other", cwd=place, status=1)
    assert "do not begin with those of the network" in " ".join(done.stderr.split())
    with pytest.raises(CheckpointError, match="holds no model"):
        relink(place / "index", place)
    shutil.move(place / "model", place / "away")
    with pytest.raises(CheckpointError, match=r"has to be compared: give its new place with `semcut relocate"):
        relink(place / "index", place / "later")
    assert contents(place / "index") == before
    semcut("relocate", "index", "--model", "away", cwd=place)
    assert relink(place / "index", place / "later").new_classes == ("ant", "ewe")


def test_a_network_of_another_kind_is_no_later_one(place: Path) -> None:
    adopt(networks.blocks, place / "function", choices=AdoptionChoices(image_size=32))
    with pytest.raises(CheckpointError, match="the code of a function cannot be compared"):
        relink(place / "index", place / "function")
    choices = AdoptionChoices(image_size=32, weights=str(networks.write_weights(place)), classes=networks.CLASSES)
    adopt(networks.NAME, place / "adopted", choices=choices)
    with pytest.raises(CheckpointError, match="do not begin with those of the network"):
        relink(place / "index", place / "adopted")


def test_further_vectors_of_classes_make_a_later_network(tmp_path: Path, digits: ImageSet) -> None:
    weights, vectors = str(networks.write_weights(tmp_path)), np.random.default_rng(0).normal(size=(6, 1024))
    files, photos = digits.files[:60], digits.files[60:90]

    def adopted(name: str, count: int, **others: Any) -> Path:
        choices = AdoptionChoices(
            image_size=32, weights=weights, vectors=vectors[:count], classes=networks.CLASSES[:count], **others
        )
        return adopt(networks.NAME, tmp_path / name, files, choices=choices).checkpoint.path

    with Connector.create(tmp_path / "index", adopted("first", 4)) as connector:
        connector.add_files(photos)
    before = records(tmp_path / "index")
    with pytest.raises(CheckpointError, match=r"hash\.weight differs; only `semcut adopt` with further vectors"):
        relink(tmp_path / "index", adopted("other codes", 6, seed=1))
    assert relink(tmp_path / "index", adopted("later", 6)).new_classes == networks.CLASSES[4:6]
    after = records(tmp_path / "index")
    assert np.array_equal(after.probabilities, np.pad(before.probabilities, ((0, 0), (0, 2))))
    with Connector.open(tmp_path / "index") as connector:
        again = connector.encoder.encode(photos)
        assert np.array_equal(again.codes, after.codes)
        assert again.probabilities.shape == (30, 6)


def test_an_index_that_cannot_be_replaced_stays_as_it_was(place: Path) -> None:
    index, later = place / "index", place / "later"
    (index / "photos").mkdir()
    with pytest.raises(IndexExistsError, match="would be deleted"):
        relink(index, later)
    (index / "photos").rmdir()
    (index / "unfinished.json").write_text("{}")
    with pytest.raises(StorageError, match="is unfinished: end what was begun there first"):
        relink(index, later)
    (index / "unfinished.json").unlink()
    (place / "link").symlink_to(index)
    assert relink(place / "link", later).records == 120  # a link to an index stays one
    assert (place / "link").is_symlink()
    assert json.loads((index / "connector.json").read_text())["sha256"] == Checkpoint.load(later).digest


def test_the_first_part_that_differs_is_named(made: Path) -> None:
    model, later, further = (Checkpoint.load(made / name).net for name in ("model", "later", "further"))
    assert different_part(model, later) is None  # type: ignore[arg-type]
    assert different_part(later, further) in ("middle.0.weight", "hash.weight")  # type: ignore[arg-type]
    later.hash.bias.data[0] += 1  # type: ignore[union-attr]
    assert different_part(model, later) == "hash.bias"  # type: ignore[arg-type]
