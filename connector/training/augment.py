"""Augmentation: images moved, mirrored and recoloured at random, a batch at a time, by a generator alone."""

from __future__ import annotations

import torch
from torch.nn import functional


def augment(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Move, scale and turn each image a little; mirror half of them if `kind` is "flip"; if it is "strong" also change
    their colours, and cover a square of half of them.

    Args:
        images: (n, 3, size, size) float.
        kind: see `TrainConfig`.
        generator: on the CPU.
    """
    if kind == "none":
        return images
    count = len(images)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    angle, scale = uniform(-0.15, 0.15), uniform(0.8, 1.1)
    mirror = torch.ones(count)
    if kind != "shift":
        mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack(
        [
            torch.stack([cosine * mirror, -sine, uniform(-0.15, 0.15)], dim=1),
            torch.stack([sine * mirror, cosine, uniform(-0.15, 0.15)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if kind != "strong":
        return images
    for part in (images.mean(dim=1, keepdim=True), images.mean(dim=(1, 2, 3), keepdim=True)):  # saturation, contrast
        images = part + (images - part) * uniform(0.6, 1.4).view(-1, 1, 1, 1)
    images = (images * uniform(0.7, 1.3).view(-1, 1, 1, 1)).clamp(0, 255)
    size, side = images.shape[2], torch.where(uniform(0, 1) < 0.5, uniform(0.2, 0.5), 0.0)
    places = (torch.arange(size) + 0.5) / size
    covered = [((places > low) & (places < low + side[:, None])) for low in
               ((uniform(0, 1) * (1 - side))[:, None] for _ in range(2))]  # fmt: skip
    hidden = (covered[0][:, :, None] & covered[1][:, None, :])[:, None]
    return torch.where(hidden, images.mean(dim=(2, 3), keepdim=True), images)
