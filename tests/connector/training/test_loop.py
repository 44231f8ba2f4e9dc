"""Training: resumable to the same result, chosen by validation, and clear about misuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from semcut.connector.data.images import load, read_batches
from semcut.connector.data.sources import ImageSet
from semcut.connector.evaluation.rankings import RANKING_NAMES, compare
from semcut.connector.models.checkpoint import TRAINING_IMAGES, Checkpoint
from semcut.connector.models.heads import HEADS
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training import loop
from semcut.connector.training.augment import augment
from semcut.connector.training.frozen_features import kept_outputs, outputs_of
from semcut.connector.training.loop import METRICS, STATE, TrainConfig, train
from semcut.indexes import InvalidParameterError
from semcut.indexes.errors import CheckpointError, DataError


class Stop(Exception):
    pass


def stop_in(epoch: int):
    def progress(now: int, seen: int, of: int, loss: float) -> None:
        if now == epoch and seen > of // 2:
            raise Stop

    return progress


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    schedule: Literal["one-cycle", "cosine"], digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(200), TrainConfig(epochs=4, seed=5, schedule=schedule)
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
    best = max(lines, key=lambda line: line["validation_hamming_map"] + line["validation_relevance_map"])
    assert model.training["kept"]["epoch"] == best["epoch"]
    assert best["validation_accuracy"] > 0.85
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.parametrize("found", ["map", "accuracy"])
def test_the_epoch_that_is_kept_is_good_for_codes_and_relevance(
    found: str, digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By mAP; where every class has one validation image, which cannot be searched for, by accuracy."""
    names = ["validation_accuracy", "validation_hash_accuracy", "validation_loss"]
    epochs = [(0.9, 0.2, 0.1), (0.8, 0.7, 0.4), (0.7, 0.8, 0.3), (0.6, 0.8, 0.2)]
    if found == "map":
        names += ["validation_relevance_map", "validation_hamming_map"]
        epochs = [(1.0, 1.0, loss, *two) for (*two, loss) in epochs]
    shown = iter(epochs)
    monkeypatch.setattr(loop, "measure", lambda net, answers: dict(zip(names, next(shown), strict=True)))
    checkpoint = train(digits.sample(60), architecture, TrainConfig(epochs=4), tmp_path / "run")
    assert checkpoint.training["kept"]["epoch"] == 3


