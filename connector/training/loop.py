"""Train a `SemanticHashNet` so that the training can be stopped at any time and resumed to the same result.

All randomness of an epoch (order, augmentation, dropout) depends only on the seed and the number of the epoch, and the
learning rate depends only on the step. So the state after an epoch determines all later epochs. This state consists of
the network, the optimiser and the best weights so far, and is written in one step after every epoch, see `run_state`.
On the same machine with the same number of threads, a resumed training ends with the same weights, bit for bit.

The weights of the epoch with the best results on validation images are kept, see `validation`. Validation images are
held out from the training images; queries and test images are not used in training.

A run directory has the files `metrics.jsonl` (a line for each epoch), `training-images.txt`,
`training-images.safetensors` (digests of their contents), `training.safetensors` and, when the training is finished,
the checkpoint. A training that fails before the first state is written leaves nothing behind. The state is compared
with the settings and the images before anything is written, and a finished network is never replaced.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semcut.connector.data.label_sets import require_one_label
from semcut.connector.data.sources import ImageSet
from semcut.connector.data.training_digests import TrainingDigests
from semcut.connector.models.checkpoint import METRICS, Checkpoint, disk_errors
from semcut.connector.models.device import device_named
from semcut.connector.models.heads import total_loss
from semcut.connector.models.network import Architecture, Output, SemanticHashNet
from semcut.connector.training.batches import NumberedFiles, augment, checked_images, epoch_order, labelled_batches
from semcut.connector.training.calibration import fit_temperature
from semcut.connector.training.class_growth import digests_with, divided, freeze_codes
from semcut.connector.training.default_network import require_trained_backbone
from semcut.connector.training.frozen_features import FrozenFeatures, Layers, cached_features, has_shared_backbone
from semcut.connector.training.run_directory import (
    begun_run,
    contents_of,
    finished_network,
    require_one_line_each,
    require_place,
    write_lines,
)
from semcut.connector.training.run_state import (
    STATE,
    largest_state,
    optimiser_tensors,
    read_state,
    require_same_settings,
    require_state_of,
    restore_optimiser,
    unusable,
    write_state,
)
from semcut.connector.training.train_config import TrainConfig
from semcut.connector.training.validation import measure, quality
from semcut.connector.training.warm_start import load_start, trained_net
from semcut.indexes.argument_checks import callback_given, flag_given, instance_given, path_given, possible_path_given
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress

Inputs = torch.Tensor | Layers
"""Pixels, or the outputs of a frozen backbone."""


def train(
    images: ImageSet,
    architecture: Architecture,
    config: TrainConfig,
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    start: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Train a network and write its checkpoint.

    Args:
        images: images to train on; some are held out for validation. Unless they have digests, as those of
            `readable_images`, they are checked first; what cannot be read is left out with a `SemcutWarning`.
        architecture: architecture of the network, with the classes of `images`; `start` changes their order.
        config: settings of the training.
        path: the run directory: new, empty, or with `resume` the directory of an unfinished training.
        weights: weights of the backbone to start from, see `backbones`.
        start: run directory of a trained network to start from (warm start) in place of `weights`. The network must
            have the same architecture; only the image size may differ, and there may be new classes (`class_growth`).
            Else it must have been trained on the same images, with the same ones held out for validation.
        resume: continue a stopped training in `path` with the same settings and images; start a new training if `path`
            has none. A finished network stays as it is.
        progress: called after every step with the number of images processed in all epochs so far, the number of images
            of all epochs together, and a task such as "epoch 3/30, loss 0.123".

    Raises:
        DataError: the directory is not empty, the path of an image has a line break, no image can be read, one has
            several labels, the device cannot be used, or the loss is not finite.
        CheckpointError: the disk refuses; `path` has the state or the network of a training with other settings or
            images; or the network to start from has another architecture or was trained on other images.
        InvalidParameterError: what is frozen comes from neither `weights` nor `start`; an argument is of another type.
    """
    instance_given("images", images, ImageSet, "semcut.connector.data.sources.load(folder) makes one")
    require_one_label(images.files, images.label_sets, "training")
    instance_given("architecture", architecture, Architecture)
    instance_given("config", config, TrainConfig)
    path = Path(possible_path_given("path", path))
    weights = None if weights is None else possible_path_given("weights", weights)
    start = None if start is None else path_given("start", start)
    resume = flag_given("resume", resume)
    callback_given("progress", progress)
    if config.freeze:
        require_trained_backbone(weights, start, codes=config.freeze_codes)
    has_state = require_place(path, resume)
    require_one_line_each(images.files)
    if images.digests is None:
        images = checked_images(images, config.workers)
    if images.classes != architecture.classes:
        raise DataError(
            f"the images and the network have different classes ({len(images.classes)} and {len(architecture.classes)})"
        )
    training, validation = divided(images, start, config.validation, config.seed)
    architecture = architecture.model_copy(update={"classes": training.classes})
    if len(training) < 2:
        raise DataError(f"only {len(training)} images are left for training after validation, expected at least 2")
    run = _Run(training, validation, architecture, config, path, weights, start, progress)
    with disk_errors(path):
        if has_state:
            run.load_state()
        with begun_run(path, images.files, run.digests):
            return run.finish()


