"""The parts of every protocol have the stated sizes, and share only the images that the protocol allows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.data import ProtocolName
from semcut.connector.data.image_contents import digests_of
from semcut.connector.data.protocols import PROTOCOLS, ProtocolSplit, check_protocol, protocol_split
from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import DataError

SIZES = {
    "cifar10": (5000, 54_000, 1000),
    "cifar10-1": (5000, 59_000, 1000),
    "cifar10-2": (50_000, 50_000, 10_000),
    "tin200": (400, 400, 100),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create empty files, as many as CIFAR-10 has images, and a smaller data set; no test reads the files."""
    root = tmp_path_factory.mktemp("data")
    for folder, classes, count in (
        ("cifar/train", 10, 5000), ("cifar/test", 10, 1000), ("tin/train", 4, 100), ("tin/val", 4, 25)
    ):  # fmt: skip
        for label in range(classes):
            (root / folder / f"c{label}").mkdir(parents=True)
            for number in range(count):
                (root / folder / f"c{label}" / f"{number}.png").touch()
    return root


def parts_of(name: str, source: Path, seed: int = 0) -> ProtocolSplit:
    return protocol_split(name, str(source / ("tin" if name == "tin200" else "cifar")), seed)  # type: ignore[arg-type]


def files(images: ImageSet) -> set[str]:
    assert len(set(images.files)) == len(images)
    return set(images.files)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sizes_and_shared_images(name: str, source: Path) -> None:
    training, database, queries = parts_of(name, source)
    assert (len(training), len(database), len(queries)) == SIZES[name]
    assert not files(queries) & (files(training) | files(database))
    assert len(files(training) & files(database)) == (0 if name == "cifar10" else len(training))
    part, validation = training.split(0.1)
    assert not files(part) & files(validation)
    assert not files(validation) & files(queries)
    for images in (training, database, queries):
        assert images.classes == training.classes
        assert all(Path(f).parent.name == images.classes[y] for f, y in zip(images.files, images.labels, strict=True))
        assert len(np.unique(np.bincount(images.labels))) == 1  # balanced over the classes


@pytest.mark.parametrize("name", ["cifar10", "cifar10-1"])
def test_the_seed_decides_what_is_drawn(name: str, source: Path) -> None:
    first, again, other = (parts_of(name, source, seed) for seed in (0, 0, 1))
    for part in range(3):
        assert first[part].files == again[part].files
        assert first[part].files != other[part].files


def test_queries_and_training_images_come_from_their_own_folders(source: Path) -> None:
    for name in PROTOCOLS:
        training, _, queries = parts_of(name, source)
        assert {Path(file).parent.parent.name for file in training.files} == {"train"}
        assert {Path(file).parent.parent.name for file in queries.files} == {PROTOCOLS[name].queries_from}


def test_data_that_does_not_fit_is_one_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tin/test does not exist"):
        protocol_split("cifar10-2", str(source / "tin"))
    for folder in ("train", "val"):
        for label in ("a", "b", f"only-in-{folder}"):
            (tmp_path / folder / label).mkdir(parents=True)
            (tmp_path / folder / label / "1.png").touch()
    with pytest.raises(DataError, match="different classes"):
        protocol_split("tin200", str(tmp_path))
    (source / "tin" / "val").rename(source / "tin" / "test")
    try:
        with pytest.raises(DataError, match="has 400 images, but cifar10-1 draws 5000"):
            protocol_split("cifar10-1", str(source / "tin"))
    finally:
        (source / "tin" / "test").rename(source / "tin" / "val")


def test_a_protocol_is_checked_by_the_contents_of_images_that_were_moved(tmp_path: Path) -> None:
    for number in range(16):
        file = tmp_path / "set" / ("train", "test")[number // 8] / f"c{number % 2}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number))
    split = protocol_split("cifar10-2", str(tmp_path / "set"))
    shutil.copytree(tmp_path / "set", tmp_path / "moved")
    moved = protocol_split("cifar10-2", str(tmp_path / "moved"))
    name: ProtocolName = "cifar10-2"
    trained = [digest for digest in digests_of(split.training.files) if digest is not None]
    assert len(set(trained)) == 8
    check_protocol(name, moved, trained, split.database.files)
    with pytest.raises(DataError, match=r"the network was trained on 7 images; 0 of them are not .* 1 selected"):
        check_protocol(name, moved, trained[1:], split.database.files)
    with pytest.raises(DataError, match=r"the index holds 8 images; 1 of them are not .* 1 selected"):
        check_protocol(name, moved, trained, [*split.database.files[1:], None])
