"""Generalised-mean pooling: features that say what is in an image more than how much of it.

A convolutional network ends with a map of each of its channels, of which it takes the average. The generalised mean of
positive values, (mean of x^p)^(1/p), is the average for p = 1 and nears the maximum as p grows: large values, where
something is seen, count more than the empty rest of the image. It helps to find the same thing.

Two layers take the place of the last global average pooling of a network:

    GeneralisedMean    the generalised mean alone, with an exponent that training can change
    PairedPooling      the average and the generalised mean, for a network that goes on to classify by the average

Source: Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (PAMI 2019), Eq. 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from semcut.connector.models import MOST_EXPONENT
from semcut.indexes.errors import InvalidParameterError

_LEAST = 1e-6
"""What smaller values are raised to: powers of 0 and below have no gradient, or are no real numbers."""


class GeneralisedMean(nn.Module):
    """Turns maps (n, C, h, w) into (n, C, 1, 1), or (n, C) if the layer that it replaces gives that.

    Args:
        exponent: p at first, at least 1; a parameter, which is learned with the network.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(float(exponent)))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute the generalised means."""
        return _generalised_mean(maps, self.exponent.clamp(1, MOST_EXPONENT))


class PairedPooling(nn.Module):
    """Turns maps (n, C, h, w) into (2 n, C, 1, 1): average and generalised mean of the first image, of the second, ...

    So a network that a batch goes through classifies by the averages as before, and also computes features of the
    generalised means, in rows between; see `network_sources.Classifier`.

    Args:
        exponent: p, at least 1.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self._exponent = float(exponent)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Compute both means."""
        both = maps.mean((-2, -1), keepdim=True), _generalised_mean(maps, self._exponent)
        return torch.stack(both, dim=1).flatten(0, 1)


def replace_pooling(network: nn.Module, name: str, layer: Callable[[], nn.Module]) -> None:
    """Replace the last global average pooling of a network.

    Args:
        network: the network.
        name: its name, for the message.
        layer: makes the layer that takes its place.

    Raises:
        InvalidParameterError: it has none.
    """
    found = [
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1), [1, 1])
    ]
    if not found:
        raise InvalidParameterError(
            f"{name} has no global average pooling that another could replace: leave out the pooling, or choose a "
            "convolutional network such as efficientnet_lite0 or resnet50"
        )
    network.set_submodule(found[-1], layer())


def _generalised_mean(maps: torch.Tensor, exponent: torch.Tensor | float) -> torch.Tensor:
    maps = maps.clamp(min=_LEAST)
    largest = maps.amax((-2, -1), keepdim=True)  # powers of shares of it neither overflow nor vanish
    means: torch.Tensor = largest * (maps / largest).pow(exponent).mean((-2, -1), keepdim=True).pow(1 / exponent)
    return means
