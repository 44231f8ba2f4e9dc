"""Three small networks trained on digits, with two heads and two seeds, measured once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcut.connector.data.protocols import protocol_split
from semcut.connector.models import HeadName
from semcut.connector.models.network import Architecture
from semcut.connector.reproduce.measure_network import measure_network
from semcut.connector.reproduce.network_measurements import Measurement
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes.progress import silent
from tests.made_once import made_once

PROTOCOL = "cifar10-2"
NETWORKS: dict[str, tuple[HeadName, int]] = {"paper-0": ("paper", 0), "ortho-0": ("orthohash", 0),
                                             "ortho-1": ("orthohash", 1)}  # fmt: skip


@pytest.fixture(scope="session")
def networks(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    def make(place: Path) -> None:
        for name, (head, seed) in NETWORKS.items():
            images = protocol_split(PROTOCOL, "digits", seed).training
            architecture = Architecture(classes=images.classes, image_size=8, bits=32, dim=32, head=head)
            config = TrainConfig(epochs=3, learning_rate=4e-3, augment="shift", seed=seed)
            train(images, architecture, config, place / name)

    place = made_once(tmp_path_factory, "networks", make)
    return {name: place / name for name in NETWORKS}


@pytest.fixture(scope="session")
def results(networks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Measurement]]:
    def make(place: Path) -> None:
        tasks: set[str] = set()

        def report(done: int, total: int, task: str = "") -> None:
            tasks.add(task)

        for path in networks.values():
            name = measure_network(path, "digits", PROTOCOL, place, progress=report).about["name"]
            assert {f"{name}: {step}" for step in ("indexing", "encoding queries", "ranking")} <= tasks

    out = made_once(tmp_path_factory, "results", make)
    measurements = {  # made by `make`, found here
        name: measure_network(path, "digits", PROTOCOL, out, progress=silent) for name, path in networks.items()
    }
    return out, measurements


def folder_of(results: tuple[Path, dict[str, Measurement]], name: str) -> Path:
    """Return the folder of a network in the directory of results."""
    return results[0] / PROTOCOL / str(results[1][name].about["name"])
