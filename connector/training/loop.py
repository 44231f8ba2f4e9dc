"""Training a `SemanticHashNet`, in a way that can be stopped at any time and resumed to the same result.

Everything random in an epoch (order, augmentation, dropout) is drawn from the seed and the epoch's number, and the
learning rate is a function of the step alone, so the state after an epoch decides all that follows. That state, the
weights and optimiser and the best weights so far, is written in one step after every epoch to `training.safetensors`;
on the same machine with the same number of threads, a resumed run ends with the same weights, bit for bit.

The epoch that is kept is the one that finds images of a validation part of the training images best: see `validation`.
Queries and test images are never looked at.

A run directory holds `metrics.jsonl` (a line per epoch), `training-images.txt`, `training.safetensors`, and, once
training is done, the checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import METRICS, TRAINING_IMAGES, Checkpoint
from semcut.connector.models.heads import total_loss
from semcut.connector.models.network import Architecture, Output, SemanticHashNet, device_named
from semcut.connector.training.augment import augment
from semcut.connector.training.batches import labelled_batches
from semcut.connector.training.calibration import temperature
from semcut.connector.training.frozen_features import Layers, Outputs, kept_outputs, others_have_it
from semcut.connector.training.run_state import read_state, write_state
from semcut.connector.training.validation import measure, quality
from semcut.connector.training.warm_start import beginning
from semcut.indexes.config import Settings
from semcut.indexes.errors import CheckpointError, DataError

STATE = "training.safetensors"

Progress = Callable[[int, int, int, float], None]
"""Called after every step with the epoch, the images seen in it, the images of an epoch, and the loss."""


Inputs = torch.Tensor | Layers
"""Pixels, or what a frozen backbone has made of them."""


class TrainConfig(Settings):
    """How to train.

    Attributes:
        epochs, batch_size: as usual; a last batch of one image is left out.
        learning_rate: the highest of the schedule, for the two branches.
        backbone_rate: its share for the backbone, small for a pretrained one.
        schedule: "one-cycle" (up over the first 20 % of the steps, then down) or "cosine" (down from the start).
        weight_decay: of AdamW.
        label_smoothing, hash_weight: see `losses`.
        freeze: leave the backbone as it is, and compute what it makes of every image once: see `frozen`.
        calibrate: fit a temperature on the validation part: see `calibration`.
        augment: "none"; "shift" moves, scales and turns a little; "flip" also mirrors; "strong" also changes colours
            and covers a square, for few images and many epochs.
        validation: share of the images of each class kept to choose the epoch.
        seed: of everything random.
        workers: threads that decode images.
        device: "cpu", "cuda", "cuda:0"; mixed precision is used on CUDA.
    """

    epochs: int = Field(default=30, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=2, le=65_536)
    learning_rate: float = Field(default=3e-3, gt=0)
    backbone_rate: float = Field(default=1.0, ge=0, le=1)
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"
    weight_decay: float = Field(default=1e-2, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    hash_weight: float = Field(default=1.0, ge=0)
    freeze: bool = False
    calibrate: bool = False
    augment: Literal["none", "shift", "flip", "strong"] = "flip"
    validation: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    workers: int = Field(default=2, ge=1, le=256)
    device: str = "cpu"


def train(
    images: ImageSet,
    architecture: Architecture,
    config: TrainConfig,
    path: str | os.PathLike[str],
    *,
    weights: str | None = None,
    start: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Train a network and write its checkpoint.

    Args:
        images: to train on; a validation part is split off.
        architecture: with the classes of `images`.
        config: how.
        path: the run directory: new, empty, or with `resume` that of an unfinished run.
        weights: of the backbone to start from, see `backbones`.
        start: run directory of a network whose weights to start from instead, of the same architecture, or of one that
            differs in the size of images alone. It was trained on the same images with the same part for validation,
            so that none of that part has been learned.
        resume: go on where an earlier run in `path` with the same settings stopped; start if there is none.
        progress: told of every step.

    Raises:
        DataError: the directory is in use, or images cannot be read.
        CheckpointError: the state in `path` is of a run with other settings, or the network to start from is of another
            architecture or of other images.
    """
    path = Path(path)
    if images.classes != architecture.classes:
        raise DataError(f"the images have {len(images.classes)} classes, the network {len(architecture.classes)}")
    if not resume and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists already: choose another directory, or resume the run in it")
    part, held_out = images.split(config.validation, config.seed)
    if len(part) < 2:
        raise DataError(f"{len(part)} images are left for training after validation, expected at least 2")
    run = _Run(part, held_out, architecture, config, path, weights, start, progress)
    path.mkdir(parents=True, exist_ok=True)
    (path / TRAINING_IMAGES).write_text("".join(f"{file}\n" for file in images.files))
    return run.finish(resume)


