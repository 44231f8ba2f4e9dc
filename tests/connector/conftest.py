"""Fixtures for all tests: a temporary cache folder, a small network trained on digits, and an index of digits.

All processes of a test run share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet, load
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from tests.made_once import made_once


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = made_once(tmp_path_factory, "cache", lambda _: None)
        patch.setenv("SEMCUT_CACHE", str(folder))
        patch.setenv("SEMCUT_DATA", str(folder / "data"))
        yield folder


@pytest.fixture(scope="session")
def digits(cache: Path) -> ImageSet:
    return load("digits/train")


@pytest.fixture(scope="session")
def digits_test(cache: Path) -> ImageSet:
    return load("digits/test")


@pytest.fixture(scope="session")
def architecture(digits: ImageSet) -> Architecture:
    return Architecture(backbone="small", classes=digits.classes, image_size=16, bits=64, dim=32)


@pytest.fixture(scope="session")
def model(digits: ImageSet, architecture: Architecture, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    def make(place: Path) -> None:
        train(digits.sample(600), architecture, TrainConfig(epochs=5, augment="shift"), place / "run")

    return Checkpoint.load(made_once(tmp_path_factory, "model", make) / "run")


@pytest.fixture(scope="session")
def stored(model: Checkpoint, digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an index of all training digits with the network; no test may change the index."""

    def make(place: Path) -> None:
        with Connector.create(place / "digits", model.path) as connector:
            connector.add_files(digits.files)

    return made_once(tmp_path_factory, "stored", make) / "digits"
