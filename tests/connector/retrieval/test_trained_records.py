"""How many records of an index its network was trained on is counted by content, and the index itself knows it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.records_by_uri import known_of_snapshot
from semcut.connector.retrieval.trained_records import recorded_training, trained_records, training_of
from semcut.indexes import FaissIndex
from tests.command import semcut
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
        assert trained_records(connector.files.known().facts.values(), digests) == (7, 27)
        if where == "memory":
            return
        connector.index.remove([0, 1, 20])
        assert trained_records(connector.files.known().facts.values(), digests) == (5, 24)


def test_records_of_other_programs_are_not_known(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    with Connector.create(tmp_path / "index", model.path) as connector:
        connector.add_files(digits.files[:5])
        found = connector.encoder.encode(digits.files[5:8])
    with FaissIndex.open(tmp_path / "index") as index:
        index.add(replace(found, ids=[90, 91, 92]))
    digests = training_of(model.path)
    assert digests is not None
    with Connector.open(tmp_path / "index") as connector:
        assert trained_records(connector.files.known().facts.values(), digests).known == 5


def test_a_network_that_records_no_training_counts_nothing(tmp_path: Path) -> None:
    from semcut.connector import AdoptionChoices, adopt

    path = adopt(networks.blocks, tmp_path / "network", choices=AdoptionChoices(image_size=32)).checkpoint.path
    assert training_of(path) is None


def seen(index: Path) -> object:
    return json.loads(semcut("info", index, "--json", cwd=index.parent).stdout)["seen in training"]


def test_an_index_knows_its_training_images_after_any_change_and_without_its_network(
    model: Checkpoint, digits_test: ImageSet, tmp_path: Path
) -> None:
    shutil.copytree(model.path, tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number, file in enumerate(model.training_images()[:4]):
        shutil.copy(file, tmp_path / "photos" / f"trained{number}.png")
    for number, file in enumerate(digits_test.files[:5]):
        shutil.copy(file, tmp_path / "photos" / f"new{number}.png")
    index = tmp_path / "index"
    semcut("index", "photos", "--model", "model", "--out", "index", cwd=tmp_path)
    assert seen(index) == {"records": 4, "known records": 9}
    shutil.copy(model.training_images()[4], tmp_path / "photos" / "trained4.png")
    semcut("add", "index", "photos/trained4.png", cwd=tmp_path)
    assert seen(index) == {"records": 5, "known records": 10}
    semcut("remove", "index", "--uri", "trained0.png", "--uri", "new0.png", cwd=tmp_path)
    assert seen(index) == {"records": 4, "known records": 8}
    for name in ("trained0", "new0"):
        (tmp_path / "photos" / f"{name}.png").unlink()
    (tmp_path / "photos" / "trained1.png").rename(tmp_path / "photos" / "moved.png")
    shutil.copy(tmp_path / "photos" / "trained2.png", tmp_path / "photos" / "copied.png")
    shutil.copy(tmp_path / "photos" / "new1.png", tmp_path / "photos" / "trained3.png")
    (tmp_path / "photos" / "new2.png").touch()
    assert "sync" not in semcut("sync", "index", cwd=tmp_path).stderr
    assert seen(index) == {"records": 4, "known records": 9}
    shutil.move(tmp_path / "photos", tmp_path / "elsewhere")
    semcut("relocate", "index", "--images", "elsewhere", cwd=tmp_path)
    semcut("backup", "index", "copy", cwd=tmp_path)
    semcut("compact", "index", cwd=tmp_path)
    shutil.rmtree(tmp_path / "model")
    with FaissIndex.open(index) as opened:
        root = str(tmp_path / "elsewhere")
        facts = known_of_snapshot(index, opened.snapshot, root).facts.values()
        assert recorded_training(index, opened.snapshot, root) == trained_records(facts) == (4, 9)
    assert seen(index) == seen(tmp_path / "copy") == {"records": 4, "known records": 9}
    assert "records: 4" in semcut("info", "index", cwd=tmp_path).stdout


def test_what_is_not_known_is_no_number(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    with Connector.create(tmp_path / "index", model.path) as connector:
        connector.add_files(digits.files[:5])
    file = tmp_path / "index" / "files.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(f"{json.dumps(line[:6])}\n" for line in lines))  # as an earlier version wrote them
    assert seen(tmp_path / "index") == "not known"
    with Connector.open(tmp_path / "index") as connector:
        assert trained_records(connector.files.known().facts.values(), training_of(model.path)).known == 5
        assert connector.sync(Path(digits.files[0]).parent, dry_run=True).unchanged == 5
    for wrong in ([*lines[0][:6], 1], [*lines[0][:6], None], [*lines[0], True]):
        file.write_text(f"{json.dumps(wrong)}\n")
        assert seen(tmp_path / "index") == "not known"
    file.unlink()
    assert seen(tmp_path / "index") == "not known"