class _Run:
    """One training run: the network, its optimiser, and the best weights so far."""

    def __init__(
        self,
        part: ImageSet,
        held_out: ImageSet,
        architecture: Architecture,
        config: TrainConfig,
        path: Path,
        weights: str | None,
        start: str | os.PathLike[str] | None,
        progress: Progress | None,
    ) -> None:
        self._part, self._config, self._path = part, config, path
        self._held_out = held_out.subset(np.random.default_rng(config.seed).permutation(len(held_out)))
        self._architecture, self._progress = architecture, progress
        begin = (
            None
            if start is None
            else beginning(start, [*part.files, *held_out.files], architecture, config.seed, config.validation)
        )
        self._settings = {
            "config": config.model_dump(mode="json", exclude={"workers", "device"}),
            "architecture": architecture.model_dump(mode="json"),
            "backbone_weights": weights,
            **(
                {} if begin is None else {"start": {"sha256": begin.digest, **begin.training, "epochs": begin.epochs()}}
            ),
            "images": len(part) + len(held_out),
        }
        torch.manual_seed(config.seed)
        self._device = device_named(config.device)
        net = SemanticHashNet(architecture, weights) if begin is None else begin.net
        net.temperature.fill_(1)
        self._net = net.to(self._device).to(memory_format=torch.channels_last)
        backbone = list(self._net.backbone.parameters())
        ours = {id(parameter) for parameter in backbone}
        self._optimiser = torch.optim.AdamW(
            [
                {"params": backbone, "share": config.backbone_rate},
                {"params": [p for p in self._net.parameters() if id(p) not in ours], "share": 1.0},
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._device.type == "cuda")
        self._outputs: Outputs | None = None
        self._held_out_outputs: Outputs | None = None
        self._best: dict[str, torch.Tensor] = {}
        self._best_metrics: dict[str, Any] = {}
        self._metrics: list[dict[str, Any]] = []

    def finish(self, resume: bool) -> Checkpoint:
        if resume and (self._path / STATE).is_file():
            self._load()
        start = time.perf_counter()
        if self._config.freeze and len(self._metrics) < self._config.epochs:
            self._net.eval()
            mirror = self._config.augment in ("flip", "strong")
            parts = (self._part, self._held_out)
            keep = others_have_it(self._settings)
            self._outputs, held_out = kept_outputs(
                self._net, parts, self._batches, self._device, mirror=mirror, keep=keep
            )
            self._held_out_outputs = Outputs(held_out.copies[:1], held_out.labels)
        for epoch in range(len(self._metrics), self._config.epochs):
            loss, rate = self._train_epoch(epoch)
            metrics = {"epoch": epoch + 1, "loss": loss, "learning_rate": rate}
            metrics |= measure(self._net, self._held_out_answers())
            if not self._best_metrics or quality(metrics) > quality(self._best_metrics):
                self._best_metrics = metrics
                self._best = {key: value.detach().cpu().clone() for key, value in self._net.state_dict().items()}
            self._metrics.append({**metrics, "seconds": round(time.perf_counter() - start, 2)})
            self._save()
            start = time.perf_counter()
        if self._config.calibrate:
            self._net.load_state_dict(self._best)
            logits, labels = self._held_out_logits()
            self._best["temperature"] = torch.tensor(temperature(logits, labels), dtype=torch.float64)
        Checkpoint.save(self._path, self._architecture, self._best, {**self._settings, "kept": self._best_metrics})
        return Checkpoint.load(self._path)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        config, net = self._config, self._net.train()
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = torch.randperm(len(self._part), generator=generator).tolist()
        steps = math.ceil(len(order) / config.batch_size)
        total, seen, rate = 0.0, 0, 0.0
        if self._outputs is not None:
            net.backbone.eval()
        for step, (inputs, labels) in enumerate(self._inputs(order, generator)):
            if len(labels) < 2:  # batch normalisation cannot learn from one image
                continue
            rate = config.learning_rate * _rate(epoch * steps + step, config.epochs * steps, config.schedule)
            for group in self._optimiser.param_groups:
                group["lr"] = rate * group["share"]
            with self._precision():
                loss = self._loss(self._answers(inputs), labels)
            self._optimiser.zero_grad()
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimiser)
            self._scaler.update()
            value = loss.item()
            if not math.isfinite(value):
                raise DataError(f"the loss became {value} in epoch {epoch + 1}: lower the learning rate")
            total, seen = total + value * len(labels), seen + len(labels)
            if self._progress is not None:
                self._progress(epoch, seen, len(order), value)
        return total / max(1, seen), rate

    def _inputs(self, order: list[int], generator: torch.Generator) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """What the network is trained on in an epoch, batch by batch, with labels."""
        if self._outputs is not None:
            places = torch.tensor(order)
            yield from self._outputs.batches(places[places < len(self._outputs)], self._config.batch_size, generator)
            return
        for pixels, labels in self._batches(self._part.subset(order)):
            yield augment(pixels.float(), self._config.augment, generator), labels

    def _answers(self, inputs: Inputs) -> Output:
        if isinstance(inputs, tuple):
            return self._net.answers(tuple(layer.to(self._device) for layer in inputs))
        output: Output = self._net(inputs.to(self._device).contiguous(memory_format=torch.channels_last))
        return output

    def _loss(self, output: Output, labels: torch.Tensor) -> torch.Tensor:
        return total_loss(
            self._net.head,
            output.logits,
            output.hash,
            labels.to(self._device),
            hash_weight=self._config.hash_weight,
            label_smoothing=self._config.label_smoothing,
        )

    @torch.no_grad()
    def _held_out_answers(self) -> Iterator[tuple[Output, torch.Tensor]]:
        """Answers for the validation images, batch by batch, with labels."""
        self._net.eval()
        batches: Iterator[tuple[Inputs, torch.Tensor]] = self._batches(self._held_out)
        if self._held_out_outputs is not None:
            every, size = torch.arange(len(self._held_out_outputs)), self._config.batch_size
            batches = self._held_out_outputs.batches(every, size, torch.Generator())
        for inputs, labels in batches:
            with self._precision():
                output = self._answers(inputs)
            yield output, labels.to(self._device)

    def _held_out_logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [(output.logits.float().cpu(), labels.cpu()) for output, labels in self._held_out_answers()]
        return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])

    def _batches(self, images: ImageSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size, config = self._architecture.image_size, self._config
        return labelled_batches(images, size, config.batch_size, config.workers)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.float16) if self._device.type == "cuda" else nullcontext()

    def _save(self) -> None:
        """Write the state after an epoch, then the metrics."""
        optimiser = self._optimiser.state_dict()["state"]
        groups = {
            "net": self._net.state_dict(),
            "best": self._best,
            "optimiser": {f"{number}.{key}": value for number, of in optimiser.items() for key, value in of.items()},
        }
        content = {
            "settings": self._settings,
            "metrics": self._metrics,
            "best": self._best_metrics,
            "scaler": self._scaler.state_dict(),
        }
        write_state(self._path / STATE, groups, content)
        (self._path / METRICS).write_text("".join(f"{json.dumps(line)}\n" for line in self._metrics))

    def _load(self) -> None:
        groups, content = read_state(self._path / STATE)
        if content["settings"] != self._settings:
            before, now = content["settings"], self._settings
            different = [key for key in {**now, **before} if before.get(key) != now.get(key)]
            raise CheckpointError(
                f"the run in {self._path} has other settings ({', '.join(different)}): resume with the same ones "
                "and the same version of semcut, or train into another directory"
            )
        self._net.load_state_dict(groups["net"])
        self._best, self._best_metrics, self._metrics = groups["best"], content["best"], content["metrics"]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in groups.get("optimiser", {}).items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        of_groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state, "param_groups": of_groups})
        if content["scaler"]:
            self._scaler.load_state_dict(content["scaler"])


def _rate(step: int, steps: int, schedule: str) -> float:
    """Share of the highest learning rate at a step."""
    warm = 0.2 * steps if schedule == "one-cycle" else 0.0
    if step < warm:
        return 0.04 + 0.96 * step / warm
    return 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))
