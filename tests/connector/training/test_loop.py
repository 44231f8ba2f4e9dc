"""Training: resumable to the same result, with the epoch chosen by validation, and with clear errors for misuse."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from semcut.connector.data.sources import ImageSet
from semcut.connector.data.training_digests import TrainingDigests
from semcut.connector.evaluation.rankings import RANKING_NAMES, compare
from semcut.connector.models.checkpoint import METRICS, TRAINING_IMAGES, Checkpoint
from semcut.connector.models.heads import HEADS
from semcut.connector.models.network import Architecture
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training import loop
from semcut.connector.training.loop import train
from semcut.connector.training.run_directory import begun_run
from semcut.connector.training.run_state import STATE, read_state, write_state
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import InvalidParameterError
from semcut.indexes.errors import CheckpointError, DataError, SemcutWarning
from tests.connector.training.stopping import Stop, stop_in


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    schedule: Literal["one-cycle", "cosine"], digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    images, config = digits.sample(100), TrainConfig(epochs=4, batch_size=32, seed=5, schedule=schedule)
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


def test_progress_counts_the_images_of_all_epochs_and_names_epoch_and_loss(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    """The last batch of each epoch has one image, which is left out of the training but counted at the end."""
    calls: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, task: str = "") -> None:
        calls.append((done, total, task))

    images = digits.sample(101)
    assert len(images.split(0.1)[0]) == 91
    train(images, architecture, TrainConfig(epochs=2, batch_size=30), tmp_path, progress=progress)
    assert [done for done, _, _ in calls] == [30, 60, 90, 91, 121, 151, 181, 182]
    assert {total for _, total, _ in calls} == {182}
    for number, (_, _, task) in enumerate(calls):
        assert re.fullmatch(rf"epoch {1 + number // 4}/2, loss \d+\.\d{{3}}", task)


def test_the_epoch_with_the_best_validation_is_kept(model: Checkpoint) -> None:
    lines = [json.loads(line) for line in (model.path / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    best = max(lines, key=lambda line: line["validation_hamming_map"] + line["validation_relevance_map"])
    assert model.training["kept"]["epoch"] == best["epoch"]
    assert best["validation_accuracy"] > 0.85
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.parametrize("figure", ["map", "accuracy"])
def test_the_best_epoch_is_chosen_by_codes_and_relevance_together(
    figure: str, digits: ImageSet, architecture: Architecture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Epochs are compared by mAP; by accuracy if each class has one validation image, because then there is no mAP."""
    names = ["validation_accuracy", "validation_hash_accuracy", "validation_loss"]
    epochs = [(0.9, 0.2, 0.1), (0.8, 0.7, 0.4), (0.7, 0.8, 0.3), (0.6, 0.8, 0.2)]
    if figure == "map":
        names += ["validation_relevance_map", "validation_hamming_map"]
        epochs = [(1.0, 1.0, loss, *two) for (*two, loss) in epochs]
    remaining = iter(epochs)
    monkeypatch.setattr(loop, "measure", lambda net, outputs: dict(zip(names, next(remaining), strict=True)))
    checkpoint = train(digits.sample(60), architecture, TrainConfig(epochs=4), tmp_path / "run")
    assert checkpoint.training["kept"]["epoch"] == 3


