"""`Head`: the interface of every head: a loss, a score of each class, and how outputs become bits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import nn

Binarisation = Literal["mean", "sign"]
"""How outputs become bits: by comparison with their mean, or by their sign; see `hashing`."""


class Head(nn.Module):
    """The last part of the hash branch, after its linear layer.

    Args:
        bits: length of a code.
        classes: number of classes C.

    Attributes:
        binarisation: how the outputs become bits.
    """

    binarisation: Binarisation = "sign"

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__()
        self.bits, self.classes = bits, classes

    def forward(self, hashed: torch.Tensor) -> torch.Tensor:
        """Map the output (n, bits) of the linear layer to the outputs (n, bits) of the head.

        The outputs of the head are turned into bits, and the loss is computed from them.
        """
        return hashed

    @abstractmethod
    def class_scores(self, outputs: torch.Tensor) -> torch.Tensor:
        """Score how well outputs (n, bits) fit each class: (n, C); the class with the largest score is predicted."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """Compute the mean loss of n images from their outputs (n, bits) and labels (n,) int64."""
