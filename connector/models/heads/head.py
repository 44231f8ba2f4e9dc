"""What every head can do: `losses` lists them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import nn

Binarisation = Literal["mean", "sign"]
"""How outputs become bits: see `hashing`."""


class Head(nn.Module):
    """The end of the hash branch, behind its linear layer.

    Args:
        bits: of a code.
        classes: C.

    Attributes:
        binarisation: how its outputs become bits.
    """

    binarisation: Binarisation = "sign"

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__()
        self.bits, self.classes = bits, classes

    def forward(self, hashed: torch.Tensor) -> torch.Tensor:
        """What is binarised, and what the loss is of: (n, bits) from the (n, bits) of the linear layer."""
        return hashed

    @abstractmethod
    def fits(self, outputs: torch.Tensor) -> torch.Tensor:
        """(n, C): how well outputs fit each class; the largest is the class that a code stands for."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        """The mean loss of n images, from their outputs and (n,) int64 labels."""
