"""Training: resumable to the same result, chosen by validation, and clear about misuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from connector.checkpoint import TRAINING_IMAGES, Checkpoint
from connector.data import ImageSet
from connector.errors import CheckpointError, DataError
from connector.model import Architecture
from connector.training import METRICS, STATE, TrainConfig, augment, train
from indexes import InvalidParameterError


class Stop(Exception):
    pass


def stop_in(epoch: int):
    def progress(now: int, seen: int, of: int, loss: float) -> None:
        if now == epoch and seen > of // 2:
            raise Stop

    return progress


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    schedule: str, digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(200), TrainConfig(epochs=4, schedule=schedule, seed=5)
    straight = train(images, architecture, config, tmp_path / "straight")
    for epoch in (0, 2, 3):
        with pytest.raises(Stop):
            train(images, architecture, config, tmp_path / "stopped", resume=True, progress=stop_in(epoch))
    resumed = train(images, architecture, config, tmp_path / "stopped", resume=True)
    assert resumed.digest == straight.digest
    expected = load_file(tmp_path / "straight" / STATE)
    for key, value in load_file(tmp_path / "stopped" / STATE).items():
        assert torch.equal(value, expected[key]), key


def test_another_seed_gives_another_network(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images = digits.sample(100)
    digests = {
        train(images, architecture, TrainConfig(epochs=1, seed=seed), tmp_path / str(run)).digest
        for run, seed in enumerate((0, 0, 1))
    }
    assert len(digests) == 2


def test_the_epoch_with_the_best_validation_is_kept(model: Checkpoint) -> None:
    lines = [json.loads(line) for line in (model.path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    best = min(lines, key=lambda line: (-line["validation_accuracy"], line["validation_loss"]))
    assert model.training["kept"]["epoch"] == best["epoch"]
    assert best["validation_accuracy"] > 0.85
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_images_used_are_recorded(model: Checkpoint, digits: ImageSet) -> None:
    assert model.training_images() == list(digits.sample(600).files)
    assert (model.path / TRAINING_IMAGES).is_file()


def test_a_run_with_other_settings_is_not_resumed(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images = digits.sample(100)
    with pytest.raises(Stop):
        train(images, architecture, TrainConfig(epochs=3), tmp_path, resume=True, progress=stop_in(1))
    before = (tmp_path / STATE).read_bytes()
    with pytest.raises(CheckpointError, match=r"other settings \(config\)"):
        train(images, architecture, TrainConfig(epochs=4), tmp_path, resume=True)
    assert (tmp_path / STATE).read_bytes() == before


def test_a_damaged_state_is_one_error(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="delete it to train from the start"):
        train(digits.sample(100), architecture, TrainConfig(epochs=1), tmp_path, resume=True)


def test_a_directory_in_use_is_not_written_to(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(DataError, match="exists already"):
        train(digits.sample(100), architecture, TrainConfig(epochs=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_loss_that_explodes_is_one_error(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower the learning rate"):
        train(digits.sample(200), architecture, TrainConfig(epochs=3, learning_rate=1e30), tmp_path)


def test_unreadable_training_images_are_left_out(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    sample = digits.sample(100)
    (tmp_path / "bad.png").write_text("not an image")
    images = ImageSet((*sample.files[:-1], str(tmp_path / "bad.png")), sample.labels, sample.classes)
    train(images, architecture, TrainConfig(epochs=1, augment="none"), tmp_path / "run")


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": -1}, {"validation": 1.0}, {"augment": "spin"}]
)
def test_settings_are_validated(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_a_device_that_is_not_there_says_so(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use cpu"):
        train(digits.sample(50), architecture, TrainConfig(device="nonsense"), tmp_path / "run")


def test_augmentation_moves_pixels_and_nothing_else() -> None:
    images = torch.rand(16, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 255
    moved = augment(images, "flip", torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    assert not torch.allclose(moved, images)
    assert moved.min() >= -1e-3
    assert moved.max() <= 255 + 1e-3
    assert torch.equal(moved, augment(images, "flip", torch.Generator().manual_seed(1)))
    assert torch.equal(augment(images, "none", torch.Generator()), images)


def test_only_flip_mirrors() -> None:
    """An image dark at the left and bright at the right stays so, unless it is mirrored."""
    images = torch.linspace(0, 255, 32).expand(64, 3, 32, 32).contiguous()

    def mirrored(kind: str) -> float:
        moved = augment(images, kind, torch.Generator().manual_seed(2))
        return (moved[..., :10].mean(dim=(1, 2, 3)) > moved[..., -10:].mean(dim=(1, 2, 3))).float().mean().item()

    assert mirrored("shift") == 0
    assert 0.2 < mirrored("flip") < 0.8