class _Run:
    """One training: the network, its optimiser, the best weights so far, and the metrics of every epoch."""

    def __init__(
        self,
        training: ImageSet,
        validation: ImageSet,
        architecture: Architecture,
        config: TrainConfig,
        path: Path,
        weights: str | None,
        start: Path | None,
        progress: Progress | None,
    ) -> None:
        self._training, self._config, self._path = training, config, path
        self._validation = validation.subset(np.random.default_rng(config.seed).permutation(len(validation)))
        self._architecture, self._progress = architecture, progress
        assert training.digests is not None
        assert validation.digests is not None
        self.digests = TrainingDigests(frozenset(training.digests), frozenset(validation.digests))
        torch.manual_seed(config.seed)
        warm = None if start is None else load_start(start, self.digests, architecture)
        self.digests = self.digests if warm is None else digests_with(warm.training_digests(), self.digests)
        self._settings = {
            "config": config.model_dump(mode="json", exclude={"workers", "device"}, exclude_none=True),
            "architecture": architecture.model_dump(mode="json"),
            "backbone_weights": weights,
            **({} if warm is None else {"start": {"sha256": warm.digest, **warm.training, "epochs": warm.epochs()}}),
            "images": len(training) + len(validation),
            "image_contents": contents_of(training, validation),
        }
        self._device = device_named(config.device)
        net = SemanticHashNet(architecture, weights) if warm is None else trained_net(warm)
        net.temperature.fill_(1)
        self._fixed = freeze_codes(net) if config.freeze_codes else ()
        self._net = net.to(self._device).to(memory_format=torch.channels_last)
        backbone = list(self._net.backbone.parameters())
        backbone_ids = {id(parameter) for parameter in backbone}
        self._optimiser = torch.optim.AdamW(
            [
                {"params": backbone, "share": config.backbone_rate},
                {"params": [p for p in self._net.parameters() if id(p) not in backbone_ids], "share": 1.0},
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._device.type == "cuda")
        self._frozen: FrozenFeatures | None = None
        self._frozen_validation: FrozenFeatures | None = None
        self._best: dict[str, torch.Tensor] = {}
        self._best_metrics: dict[str, Any] = {}
        self._metrics: list[dict[str, Any]] = []
        self._finished: Checkpoint | None = None

    def finish(self) -> Checkpoint:
        """Train the remaining epochs, calibrate, and write the checkpoint, unless it is there already."""
        if self._finished is not None:
            return self._finished
        start = time.perf_counter()
        if self._config.freeze and len(self._metrics) < self._config.epochs:
            self._compute_frozen_features()
        for epoch in range(len(self._metrics), self._config.epochs):
            loss, rate = self._train_epoch(epoch)
            metrics = {"epoch": epoch + 1, "loss": loss, "learning_rate": rate}
            metrics |= measure(self._net, self._validation_outputs())
            if not self._best_metrics or quality(metrics) > quality(self._best_metrics):
                self._best_metrics = metrics
                self._best = {key: value.detach().cpu().clone() for key, value in self._net.state_dict().items()}
            self._metrics.append({**metrics, "seconds": round(time.perf_counter() - start, 2)})
            self._save_state()
            start = time.perf_counter()
        if self._config.calibrate:
            self._net.load_state_dict(self._best)
            logits, labels = self._validation_logits()
            self._best["temperature"] = torch.tensor(fit_temperature(logits, labels), dtype=torch.float64)
        self._save_metrics()  # a crash after the last state may have left those of fewer epochs
        Checkpoint.save(self._path, self._architecture, self._best, {**self._settings, "kept": self._best_metrics})
        return Checkpoint.load(self._path)

    def _compute_frozen_features(self) -> None:
        self._net.eval()
        self._frozen, validation = cached_features(
            self._net,
            (self._training, self._validation),
            self._read,
            self._device,
            mirror=self._config.augment in ("flip", "strong"),
            use_cache=has_shared_backbone(self._settings),
        )
        self._frozen_validation = FrozenFeatures(validation.layers, validation.labels)

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Train one epoch; return the mean loss and the learning rate of the last step."""
        config, net = self._config, self._net.train()
        generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
        torch.manual_seed(config.seed * 100_003 + epoch)
        order = epoch_order(self._training.labels, config.balance, generator)
        steps = math.ceil(len(order) / config.batch_size)
        total, seen, rate = 0.0, 0, 0.0
        if self._frozen is not None:
            net.backbone.eval()
        for layer in self._fixed:
            layer.eval()
        for step, (inputs, labels) in enumerate(self._inputs(order, generator)):
            if len(labels) < 2:  # batch normalisation cannot learn from one image
                continue
            rate = config.learning_rate_at(epoch * steps + step, config.epochs * steps)
            for group in self._optimiser.param_groups:
                group["lr"] = rate * group["share"]
            with self._precision():
                loss = self._loss(self._outputs(inputs), labels)
            self._optimiser.zero_grad()
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimiser)
            self._scaler.update()
            value = loss.item()
            if not math.isfinite(value):
                raise DataError(f"the loss became {value} in epoch {epoch + 1}: lower the learning rate")
            total, seen = total + value * len(labels), seen + len(labels)
            self._report(epoch, seen, len(order), value)
        mean_loss = total / max(1, seen)
        if seen < len(order):  # images that cannot be read, or a last batch of one image, were left out
            self._report(epoch, len(order), len(order), mean_loss)
        return mean_loss, rate

    def _report(self, epoch: int, seen: int, images: int, loss: float) -> None:
        """Report progress: how many images were processed so far, in this epoch and all earlier ones."""
        if self._progress is not None:
            epochs = self._config.epochs
            self._progress(images * epoch + seen, images * epochs, f"epoch {epoch + 1}/{epochs}, loss {loss:.3f}")

    def _inputs(self, order: list[int], generator: torch.Generator) -> Iterator[tuple[Inputs, torch.Tensor]]:
        """Yield the inputs and labels of an epoch, batch by batch."""
        if self._frozen is not None:
            rows = torch.tensor(order)
            yield from self._frozen.batches(rows[rows < len(self._frozen)], self._config.batch_size, generator)
            return
        for pixels, labels in self._read(self._training.subset(order)):
            yield augment(pixels.float(), self._config.augment, generator), labels

    def _outputs(self, inputs: Inputs) -> Output:
        if isinstance(inputs, tuple):
            return self._net.branch_outputs(tuple(layer.to(self._device) for layer in inputs))
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
    def _validation_outputs(self) -> Iterator[tuple[Output, torch.Tensor]]:
        """Yield the outputs and labels of the validation images, batch by batch."""
        self._net.eval()
        batches: Iterator[tuple[Inputs, torch.Tensor]] = self._read(self._validation)
        if self._frozen_validation is not None:
            order, size = torch.arange(len(self._frozen_validation)), self._config.batch_size
            batches = self._frozen_validation.batches(order, size, torch.Generator())
        for inputs, labels in batches:
            with self._precision():
                output = self._outputs(inputs)
            yield output, labels.to(self._device)

    def _validation_logits(self) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [(output.logits.float().cpu(), labels.cpu()) for output, labels in self._validation_outputs()]
        return torch.cat([logits for logits, _ in pairs]), torch.cat([labels for _, labels in pairs])

    def _read(self, images: ImageSet | NumberedFiles) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size, config = self._architecture.image_size, self._config
        return labelled_batches(images, size, config.batch_size, config.workers)

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.float16) if self._device.type == "cuda" else nullcontext()

    def _save_state(self) -> None:
        """Write the state after an epoch, then the metrics of all epochs."""
        groups = {"net": self._net.state_dict(), "best": self._best, "optimiser": optimiser_tensors(self._optimiser)}
        content = {"settings": self._settings, "metrics": self._metrics, "best": self._best_metrics}
        write_state(self._path / STATE, groups, {**content, "scaler": self._scaler.state_dict()})
        self._save_metrics()

    def _save_metrics(self) -> None:
        write_lines(self._path / METRICS, [json.dumps(line) for line in self._metrics])

    def load_state(self) -> None:
        """Continue from the state in the run directory; write nothing.

        Raises:
            CheckpointError: the state cannot be read, or it or the network there belongs to another training.
        """
        groups, content = read_state(self._path / STATE, largest_state(self._net.state_dict()))
        require_same_settings(self._path, content["settings"], self._settings)
        try:
            require_state_of(groups, content, self._net.state_dict(), self._optimiser, self._config.epochs)
            quality(content["best"])
            self._net.load_state_dict(groups["net"])
            self._best, self._best_metrics, self._metrics = groups["best"], content["best"], content["metrics"]
            restore_optimiser(self._optimiser, groups.get("optimiser", {}))
            if content["scaler"]:
                self._scaler.load_state_dict(content["scaler"])
        except Exception as error:  # torch raises errors of many types for tensors that do not fit
            raise unusable(self._path / STATE, error) from None
        self._finished = finished_network(self._path, self._settings, self._best_metrics)
