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

PROTOCOL = "cifar10-2"
NETWORKS: dict[str, tuple[HeadName, int]] = {"paper-0": ("paper", 0), "ortho-0": ("orthohash", 0),
                                             "ortho-1": ("orthohash", 1)}  # fmt: skip


@pytest.fixture(scope="session")
def networks(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("networks")
    for name, (head, seed) in NETWORKS.items():
        images = protocol_split(PROTOCOL, "digits", seed).training
        architecture = Architecture(classes=images.classes, image_size=16, bits=32, dim=32, head=head)
        config = TrainConfig(epochs=3, learning_rate=4e-3, augment="shift", seed=seed)
        train(images, architecture, config, place / name)
    return {name: place / name for name in NETWORKS}


@pytest.fixture(scope="session")
def results(networks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Measurement]]:
    out = tmp_path_factory.mktemp("results")
    tasks: set[str] = set()

    def report(done: int, total: int, task: str = "") -> None:
        tasks.add(task)

    measurements = {
        name: measure_network(path, "digits", PROTOCOL, out, progress=report) for name, path in networks.items()
    }
    for step in ("indexing", "encoding queries", "ranking"):
        assert {f"{network.about['name']}: {step}" for network in measurements.values()} <= tasks
    return out, measurements


def folder_of(results: tuple[Path, dict[str, Measurement]], name: str) -> Path:
    """Return the folder of a network in the directory of results."""
    return results[0] / PROTOCOL / str(results[1][name].about["name"])
