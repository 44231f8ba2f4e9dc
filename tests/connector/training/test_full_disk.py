"""A disk that is full is one error of the operating system with the name of the file, and leaves nothing half written.

The limit for the size of a file acts as a full disk does: the write that would go beyond it fails.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semcut.connector.benchmark.measure.raw_results import save_arrays
from semcut.connector.cli.search_command import write_contact_sheet
from semcut.connector.data.training_digests import TrainingDigests, write_digests
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.training.run_directory import write_lines
from semcut.connector.training.run_state import write_state
from semcut.indexes import CheckpointError, DataError
from semcut.indexes.storage.atomic_write import replacing, write_file, write_json
from tests.command import semcut

ARCHITECTURE = Architecture(backbone="small", classes=("a", "b"), image_size=16)
NOISE = np.random.default_rng(0).integers(0, 255, 50_000, np.uint8)


@contextmanager
def full_disk(bytes_left: int = 2000) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_truth(file: Path) -> None:
    with replacing(file) as scratch, scratch.open("wb") as stream:
        np.savez(stream, noise=NOISE)


WRITERS: dict[str, Callable[[Path], object]] = {
    "training.safetensors": lambda file: write_state(file, {"net": {"a": torch.from_numpy(NOISE)}}, {}),
    "training-images.safetensors": lambda file: write_digests(
        file.parent, TrainingDigests(*2 * [frozenset(bytes(part) for part in NOISE.reshape(-1, 16))])
    ),
    "metrics.jsonl": lambda file: write_lines(file, [NOISE.tobytes().hex()]),
    "probes.npz": lambda file: save_arrays(file, {"noise": NOISE}),
    "truth.npz": save_truth,
    "run.json": lambda file: write_json(file, NOISE.tolist()),
    "plot.png": lambda file: write_file(file, NOISE.tobytes()),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_writer_names_the_file_and_leaves_what_was_there(name: str, before: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / name
    if before is not None:
        file.write_bytes(before)
    with full_disk(), pytest.raises(OSError, match="File too large") as caught:
        WRITERS[name](file)
    assert caught.value.filename == str(file)
    assert [(at, at.read_bytes()) for at in tmp_path.iterdir()] == ([] if before is None else [(file, before)])


@pytest.mark.parametrize("before", [None, b"before"])
def test_a_checkpoint_names_the_file_and_leaves_what_was_there(before: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    if before is not None:
        file.write_bytes(before)
    with full_disk(), pytest.raises(CheckpointError, match=f"{file} cannot be used: File too large"):
        Checkpoint.save(tmp_path, ARCHITECTURE, SemanticHashNet(ARCHITECTURE).state_dict(), {})
    assert [(at, at.read_bytes()) for at in tmp_path.iterdir()] == ([] if before is None else [(file, before)])


def test_a_contact_sheet_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    photo, sheet = tmp_path / "photo.png", tmp_path / "sheet.png"
    Image.fromarray(NOISE[:30_000].reshape(100, 100, 3)).save(photo)
    with full_disk(), pytest.raises(DataError, match=r"cannot write the picture .*sheet\.png: File too large"):
        write_contact_sheet([str(photo)], [[]], sheet)
    assert list(tmp_path.iterdir()) == [photo]
    (tmp_path / "link.png").symlink_to(sheet)
    write_contact_sheet([str(photo)], [[]], tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_training_on_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "d" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (16, 16), number).save(tmp_path / "d" / label / f"{number}.png")
    with full_disk(20 << 10):
        done = semcut("train", "d", "--out", "m", "--image-size", 16, "--epochs", 1, cwd=tmp_path, status=1)
    assert "m/training.safetensors cannot be used: File too large" in done.stderr.splitlines()[-1]
    assert sorted(at.name for at in tmp_path.iterdir()) == ["d"]
