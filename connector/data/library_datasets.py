"""Write data sets of libraries as folders of PNG files, one folder for each class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semcut.indexes.errors import DataError, install_hint, shown


def write_digits(target: Path) -> None:
    """Write scikit-learn's digits as PNG files to the folders `train` and `test`."""
    from semcut.connector.data.pillow import Image

    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(f"the digits come with scikit-learn: {install_hint('train')}") from None
    digits = load_digits()
    written = dict.fromkeys(range(10), 0)
    for number, (image, label) in enumerate(zip(digits.images, digits.target.tolist(), strict=True)):
        part = "test" if written[label] % 5 == 4 else "train"
        written[label] += 1
        path = target / part / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8)).save(path)


def torchvision_writer(source: str, name: str, split: str, downloads: Path) -> Callable[[Path], None]:
    """Return a function that downloads a data set of torchvision, and writes it as PNG files to a folder.

    Args:
        source: the data set, for messages.
        name: its name in `torchvision.datasets`.
        split: its part, such as "train".
        downloads: folder to download to.

    Raises:
        DataError: there is no such data set; and when the function is called, if it cannot be downloaded.
    """
    from torchvision import datasets

    data_set = getattr(datasets, name, None)
    if not inspect.isclass(data_set) or "/" in split:
        raise DataError(
            f"torchvision has no data set {shown(name)} with a split {shown(split)}: see torchvision.datasets for the "
            "names"
        )
    accepted = inspect.signature(data_set).parameters
    possible = {"root": str(downloads), "download": True, "train": split == "train", "split": split}
    settings: dict[str, Any] = {parameter: value for parameter, value in possible.items() if parameter in accepted}

    def write(target: Path) -> None:
        from semcut.connector.data.pillow import Image

        try:
            images: Any = data_set(**settings)
            len(images)
        except Exception as error:  # downloads, broken archives and missing files raise errors of many types
            raise DataError(f"cannot download {source} with torchvision: {error}; this needs the internet") from None
        names = getattr(images, "classes", None)
        for number in range(len(images)):
            image, label = images[number]
            if not isinstance(image, Image.Image) or not isinstance(label, int | np.integer):
                raise DataError(f"{source} is not a data set of images with one class each")
            path = target / (names[label] if names else str(label)) / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path)

    return write