def test_validation_map_is_that_of_each_validation_image_as_a_query_among_the_others(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    _, held_out = digits.sample(600).split(model.training["config"]["validation"], model.training["config"]["seed"])
    encoder = Encoder(model)
    encodings = encoder.encode(list(held_out.files))
    assert len(held_out) > 20
    kept = model.training["kept"]
    precisions = []
    for row in range(len(held_out)):
        others = np.delete(np.arange(len(held_out)), row)
        found = compare(
            encodings[others], held_out.labels[others], encodings[row : row + 1], held_out.labels[row : row + 1],
            encoder.index_config(), ks=(1,), cutoffs=(-1.0,),
        )  # fmt: skip
        precisions.append([found.at_all[RANKING_NAMES.index(name), 0, 0] for name in ("hamming", "relevance")])
    hamming, by_relevance = np.mean(precisions, axis=0)
    assert kept["validation_hamming_map"] == pytest.approx(hamming, abs=1e-6)
    assert kept["validation_relevance_map"] == pytest.approx(by_relevance, abs=1e-3)


def test_there_is_no_validation_map_with_one_validation_image_of_each_class(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    kept = train(digits.sample(60), architecture, TrainConfig(epochs=1), tmp_path / "run").training["kept"]
    assert kept["validation_loss"] > 0
    assert "validation_hamming_map" not in kept


def test_the_training_images_are_recorded(model: Checkpoint, digits: ImageSet) -> None:
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
    with pytest.raises(CheckpointError, match=r"cannot be read .*: train into another directory"):
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
    with pytest.warns(SemcutWarning, match=r"left out 1 images .* is /.*bad\.png: not an image"):
        checkpoint = train(images, architecture, TrainConfig(epochs=1, augment="none"), tmp_path / "run")
    assert checkpoint.training_images() == list(sample.files[:-1])
    assert checkpoint.training["images"] == 99


def test_a_class_without_a_readable_image_is_one_error_before_anything_is_written(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    sample = digits.sample(100)
    (tmp_path / "bad.png").write_text("not an image")
    files = [
        str(tmp_path / "bad.png") if label == 3 else file
        for file, label in zip(sample.files, sample.labels, strict=True)
    ]
    with (
        pytest.warns(SemcutWarning, match="left out 11 images and classes"),
        pytest.raises(DataError, match="different classes"),
    ):
        train(ImageSet(tuple(files), sample.labels, sample.classes), architecture, TrainConfig(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("before", ["nothing", "an empty directory", "a missing parent"])
def test_a_training_that_fails_before_its_first_state_leaves_nothing_behind(
    before: str, digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    """As by Ctrl-C: the same command can be given again."""
    path = tmp_path / ("a/b/run" if "parent" in before else "run")
    if "empty" in before:
        path.mkdir()
    images, config = digits.sample(100), TrainConfig(epochs=1)
    with pytest.raises(Stop):
        train(images, architecture, config, path, progress=stop_in(0))
    assert [found.name for found in tmp_path.rglob("*")] == (["run"] if "empty" in before else [])
    train(images, architecture, config, path)


def test_more_images_than_a_run_directory_records_are_refused(tmp_path: Path) -> None:
    files = ["image.png"] * 2_000_001
    with (
        pytest.raises(DataError, match="2,000,001 images to train on, expected at most 2,000,000"),
        begun_run(tmp_path / "run", files, TrainingDigests(frozenset(), frozenset())),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_digests_of_the_training_and_validation_images_are_recorded(model: Checkpoint, digits: ImageSet) -> None:
    config = model.training["config"]
    parts = digits.sample(600).split(config["validation"], config["seed"])
    expected = [{hashlib.blake2b(Path(file).read_bytes(), digest_size=16).digest() for file in p.files} for p in parts]
    assert model.training_digests() == (expected[0], expected[1])
    assert model.training_digests().all == expected[0] | expected[1]


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": -1}, {"validation": 1.0}, {"augment": "spin"}]
)
def test_settings_are_validated(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_a_device_that_cannot_be_used_is_one_error(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="use cpu"):
        train(digits.sample(50), architecture, TrainConfig(device="nonsense"), tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU that it can use")
@pytest.mark.parametrize("freeze", [False, True])
def test_training_on_a_gpu_learns_the_same_classes(
    freeze: bool, digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    for head in HEADS:
        config = TrainConfig(epochs=5, augment="shift", calibrate=True, device="cuda", freeze=freeze)
        named = architecture.model_copy(update={"head": head})
        kept = train(digits.sample(600), named, config, tmp_path / head).training["kept"]
        assert kept["validation_accuracy"] > 0.6
        assert kept["validation_hamming_map"] > 0.4


def test_calibration_changes_the_confidence_of_the_network_and_nothing_else(
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
    first, second = (Encoder(checkpoint).encode(files) for checkpoint in (plain, Checkpoint.load(calibrated.path)))
    assert (first.codes == second.codes).all()
    assert (first.features == second.features).all()
    assert (first.probabilities.argmax(axis=1) == second.probabilities.argmax(axis=1)).all()
    expected = first.probabilities.astype(float) ** (1 / fitted)
    assert second.probabilities == pytest.approx(expected / expected.sum(axis=1, keepdims=True), abs=1e-6)


def test_a_state_that_does_not_fit_is_one_error(digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    images, config, path = digits.sample(30), TrainConfig(epochs=1), tmp_path / "run"
    train(images, architecture, config, path)
    groups, content = read_state(path / STATE, 1 << 30)
    small = {"x": torch.zeros(1)}
    net, best, optimiser = (groups[name] for name in ("net", "best", "optimiser"))
    (line,), weight, variance = content["metrics"], "hash.bias", next(key for key in net if "running_var" in key)
    for damaged, text in (
        ({**groups, "best": {**best, weight: best[weight][:3]}}, content),
        ({**groups, "best": {**best, weight: best[weight].to(torch.int32)}}, content),
        ({**groups, "best": {**best, weight: best[weight] + 3e38}}, content),
        ({**groups, "best": {key: value for key, value in best.items() if key != weight}}, content),
        ({**groups, "net": {**net, variance: net[variance] - 1e6}}, content),
        ({**groups, "net": {**net, "temperature": net["temperature"] * 0}}, content),
        ({**groups, "optimiser": {**optimiser, "0.exp_avg": torch.zeros(1)}}, content),
        ({**groups, "optimiser": {**optimiser, "0.exp_avg_sq": -optimiser["0.exp_avg_sq"] - 1}}, content),
        ({**groups, "optimiser": {**optimiser, "0.step": torch.tensor(-3.0)}}, content),
        ({**groups, "optimiser": {**optimiser, "999.step": torch.tensor(1.0)}}, content),
        ({**groups, "optimiser": {"0.step": torch.tensor(1.0)}}, content),
        ({**groups, "other": small}, content),
        (groups, {**content, "metrics": []}),
        (groups, {**content, "metrics": [line, line]}),
        (groups, {**content, "metrics": [{**line, "epoch": 2}]}),
        (groups, {**content, "metrics": [{**line, "loss": "\x1b[31m"}]}),
        (groups, {**content, "metrics": [{**line, "loss": 10**400}]}),
        (groups, {**content, "best": {}}),
        (groups, {**content, "best": {**content["best"], "validation_loss": None}}),
        (groups, {**content, "best": {"epoch": 1}, "metrics": [{"epoch": 1}]}),
        (groups, {**content, "scaler": {"scale": 1.0}}),
        ({**groups, "net": small}, content),
        ({"best": small}, content),
        ({**groups, "optimiser": {"x.y": torch.zeros(1)}}, content),
        ({**groups, "net": {**groups["net"], "hash.bias": torch.full((64,), float("nan"))}}, content),
        (groups, {}),
        (groups, {**content, "settings": []}),
        (groups, {**content, "metrics": [3]}),
        (groups, {**content, "scaler": None}),
        (groups, []),
    ):
        write_state(path / STATE, damaged, text)
        with pytest.raises(CheckpointError, match=r"cannot be read .*: train into another directory"):
            train(images, architecture, config, path, resume=True)


def test_names_of_images_that_no_text_file_can_hold(
    digits: ImageSet, architecture: Architecture, tmp_path: Path
) -> None:
    """Bytes that are not UTF-8 and separators of lines are kept in the list of images; a line break is refused."""
    files = [shutil.copyfile(file, tmp_path / Path(file).name) for file in digits.sample(100).files]
    odd = tmp_path / "\udcff\x85\u2028.png"
    files[7] = files[7].rename(odd)
    images = ImageSet(tuple(map(str, files)), digits.sample(100).labels, digits.classes)
    checkpoint = train(images, architecture, TrainConfig(epochs=1), tmp_path / "run")
    assert checkpoint.training_images() == list(images.files)
    broken = ImageSet((*images.files[:-1], str(tmp_path / "a\nb.png")), images.labels, images.classes)
    with pytest.raises(DataError, match="line break"):
        train(broken, architecture, TrainConfig(epochs=1), tmp_path / "other")
