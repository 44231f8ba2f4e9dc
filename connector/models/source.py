"""`Source`: the interface of a network that semcut did not train: images in, logits and features out.

`network_sources` builds one by its library: a classifier of torch, a file of ONNX, or a function of the user's own. The
rest of semcut knows no other way to call a network that was adopted. To add a library, return a `Source` for its name
in `network_sources.build_source`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn


class Source(nn.Module):
    """A network that gives logits and features.

    Attributes:
        takes_pixels: whether it takes pixels from 0 to 255 as they are, not normalised ones.
    """

    takes_pixels: ClassVar[bool] = False

    @abstractmethod
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits (n, C), or (n, 0) if it has no classes, and features (n, D) of images (n, 3, size, size).

        Raises:
            CheckpointError: it does not answer as it did when it was adopted.
        """
