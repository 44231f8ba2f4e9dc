"""Three small networks of digits, of two heads and two seeds, measured once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcut.connector.data.protocols import parts
from semcut.connector.models.heads import HeadName
from semcut.connector.models.network import Architecture
from semcut.connector.reproduce.measured import Measured, measure
from semcut.connector.training.loop import TrainConfig, train

PROTOCOL = "cifar10-2"
NETWORKS: dict[str, tuple[HeadName, int]] = {"paper-0": ("paper", 0), "ortho-0": ("orthohash", 0),
                                             "ortho-1": ("orthohash", 1)}  # fmt: skip


@pytest.fixture(scope="session")
def networks(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("networks")
    for name, (head, seed) in NETWORKS.items():
        images = parts(PROTOCOL, "digits", seed).training
        architecture = Architecture(classes=images.classes, image_size=16, bits=32, dim=32, head=head)
        config = TrainConfig(epochs=3, learning_rate=4e-3, augment="shift", seed=seed)
        train(images, architecture, config, place / name)
    return {name: place / name for name in NETWORKS}


@pytest.fixture(scope="session")
def results(networks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Measured]]:
    out = tmp_path_factory.mktemp("results")
    told: list[str] = []
    measured = {
        name: measure(path, "digits", PROTOCOL, out, progress=lambda what, done, of: told.append(what))
        for name, path in networks.items()
    }
    for what in ("indexing", "encoding queries", "ranking"):
        assert {f"{one.about['name']}: {what}" for one in measured.values()} <= set(told)
    return out, measured


def place_of(results: tuple[Path, dict[str, Measured]], name: str) -> Path:
    """The folder of a network in a directory of results."""
    return results[0] / PROTOCOL / str(results[1][name].about["name"])
