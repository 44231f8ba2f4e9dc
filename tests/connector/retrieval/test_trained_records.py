"""How many records of an index its network was trained on is counted by content, not by path."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.trained_records import trained_records, training_of
from semcut.indexes import FaissIndex
from tests.connector.adoption import networks


@pytest.mark.parametrize("where", ["memory", "directory"])
def test_copies_of_training_images_are_counted(
    where: str, model: Checkpoint, digits_test: ImageSet, tmp_path: Path
) -> None:
    digests = training_of(model.path)
    assert digests is not None
    copies = []
    for number, file in enumerate(model.training_images()[:7]):
        copies.append(shutil.copy(file, tmp_path / f"{number}.png"))
    with Connector.create(None if where == "memory" else tmp_path / "index", model.path) as connector:
        connector.add_files([*copies, *digits_test.files[:20]])
        assert trained_records(connector.files, digests) == (7, 27)
        if where == "memory":
            return
        connector.index.remove([0, 1, 20])
        assert trained_records(connector.files, digests) == (5, 24)


def test_records_of_other_programs_are_not_known(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    with Connector.create(tmp_path / "index", model.path) as connector:
        connector.add_files(digits.files[:5])
        found = connector.encoder.encode(digits.files[5:8])
    with FaissIndex.open(tmp_path / "index") as index:
        index.add(replace(found, ids=[90, 91, 92]))
    digests = training_of(model.path)
    assert digests is not None
    with Connector.open(tmp_path / "index") as connector:
        assert trained_records(connector.files, digests).known == 5


def test_a_network_that_records_no_training_counts_nothing(tmp_path: Path) -> None:
    from semcut.connector import AdoptionChoices, adopt

    path = adopt(networks.blocks, tmp_path / "network", choices=AdoptionChoices(image_size=32)).checkpoint.path
    assert training_of(path) is None
