"""`TrainConfig`: the settings of a training, and the learning rate of each step. Does not load torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from semcut.indexes.argument_checks import integer_given
from semcut.indexes.config import Settings


class TrainConfig(Settings):
    """The settings of a training.

    Attributes:
        epochs: number of passes over the training images.
        batch_size: images per step; a last batch of one image is left out.
        learning_rate: the highest learning rate of the schedule, for the two branches.
        backbone_rate: learning rate of the backbone, as a share of `learning_rate`; small for a pretrained backbone.
        schedule: "one-cycle" (up over the first 20 % of the steps, then down) or "cosine" (down from the start).
        weight_decay: weight decay of AdamW.
        label_smoothing: label smoothing of both losses; see `heads`.
        hash_weight: weight of the loss of the hash branch; see `heads.total_loss`.
        freeze: leave the backbone unchanged, and compute its outputs for each image once; see `frozen_features`.
        freeze_codes: leave unchanged all that features and codes are computed by, and train only what tells the classes
            apart; needs `freeze` and a network to start from. An index can then be linked to the new network as it is.
        calibrate: fit a temperature on the validation images; see `calibration`.
        augment: "none"; "shift" moves, scales and rotates images a little; "flip" also mirrors them; "strong" also
            changes colours and covers squares, for few images and many epochs. With `freeze`, only the mirroring is
            used.
        balance: how many images of every class an epoch has; None for each image once. A class with fewer images has
            them several times, each time augmented anew, as the paper does with 1,000; one with more has others in
            every epoch.
        validation: share of the images of each class that is held out to choose the epoch.
        seed: seed of all randomness.
        workers: threads that decode images.
        device: "cpu", "cuda", "cuda:0"; training on CUDA uses mixed precision.
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
    freeze_codes: bool = False
    calibrate: bool = False
    augment: Literal["none", "shift", "flip", "strong"] = "flip"
    balance: int | None = Field(default=None, ge=1, le=100_000)
    validation: float = Field(default=0.1, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    workers: int = Field(default=2, ge=1, le=256)
    device: str = "cpu"

    @model_validator(mode="after")
    def _backbone_frozen_with_codes(self) -> TrainConfig:
        if self.freeze_codes and not self.freeze:
            raise ValueError("freeze_codes also needs freeze: codes change with the backbone")
        return self

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Compute the learning rate of the two branches at a step, counted from 0, of `steps` steps in all.

        Raises:
            InvalidParameterError: an argument is no integer, or out of range.
        """
        step, steps = integer_given("step", step, 0), integer_given("steps", steps, 1)
        warmup = 0.2 * steps if self.schedule == "one-cycle" else 0.0
        if step < warmup:
            share = 0.04 + 0.96 * step / warmup
        else:
            share = 1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))
        return self.learning_rate * share
