"""A training that resumes changes nothing of a network or of a record that is of another training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.data.image_contents import readable_images
from semcut.connector.data.model_file import WEIGHTS
from semcut.connector.data.sources import ImageSet
from semcut.connector.data.training_digests import TRAINING_DIGESTS
from semcut.connector.models.checkpoint import METRICS, TRAINING_IMAGES, Checkpoint
from semcut.connector.models.network import Architecture
from semcut.connector.training.loop import train
from semcut.connector.training.run_directory import contents_of
from semcut.connector.training.run_state import STATE, read_state, write_state
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.errors import CheckpointError, DataError
from tests.connector.training.stopping import Stop, stop_in

CONFIG = TrainConfig(epochs=2, calibrate=True)


@pytest.fixture(scope="module")
def images(digits: ImageSet) -> ImageSet:
    return readable_images(digits.sample(60))


@pytest.fixture(scope="module")
def others(digits: ImageSet) -> ImageSet:
    """As many images of the same classes."""
    return digits.sample(60, seed=1)


@pytest.fixture
def unfinished(images: ImageSet, architecture: Architecture, tmp_path: Path) -> Path:
    with pytest.raises(Stop):
        train(images, architecture, CONFIG, tmp_path / "run", progress=stop_in(1))
    return tmp_path / "run"


@pytest.fixture
def finished(images: ImageSet, architecture: Architecture, tmp_path: Path) -> Path:
    return train(images, architecture, CONFIG, tmp_path / "run").path


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_other_images_or_settings_change_nothing(
    state: str, images: ImageSet, others: ImageSet, architecture: Architecture, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(state)
    before = content(path)
    for given, config, message in (
        (others, CONFIG, "was begun with other images"),
        (others.sample(50), CONFIG, "was begun with other images"),
        (replace(images, labels=np.roll(images.labels, 1)), CONFIG, "was begun with other images"),
        (others, TrainConfig(epochs=1), "has other settings"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(given, architecture, config, path, resume=True)
        assert content(path) == before


def test_a_finished_network_stays_as_it_is(images: ImageSet, architecture: Architecture, finished: Path) -> None:
    before, network = content(finished), finished / WEIGHTS
    written = network.stat().st_mtime_ns
    assert train(images, architecture, CONFIG, finished, resume=True).digest == Checkpoint.load(finished).digest
    assert content(finished) == before
    assert network.stat().st_mtime_ns == written


def test_a_training_killed_after_its_last_state_gets_its_network(
    images: ImageSet, architecture: Architecture, finished: Path
) -> None:
    before = content(finished)
    for missing in (("model.json",), ("model.json", WEIGHTS, METRICS), (TRAINING_IMAGES, TRAINING_DIGESTS)):
        for name in missing:
            (finished / name).unlink()
        train(images, architecture, CONFIG, finished, resume=True)
        assert content(finished) == before


def test_a_training_killed_before_its_first_state_begins_again(
    images: ImageSet, others: ImageSet, architecture: Architecture, finished: Path, tmp_path: Path
) -> None:
    for names in ((TRAINING_IMAGES,), (TRAINING_IMAGES, TRAINING_DIGESTS)):
        path = tmp_path / f"killed with {len(names)}"
        path.mkdir()
        for name in names:
            shutil.copyfile(finished / name, path / name)
        (path / "training.safetensors.0123456789abcdef.new").touch()
        before = content(path)
        with pytest.raises(DataError, match=f"has '{min(names)}', which is not of this training"):
            train(others, architecture, CONFIG, path, resume=True)
        with pytest.raises(Stop):
            train(images, architecture, CONFIG, path, resume=True, progress=stop_in(0))
        assert content(path) | before == content(path)
        assert train(images, architecture, CONFIG, path, resume=True).training_images() == list(images.files)


@pytest.mark.parametrize("name", [TRAINING_IMAGES, TRAINING_DIGESTS, METRICS, "photo.jpg", "notes"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_of_a_user_beside_no_state_are_not_replaced(
    name: str, resume: bool, images: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"three weeks on a cluster")
    with pytest.raises(DataError, match=f"has '{name}', which is not of this" if resume else "exists already"):
        train(images, architecture, CONFIG, tmp_path, resume=resume)
    assert content(tmp_path) == {name: b"three weeks on a cluster"}


@pytest.mark.parametrize("kept", [("model.json", WEIGHTS), ("model.json",), (WEIGHTS,)])
def test_a_network_without_a_state_is_not_replaced(
    kept: tuple[str, ...], images: ImageSet, architecture: Architecture, finished: Path
) -> None:
    for file in finished.iterdir():
        if file.name not in kept:
            file.unlink()
    before = content(finished)
    with pytest.raises(CheckpointError, match=r"has a network \(model\..*, but no training\.safetensors"):
        train(images, architecture, CONFIG, finished, resume=True)
    assert content(finished) == before


def test_a_network_beside_the_state_of_another_training_is_not_replaced(
    images: ImageSet, architecture: Architecture, finished: Path, model: Checkpoint
) -> None:
    for name in ("model.json", WEIGHTS):
        shutil.copyfile(model.path / name, finished / name)
    (finished / TRAINING_DIGESTS).unlink()
    before = content(finished)
    with pytest.raises(CheckpointError, match="is not of the training whose state is there"):
        train(images, architecture, CONFIG, finished, resume=True)
    assert content(finished) == before


def test_a_state_that_does_not_name_its_images_is_not_resumed(
    images: ImageSet, architecture: Architecture, unfinished: Path
) -> None:
    groups, stored = read_state(unfinished / STATE, 1 << 30)
    del stored["settings"]["image_contents"]
    write_state(unfinished / STATE, groups, stored)
    before = content(unfinished)
    with pytest.raises(CheckpointError, match=r"other settings \(image_contents\).*the same version of semcut"):
        train(images, architecture, CONFIG, unfinished, resume=True)
    assert content(unfinished) == before


def test_images_are_compared_by_content_label_order_and_part_and_not_by_path(images: ImageSet, tmp_path: Path) -> None:
    training, validation = images.split(0.2)
    moved = replace(training, files=tuple(str(tmp_path / f"{number}.png") for number in range(len(training))))
    assert contents_of(moved, validation) == contents_of(training, validation)
    assert len(contents_of(training, validation)) == 32
    different = {
        contents_of(training, validation),
        contents_of(validation, training),
        contents_of(training, training),
        contents_of(images, images.subset([])),
        contents_of(training.subset(range(len(training))[::-1]), validation),
        contents_of(replace(training, labels=training.labels[::-1]), validation),
    }
    assert len(different) == 6
