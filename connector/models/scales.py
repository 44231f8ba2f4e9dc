"""Run a network on images at several sizes, and join what it computes: things are seen at the size they have.

The direction of the joint feature is that of the sum of the directions at each size; the joint logits are the mean.

Source: Radenovic, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation" (PAMI 2019), 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from semcut.connector.models.source import Source

_LEAST_SIDE = 8


def at_scales(source: Source, images: torch.Tensor, scales: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a network.

    Args:
        source: the network.
        images: (n, 3, size, size) pixels, normalised unless the network takes them as they are.
        scales: shares of the size; 1 for the images as they are.

    Returns:
        Logits (n, C), and directions (n, D) float32 of length 1. With one scale these are what the network computes.
    """
    all_logits, directions = [], []
    for scale in scales:
        logits, features = source(images if scale == 1 else _scaled(images, scale))
        all_logits.append(logits)
        directions.append(functional.normalize(features.float(), dim=1))
    if len(scales) == 1:
        return all_logits[0], directions[0]
    return torch.stack(all_logits).mean(dim=0), functional.normalize(torch.stack(directions).sum(dim=0), dim=1)


def _scaled(images: torch.Tensor, scale: float) -> torch.Tensor:
    side = max(_LEAST_SIDE, round(scale * images.shape[-1]))
    smaller = functional.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)
    return smaller if images.is_floating_point() else smaller.round().clamp(0, 255).to(images.dtype)
