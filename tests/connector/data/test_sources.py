"""Every source becomes a folder of class folders, or is one clear error."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import sources
from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import DataError


def make_folder(root: Path, classes: dict[str, int]) -> Path:
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name / f"{number:03d}.png")
    return root


def archive_of(folder: Path, target: Path, inside: str = "train") -> Path:
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder, inside)
    return target


def test_a_folder_of_class_folders_gives_sorted_classes_and_files(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "animals", {"dog": 3, "cat": 2, ".hidden": 1, "empty": 0})
    images = sources.load(str(root))
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1, 1]
    assert images.files[0] == str(root / "cat" / "000.png")
    assert [sources.class_of(file) for file in images.files] == ["cat", "cat", "dog", "dog", "dog"]


def test_an_archive_is_unpacked_once_and_gives_the_same_images(tmp_path: Path, cache: Path) -> None:
    folder = make_folder(tmp_path / "animals", {"dog": 3, "cat": 2})
    archive = archive_of(folder, tmp_path / "animals.tar.gz")
    images = sources.load(f"{archive}/train")
    assert images.classes == ("cat", "dog")
    assert len(images) == 5
    assert all(Path(file).is_relative_to(cache) for file in images.files)
    before = Path(images.files[0]).stat().st_mtime_ns
    assert sources.load(f"{archive}/train").files == images.files
    assert Path(images.files[0]).stat().st_mtime_ns == before


def test_an_archive_that_was_made_anew_gives_its_own_images(tmp_path: Path) -> None:
    archive = tmp_path / "animals.tar"
    found = []
    for classes in ("cd", "xy"):
        folder = make_folder(tmp_path / classes, dict.fromkeys(classes, 1))
        with tarfile.open(tmp_path / "new.tar", "w") as tar:
            tar.add(folder, "train")
        os.utime(tmp_path / "new.tar", ns=(10**18, 10**18))
        os.replace(tmp_path / "new.tar", archive)
        found.append((archive.stat().st_size, archive.stat().st_mtime_ns, sources.load(f"{archive}/train").classes))
    assert found[0][:2] == found[1][:2]
    assert [classes for *_, classes in found] == [("c", "d"), ("x", "y")]


def test_an_archive_with_a_file_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("../../evil.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match="cannot unpack"):
        sources.load(str(archive))
    assert not list(tmp_path.parent.glob("**/evil.txt"))


def test_a_damaged_archive_is_one_error_and_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    whole = archive_of(make_folder(tmp_path / "a", {"x": 40, "y": 40}), tmp_path / "whole.tar.gz").read_bytes()
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(whole[: len(whole) * 2 // 3])
    before = set(cache.iterdir())
    with pytest.raises(DataError, match="cannot unpack"):
        sources.load(f"{broken}/train")
    assert set(cache.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "does not exist"),
        ("digits/missing", "the data set has no folder 'missing', it holds test, train"),
        ("torchvision:NoSuchSet/train", "no data set 'NoSuchSet'"),
    ],
)
def test_a_source_that_does_not_exist_is_one_error(source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.load(source)


def test_a_file_that_is_not_an_archive_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="neither a folder nor a tar or zip archive"):
        sources.load(str(tmp_path / "notes.txt"))


def test_a_folder_of_parts_is_not_a_folder_of_classes(tmp_path: Path) -> None:
    make_folder(tmp_path / "set" / "train", {"cat": 1, "dog": 1})
    make_folder(tmp_path / "set" / "test", {"cat": 1, "dog": 1})
    with pytest.raises(
        DataError, match=r"0 class folders with images.*parts of a data set.*this folder holds test, train"
    ):
        sources.load(str(tmp_path / "set"))


def test_digits_parts_are_disjoint_and_whole(digits: ImageSet, digits_test: ImageSet) -> None:
    assert len(digits) + len(digits_test) == 1797
    assert not {Path(f).name for f in digits.files} & {Path(f).name for f in digits_test.files}
    assert digits.classes == digits_test.classes == tuple("0123456789")
    assert np.bincount(digits_test.labels).min() >= 34


def test_digits_are_scikit_learns_own(digits: ImageSet) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    for position in (0, 500, 1400):
        number = int(Path(digits.files[position]).stem)
        assert source.target[number] == digits.labels[position]
        pixels = np.asarray(Image.open(digits.files[position]))
        assert np.array_equal(pixels, np.rint(source.images[number] * 255 / 16))


def test_a_torchvision_data_set_is_written_out_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FakeData generates its images, so this test runs the code for downloaded data sets without a download."""
    from torchvision import datasets

    class Few(datasets.FakeData):
        def __init__(self) -> None:
            super().__init__(size=100, image_size=(3, 32, 32))

    monkeypatch.setattr(datasets, "FakeData", Few)
    images = sources.load("torchvision:FakeData")
    assert len(images) == 100
    assert all(Path(file).is_relative_to(cache) for file in images.files)


def test_a_torchvision_set_that_cannot_be_downloaded_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match="needs the internet"):
        sources.load("torchvision:CIFAR10/train")


def test_a_sample_is_balanced_over_classes_and_repeatable(digits: ImageSet) -> None:
    sample = digits.sample(205, seed=3)
    counts = np.bincount(sample.labels)
    assert counts.sum() == 205
    assert counts.max() - counts.min() <= 1
    assert sample.files == digits.sample(205, seed=3).files
    assert sample.files != digits.sample(205, seed=4).files
    assert digits.sample(10**6).files == digits.files


def test_a_split_takes_its_share_of_every_class_and_overlaps_nothing(digits: ImageSet) -> None:
    rest, held_out = digits.split(0.1, seed=1)
    assert set(rest.files) | set(held_out.files) == set(digits.files)
    assert not set(rest.files) & set(held_out.files)
    share = np.bincount(held_out.labels) / np.bincount(digits.labels)
    assert np.all(np.abs(share - 0.1) < 0.01)


def test_without_leaves_out_the_given_files(digits: ImageSet) -> None:
    left = digits.without(digits.files[:100])
    assert left.files == digits.files[100:]
    assert left.labels.tolist() == digits.labels[100:].tolist()


def test_the_digits_of_semcut_itself_are_not_looked_for_in_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "digits" / "train", {"cat": 2, "dog": 2})
    monkeypatch.chdir(tmp_path)
    assert sources.load("digits/train").classes == ("cat", "dog")
    assert sources.digits("train").classes == tuple("0123456789")
    assert len(sources.digits("test")) == 355