def test_an_epoch_is_measured_by_searching_for_validation_images(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    _, held_out = digits.sample(600).split(model.training["config"]["validation"], model.training["config"]["seed"])
    encoder = Encoder(model)
    shown = encoder.encode(list(held_out.files))
    assert len(held_out) > 20
    kept = model.training["kept"]
    precisions = []
    for row in range(len(held_out)):
        others = np.delete(np.arange(len(held_out)), row)
        found = compare(
            shown[others], held_out.labels[others], shown[row : row + 1], held_out.labels[row : row + 1],
            encoder.index_config(), ks=(1,), cutoffs=(-1.0,),
        )  # fmt: skip
        precisions.append([found.at_all[RANKING_NAMES.index(name), 0, 0] for name in ("hamming", "relevance")])
    hamming, by_relevance = np.mean(precisions, axis=0)
    assert kept["validation_hamming_map"] == pytest.approx(hamming, abs=1e-6)
    assert kept["validation_relevance_map"] == pytest.approx(by_relevance, abs=1e-3)


def test_one_validation_image_of_a_class_is_not_searched_for(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    kept = train(digits.sample(60), architecture, TrainConfig(epochs=1), tmp_path / "run").training["kept"]
    assert kept["validation_loss"] > 0
    assert "validation_hamming_map" not in kept


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no card here that torch can use")
@pytest.mark.parametrize("freeze", [False, True])
def test_training_on_a_card_learns_the_same_classes(
    freeze: bool, digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    for head in HEADS:
        config = TrainConfig(epochs=5, augment="shift", calibrate=True, device="cuda", freeze=freeze)
        named = architecture.model_copy(update={"head": head})
        kept = train(digits.sample(600), named, config, tmp_path / head).training["kept"]
        assert kept["validation_accuracy"] > 0.6
        assert kept["validation_hamming_map"] > 0.4


def test_a_frozen_backbone_stays_as_it_is_and_the_rest_learns(digits: ImageSet, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs semcut[pretrained]")
    architecture = Architecture(backbone="efficientnet_lite0", classes=digits.classes, image_size=48, dim=32)
    config = TrainConfig(epochs=8, freeze=True, augment="flip", learning_rate=0.005, seed=3)
    images = digits.sample(300)
    straight = train(images, architecture, config, tmp_path / "straight", weights="imagenet")
    with pytest.raises(Stop):
        train(images, architecture, config, tmp_path / "stopped", weights="imagenet", progress=stop_in(4))
    resumed = train(images, architecture, config, tmp_path / "stopped", weights="imagenet", resume=True)
    assert resumed.digest == straight.digest
    before = SemanticHashNet(architecture, "imagenet").backbone.state_dict()
    after = straight.net.backbone.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    lines = [json.loads(line) for line in (tmp_path / "straight" / METRICS).read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert straight.training["kept"]["validation_accuracy"] > 0.6


def test_outputs_that_were_computed_once_are_those_of_the_network(architecture: Architecture) -> None:
    net, pixels = SemanticHashNet(architecture).eval(), torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    labels = torch.arange(7)
    outputs = outputs_of(net, [(pixels[:4], labels[:4]), (pixels[4:], labels[4:])], torch.device("cpu"), mirror=True)
    assert len(outputs) == 7
    seen = set()
    for seed in range(10):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        batches = list(outputs.batches(order, 3, torch.Generator().manual_seed(seed)))
        assert torch.cat([of_batch for _, of_batch in batches]).tolist() == order.tolist()
        for layers, of_batch in batches:
            for layer, label in zip(layers[0], of_batch.tolist(), strict=True):
                shown = [net.middle_outputs(one)[0][0] for one in (pixels[[label]], pixels[[label]].flip(3))]
                same = [torch.allclose(layer, one, atol=1e-5) for one in shown]
                assert any(same)
                seen.add((label, same.index(True)))
    assert len(seen) == 14


def reader():
    """A list, and a function that reads batches of images and notes in the list how many it was asked for."""
    read: list[int] = []

    def batches(wanted: ImageSet):
        read.append(len(wanted))
        for batch in read_batches(wanted.files, 16, 7):
            yield torch.from_numpy(batch.pixels), torch.from_numpy(wanted.labels[batch.positions])

    return read, batches


def test_outputs_are_kept_for_other_splits_and_heads(
    digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    images, cpu = digits.sample(60), torch.device("cpu")
    net, read, batches = SemanticHashNet(architecture).eval(), *reader()

    for seed in range(3):
        parts = images.split(0.3, seed)
        for part, outputs in zip(parts, kept_outputs(net, parts, batches, cpu, mirror=True), strict=True):
            assert outputs.labels.tolist() == part.labels.tolist()
            pixels = torch.stack([torch.from_numpy(load(file, 16)) for file in part.files])
            for copy, seen in zip(outputs.copies, (pixels, pixels.flip(3)), strict=True):
                assert torch.allclose(copy[0], net.middle_outputs(seen)[0], atol=1e-5)
    assert read == [60]
    kept_outputs(net, parts, batches, cpu, mirror=True, keep=False)
    kept_outputs(net, parts, batches, cpu, mirror=False)
    with torch.no_grad():
        next(net.backbone.parameters()).mul_(1.01)
    kept_outputs(net, parts, batches, cpu, mirror=True)
    assert read == [60] * 4
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    kept_outputs(net, parts, batches, cpu, mirror=True)
    monkeypatch.setenv("SEMCUT_CACHE", "/dev/null/nowhere")
    kept_outputs(net, parts, batches, cpu, mirror=True)
    assert read == [60] * 6


def test_outputs_without_some_that_could_not_be_read_are_not_kept(
    digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    some = digits.sample(20)
    images = ImageSet((str(broken), *some.files), np.concatenate([[3], some.labels]), some.classes)
    net, read, batches = SemanticHashNet(architecture).eval(), *reader()

    for _ in range(2):
        (outputs,) = kept_outputs(net, [images], batches, torch.device("cpu"), mirror=False)
        assert outputs.labels.tolist() == some.labels.tolist()
    assert read == [21, 21]


def test_calibration_changes_how_sure_the_network_is_and_nothing_else(
    digits: ImageSet, digits_test: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(300), TrainConfig(epochs=4, augment="shift")
    plain = train(images, architecture, config, tmp_path / "plain")
    calibrated = train(images, architecture, config.model_copy(update={"calibrate": True}), tmp_path / "calibrated")
    fitted = float(calibrated.net.temperature)
    assert float(plain.net.temperature) == 1
    assert fitted != pytest.approx(1, abs=1e-3)
    assert plain.digest != calibrated.digest
    files = list(digits_test.files[:50])
    first, second = (Encoder(one).encode(files) for one in (plain, Checkpoint.load(calibrated.path)))
    assert (first.codes == second.codes).all()
    assert (first.features == second.features).all()
    assert (first.probabilities.argmax(axis=1) == second.probabilities.argmax(axis=1)).all()
    expected = first.probabilities.astype(float) ** (1 / fitted)
    assert second.probabilities == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-6)


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
    assert 0.2 < mirrored("strong") < 0.8


def test_strong_augmentation_changes_colours_and_covers_a_square_of_half_of_the_images() -> None:
    images = torch.rand(64, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 50 + 100
    moved = augment(images, "strong", torch.Generator().manual_seed(1))
    assert 0 <= moved.min() <= moved.max() <= 255
    means = moved.mean(dim=(1, 2, 3))
    assert 85 < means.min() < 100
    assert 150 < means.max() < 165
    for image in moved:
        same = (image[:, 1:] == image[:, :-1]).all(dim=0)
        rows, columns = same.any(dim=1).sum().item(), same.any(dim=0).sum().item()
        assert (rows, columns) == (0, 0) or (0.15 * 40 <= columns <= 0.55 * 40 and abs(rows + 1 - columns) <= 1)
    covered = [(image[:, 1:] == image[:, :-1]).all(dim=0).any().item() for image in moved]
    assert 0.3 < sum(covered) / 64 < 0.7


def test_a_network_goes_on_from_another(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images = digits.sample(200)
    first = train(images, architecture, TrainConfig(epochs=3, freeze=True, calibrate=True), tmp_path / "first")
    config = TrainConfig(epochs=1, learning_rate=1e-9, augment="none")
    second = train(images, architecture, config, tmp_path / "second", start=tmp_path / "first")
    assert second.training["start"]["sha256"] == first.digest
    assert second.training["start"]["config"]["freeze"]
    assert float(second.net.temperature) == 1
    for (name, one), other in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    longer = TrainConfig(epochs=2, learning_rate=1e-9, augment="none")
    with pytest.raises(Stop):
        train(images, architecture, longer, tmp_path / "stopped", start=tmp_path / "first", progress=stop_in(1))
    with pytest.raises(CheckpointError, match=r"has other settings \(start\)"):
        train(images, architecture, longer, tmp_path / "stopped", resume=True)


def test_a_network_goes_on_with_larger_images(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images, config = digits.sample(200), TrainConfig(epochs=2, learning_rate=1e-9, augment="none")
    small = architecture.model_copy(update={"image_size": architecture.image_size // 2})
    first = train(images, small, TrainConfig(epochs=3), tmp_path / "first")
    second = train(images, architecture, config, tmp_path / "second", start=tmp_path / "first")
    third = train(images, architecture, config, tmp_path / "third", start=tmp_path / "second")
    assert second.net.architecture == architecture
    assert second.training["start"]["architecture"] == small.model_dump(mode="json")
    for (name, one), other in zip(first.net.named_parameters(), second.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
    assert [line["epoch"] for line in third.epochs()] == [1, 2, 3, 1, 2, 1, 2]
    assert third.epochs()[:3] == first.epochs()


def test_a_network_starts_only_from_one_that_has_not_learned_its_validation_images(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(100), TrainConfig(epochs=1)
    train(images, architecture, config, tmp_path / "first")
    for case, (others, made, settings, reason) in enumerate(
        [
            (
                images,
                architecture.model_copy(update={"head": "csq"}),
                {},
                "another architecture .head 'paper', expected",
            ),
            (digits.sample(120), architecture, {}, "was trained on other images"),
            (images, architecture, {"seed": 1}, r"kept others for validation \(seed 0, validation 0.1\)"),
            (images, architecture, {"validation": 0.2}, "kept others for validation"),
        ]
    ):
        with pytest.raises(CheckpointError, match=reason):
            train(others, made, TrainConfig(epochs=1, **settings), tmp_path / f"case {case}", start=tmp_path / "first")
        assert not (tmp_path / f"case {case}").exists()
