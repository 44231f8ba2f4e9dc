"""Data sets: every one of them is, or becomes, a folder of image files.

A source is named by one string:

    animals/train               a folder; images lie in one folder per class
    cifar10.tar.gz/train        a folder inside an archive, unpacked once into the cache
    digits/train, digits/test   scikit-learn's 1,797 scans of digits; every fifth of a digit is for testing
    torchvision:CIFAR10/train   a torchvision data set by name, downloaded and written out as PNG files once

The cache is `SEMCUT_CACHE` or the user's cache folder; deleting it costs only the time to unpack again. A file's class
is the name of the folder it lies in. Archives are unpacked with Python's "data" filter, which keeps every file inside
the target, and only while the disk has room.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semcut.indexes.errors import DataError, require

_TORCHVISION = "torchvision:"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Image files with their classes.

    Attributes:
        files: n absolute paths.
        labels: (n,) int64, positions in `classes`.
        classes: class names, sorted.
    """

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, positions: Sequence[int] | NDArray[np.int64]) -> ImageSet:
        """The images at these positions; classes stay."""
        positions = np.asarray(positions, np.int64)
        return ImageSet(tuple(self.files[i] for i in positions), self.labels[positions], self.classes)

    def sample(self, count: int, seed: int = 0) -> ImageSet:
        """So many images at random, as evenly over the classes as there are images; all of them if there are fewer."""
        return self.subset(evenly(self.labels, count, seed))

    def split(self, fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """The set without, and with, this fraction of every class's images, drawn at random (rounded, at least 1)."""
        rank = np.empty(len(self), np.int64)
        rng = np.random.default_rng(seed)
        held = np.zeros(len(self), bool)
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            rank[members] = rng.permutation(len(members))
            held[members] = rank[members] < max(1, round(fraction * len(members)))
        return self.subset(np.flatnonzero(~held)), self.subset(np.flatnonzero(held))

    def without(self, files: Sequence[str]) -> ImageSet:
        """The set without these files."""
        left_out = set(files)
        return self.subset([i for i, file in enumerate(self.files) if file not in left_out])


def evenly(labels: NDArray[np.integer[Any]], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Sorted positions of so many of (n,) labels, or of all, at random: as evenly over the classes as there are."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    turn = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[np.argsort(turn, kind="stable")][:count])


def class_of(uri: str | None) -> str | None:
    """The class that a file's folder names, None for a record without a uri."""
    return None if uri is None else Path(uri).parent.name


def load(source: str) -> ImageSet:
    """The images and classes of a labelled source: a folder of class folders, once it is on disk.

    Raises:
        DataError: it is not there, cannot be unpacked, or has fewer than two class folders.
    """
    root = folder(source)
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    found = {name: files_under(root / name, deep=False) for name in classes}
    classes = [name for name in classes if found[name]]
    if len(classes) < 2:
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{source} has {len(classes)} class folders with images, expected at least 2: give a folder that holds one "
            f"folder of images per class (it holds {inside})"
        )
    labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
    return ImageSet(tuple(file for name in classes for file in found[name]), labels, tuple(classes))


def files_under(root: Path, *, deep: bool = True) -> list[str]:
    """Absolute paths of all files in a folder, and in its folders if `deep`; sorted, hidden ones left out."""
    found: list[str] = []
    for where, folders, names in os.walk(root.absolute()):
        folders[:] = sorted(name for name in folders if deep and not name.startswith("."))
        found += [os.path.join(where, name) for name in sorted(names) if not name.startswith(".")]
    return found


def folder(source: str) -> Path:
    """The folder on disk that a source names, unpacked or written out first where it must be.

    Raises:
        DataError: it is not there, or cannot be unpacked.
    """
    name, _, inner = source.partition("/")
    if name == "digits" and not Path(source).exists():
        return _inside(_cached("digits-1", _write_digits), inner, source)
    if source.startswith(_TORCHVISION):
        return _torchvision(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    archive = next((parent for parent in (path, *path.parents) if parent.is_file()), None)
    if archive is None:
        raise DataError(f"{source} does not exist: give a folder, an archive, digits/train or torchvision:NAME/train")
    if not tarfile.is_tarfile(archive):
        raise DataError(f"{archive} is neither a folder nor a tar archive")
    facts = archive.stat()
    key = hashlib.sha256(f"{archive.absolute()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
    root = _cached(f"{archive.name.split('.')[0]}-{key}", lambda target: _unpack(archive, target))
    return _inside(root, str(path.relative_to(archive)), source)


def cache() -> Path:
    """Where archives are unpacked and downloaded data sets are kept."""
    if chosen := os.environ.get("SEMCUT_CACHE"):
        return Path(chosen)
    require({"platformdirs": "platformdirs"}, "keep data sets", "train")
    from platformdirs import user_cache_path

    return user_cache_path("semcut")


def _inside(root: Path, inner: str, source: str) -> Path:
    path = root / inner
    if not path.is_dir() or not path.resolve().is_relative_to(root.resolve()):
        inside = ", ".join(sorted(entry.name for entry in root.iterdir())[:8])
        raise DataError(f"{source}: there is no folder {inner!r} inside, it holds {inside}")
    return path


def _cached(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of the cache, filled first if it is not there; it appears whole or not at all."""
    target = cache() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            fill(Path(scratch) / "whole")
            try:
                os.replace(Path(scratch) / "whole", target)
            except OSError:
                if not target.is_dir():  # another process may have been first
                    raise
    except OSError as error:
        raise DataError(f"cannot fill the cache {target}: {error}; set SEMCUT_CACHE to another folder") from None
    return target


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir()
    room = shutil.disk_usage(target).free
    taken = 0

    def safe(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
        nonlocal taken
        taken += member.size
        if taken > room:
            raise DataError(f"{archive} unpacks to more than the {room / 1e9:.1f} GB free in {cache()}")
        return tarfile.data_filter(member, destination)

    try:
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter=safe)
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"cannot unpack {archive}: {error}") from None


def _write_digits(target: Path) -> None:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("digits come with scikit-learn: run `pip install 'semcut[train]'`") from None
    digits = load_digits()
    seen = dict.fromkeys(range(10), 0)
    for number, (image, label) in enumerate(zip(digits.images, digits.target.tolist(), strict=True)):
        part = "test" if seen[label] % 5 == 4 else "train"
        seen[label] += 1
        path = target / part / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)


def _torchvision(source: str) -> Path:
    from torchvision import datasets

    name, _, split = source.removeprefix(_TORCHVISION).partition("/")
    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind):
        raise DataError(f"torchvision has no data set {name!r}: see torchvision.datasets for the names")
    known = inspect.signature(kind).parameters
    wanted = {"root": str(cache() / "torchvision"), "download": True, "train": split == "train", "split": split}
    settings: dict[str, Any] = {parameter: value for parameter, value in wanted.items() if parameter in known}

    def write(target: Path) -> None:
        try:
            images: Any = kind(**settings)
        except Exception as error:  # a download, an archive and a missing file fail in many ways
            raise DataError(
                f"cannot get {source}: {error}; torchvision downloads it, which needs the internet"
            ) from None
        names = getattr(images, "classes", None)
        for number in range(len(images)):
            image, label = images[number]
            if not isinstance(image, Image.Image) or not isinstance(label, int | np.integer):
                raise DataError(f"{source} does not give images with one class each")
            path = target / (names[label] if names else str(label)) / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path)

    return _cached(f"torchvision-{name}-{split or 'all'}", write)
