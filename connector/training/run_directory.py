"""Begin a run directory: record the training images, and leave nothing behind if no epoch is finished.

What the directory has is compared before the first write: neither the record of the images that a network was trained
on nor the network is replaced by those of another training.

A run that is stopped before its first state is written has nothing to resume. Its directory would only keep the same
command from being given again, so what the run has written is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from semcut.connector.data.model_file import MODEL, WEIGHTS
from semcut.connector.data.sources import ImageSet
from semcut.connector.data.training_digests import TRAINING_DIGESTS, TrainingDigests, stored_digests, write_digests
from semcut.connector.models.checkpoint import MOST_IMAGES, TRAINING_IMAGES, Checkpoint, disk_errors
from semcut.connector.training.run_state import STATE
from semcut.indexes.errors import CheckpointError, DataError, shown
from semcut.indexes.regular_files import read_bytes
from semcut.indexes.storage.atomic_write import replacing

_BEFORE_STATE = re.compile(rf"{re.escape(TRAINING_IMAGES)}|{re.escape(TRAINING_DIGESTS)}|.+\.[0-9a-f]{{16}}\.new")
"""What a training that was killed before its first state leaves: its record, and a file that it was writing."""


def require_one_line_each(files: Sequence[str]) -> None:
    """Raise a `DataError` if the path of an image has a line break, because the list of images has a line for each."""
    if broken := [file for file in files if "\n" in file]:
        raise DataError(
            f"{shown(broken[0])} has a line break in its path, which {TRAINING_IMAGES} cannot hold: rename it"
        )


def contents_of(*parts: ImageSet) -> str:
    """Compute one digest, in hexadecimal, of the contents and the labels of images in their order.

    All of these decide what a training learns. The names of the files do only by the order that they give.

    Args:
        parts: the images for training and those for validation, with digests.
    """
    digest = hashlib.blake2b(digest_size=16)
    for images in parts:
        digest.update(len(images).to_bytes(8, "little"))
        digest.update(images.labels.astype("<i8").tobytes())
        digest.update(b"".join(images.digests or ()))
    return digest.hexdigest()


def require_place(path: Path, resume: bool) -> bool:
    """Check that a training may use a directory, before the images are read.

    Args:
        path: the run directory.
        resume: whether the training may continue the one that is there.

    Returns:
        Whether the directory has a state to resume from.

    Raises:
        DataError: without a state to resume from, it is no new or empty directory; with `resume`, it may also have what
            a training leaves that was killed before its first state.
        CheckpointError: it has a network, which a new training would replace, but no state; or the disk refuses.
    """
    if resume and os.path.lexists(path / STATE):
        return True
    with disk_errors(path):
        if os.path.lexists(path) and not path.is_dir():
            raise DataError(f"{path} is not a directory: choose another")
        names = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    if names and not resume:
        raise DataError(f"{path} exists already: choose another directory, or resume the run in it")
    for name in names:
        if name in (MODEL, WEIGHTS):
            raise CheckpointError(
                f"{path} has a network ({name}), but no {STATE} to resume from: train into another directory"
            )
        if not _BEFORE_STATE.fullmatch(name):
            raise _other_content(path, name)
    return False


def _other_content(path: Path, name: str) -> DataError:
    return DataError(
        f"{path} has {shown(name)}, which is not of this training, and no {STATE} to resume from: move it away, or "
        "train into another directory"
    )


def finished_network(path: Path, settings: Mapping[str, Any], kept: Mapping[str, Any]) -> Checkpoint | None:
    """Load the network of a training that is finished already; None if the run directory has no network.

    Args:
        path: the run directory.
        settings: settings of the training, from its state.
        kept: metrics of the epoch that was kept, from its state.

    Raises:
        CheckpointError: the network is of another training, or cannot be loaded.
    """
    if not os.path.lexists(path / MODEL):
        return None
    found = Checkpoint.load(path)
    # as text, in which NaN is equal to itself
    if json.dumps(found.training, sort_keys=True) != json.dumps({**settings, "kept": kept}, sort_keys=True):
        raise CheckpointError(
            f"the network in {path} ({MODEL}) is not of the training whose state is there ({STATE}): train into "
            "another directory"
        )
    return found


@contextmanager
def begun_run(path: Path, files: Sequence[str], digests: TrainingDigests) -> Iterator[None]:
    """Make the run directory and record the training images; remove both if the block fails before its first epoch.

    A record that is there already stays: it is the same, or the directory has the state of this training.

    Args:
        path: the run directory.
        files: paths of all images, for people.
        digests: digests of the images, by which they are recognised.

    Raises:
        DataError: there are more images than a run directory records; or the directory has no state, and the record
            of other images.
    """
    if len(files) > MOST_IMAGES:
        raise DataError(f"there are {len(files):,} images to train on, expected at most {MOST_IMAGES:,}: choose some")
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    made = {name for name in (TRAINING_IMAGES, TRAINING_DIGESTS) if not os.path.lexists(path / name)}
    if not require_place(path, resume=True):
        record = {TRAINING_IMAGES: _text_of(files), TRAINING_DIGESTS: stored_digests(digests)}
        for name in sorted(record.keys() - made):
            if not _holds(path / name, record[name]):
                raise _other_content(path, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_lines(path / TRAINING_IMAGES, files)
        write_digests(path, digests)
        yield
    except BaseException:
        if not os.path.lexists(path / STATE):
            for name in made:
                with suppress(OSError):
                    (path / name).unlink()
            for folder in missing:
                with suppress(OSError):  # something else is in it
                    folder.rmdir()
        raise


def _holds(file: Path, content: bytes) -> bool:
    """Return whether a file has exactly this content."""
    try:
        return read_bytes(file, len(content)) == content
    except OSError:
        return False


def write_lines(file: Path, lines: Sequence[str]) -> None:
    """Write lines to a text file, in one step; replace the file if it exists."""
    with replacing(file) as scratch:
        scratch.write_bytes(_text_of(lines))


def _text_of(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
