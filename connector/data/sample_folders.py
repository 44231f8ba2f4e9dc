"""Write the images of a data set that is packed into few files as a folder, for the commands that read folders.

A reader of a format yields a `Sample` for each image; `parquet_images` and `webdataset_shards` are such readers. An
image with one label is written to the folder of its class; any other one is in no class, so it is in no folder. Where
an image has several labels, the labels of all images are written to a list, `labels.jsonl`, beside the folder `images`.

Labels and names may come from someone else. A label that cannot be the name of a folder is refused, except that "/"
becomes U+2215, which looks like it: two labels never get the same folder. A name that is too long for a file is cut,
and has a digest at its end. Every file is created new.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Self

from semcut.connector.data.archive_members import DISK_BLOCK, Budget, RefusedArchiveError, require_members
from semcut.connector.data.class_names import MAX_CLASSES
from semcut.connector.data.list_files import MAX_LIST_BYTES
from semcut.connector.data.unpacked_folders import UnpackedFolders, new_file
from semcut.indexes.errors import shown

IMAGES, LABELS = "images", "labels.jsonl"
"""The folder of the images, and the list of their labels, which is there if an image has several."""

MAX_SAMPLE_BYTES = 1 << 28
"""The most that an image may have: it is in memory until its labels are known, which may follow it."""

SLASH = "\u2215"
"""What "/" becomes in a name."""

MAX_NAME_BYTES = 255
_CUT_BYTES = 200


def with_digest(text: str, of: str) -> str:
    """Return a text with a digest of another one, so that it is the name of nothing else."""
    return f"{text}{SLASH}{SLASH}{hashlib.sha256(of.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def short_name(name: str) -> str:
    """Return a name of at most 255 bytes; a longer one is cut, and gets a digest before its ending."""
    written = name.encode("utf-8", "surrogateescape")
    if len(written) <= MAX_NAME_BYTES:
        return name
    return with_digest(written[:_CUT_BYTES].decode("utf-8", "ignore"), name) + os.path.splitext(name)[1][:8]


class Sample(NamedTuple):
    """An image of a packed data set.

    Attributes:
        folders: names of the folders below that of its class; () for none. Without a class it gets none of them: the
            first would be its class.
        name: name of the file to write, of any length.
        content: bytes of the image.
        labels: its different labels; () for none.
    """

    folders: tuple[str, ...]
    name: str
    content: bytes | bytearray | memoryview
    labels: tuple[str, ...]


class SampleFolder:
    """Writes samples to a new directory, which the caller deletes after an error; a context manager.

    The labels of an image can take a megabyte, so they are written at once and not kept.

    Args:
        target: the directory to create.
        budget: counts what is written beside the contents, which the readers count.

    Raises:
        OSError: the directory cannot be made.
    """

    def __init__(self, target: Path, budget: Budget) -> None:
        self._images, self._list = target / IMAGES, target / LABELS
        self._images.mkdir(parents=True)
        self._budget = budget
        self._folders = UnpackedFolders(self._images, self._charge)
        self._label_of: dict[str, str] = {}
        self._lines = open(self._list, "x", encoding="ascii")  # noqa: SIM115  # closed at the exit
        self._line_bytes, self._several = 0, False
        self.written = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()

    def write(self, samples: Iterable[Sample], seconds: float) -> None:
        """Write the samples of one file, with the time of its change.

        Raises:
            RefusedArchiveError: there are too many, one is there twice, a name cannot be written, or the list of labels
                would be too large to be read.
            OSError: the disk refuses.
        """
        for sample in samples:
            self.written += 1
            require_members(self.written + self._folders.made, "images and folders")
            self._charge()
            parents = [self._folder_of(sample.labels[0]), *sample.folders] if len(sample.labels) == 1 else []
            self._folders.make(parents)
            name = short_name(sample.name)
            self._write_file(self._images.joinpath(*parents, name), sample, seconds)
            if sample.labels:
                self._write_line("/".join((IMAGES, *parents, name)), sample.labels)
            del sample  # before the next one is read, so that only one image is in memory

    def finish(self) -> None:
        """Complete the list of labels, or delete it if no image has several; call this once, after the last sample.

        Raises:
            OSError: the disk refuses.
        """
        self._lines.close()
        if not self._several:
            self._list.unlink()

    def _write_line(self, path: str, labels: tuple[str, ...]) -> None:
        self._several = self._several or len(labels) > 1
        if self._line_bytes <= MAX_LIST_BYTES:
            line = json.dumps({"path": path, "labels": labels}) + "\n"
            self._line_bytes += len(line)
            if self._line_bytes <= MAX_LIST_BYTES:
                self._budget.charge(len(line))
                self._lines.write(line)
        if self._several and self._line_bytes > MAX_LIST_BYTES:  # without several, no list is needed
            raise RefusedArchiveError(f"its labels take more than {MAX_LIST_BYTES:,} bytes: give a part of it")

    def _folder_of(self, label: str) -> str:
        name = label.replace("/", SLASH)
        if name.startswith(".") or "\0" in name or len(name.encode()) > MAX_NAME_BYTES:
            raise RefusedArchiveError(
                f"the label {shown(label)} cannot be the name of a folder: expected at most {MAX_NAME_BYTES} bytes, "
                "and no dot at its beginning"
            )
        if self._label_of.setdefault(name, label) != label:
            raise RefusedArchiveError(f"the labels {shown(label)} and {shown(self._label_of[name])} look the same")
        if len(self._label_of) > MAX_CLASSES:
            raise RefusedArchiveError(f"it has more than {MAX_CLASSES:,} labels")
        return name

    def _write_file(self, path: Path, sample: Sample, seconds: float) -> None:
        with new_file(path, sample.name) as file:
            file.write(sample.content)
            file.flush()
            os.utime(file.fileno(), (seconds, seconds))

    def _charge(self) -> None:
        self._budget.charge(DISK_BLOCK)
