"""Augmentation: images moved, mirrored, recoloured and mixed at random, a batch at a time, by a generator alone."""

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


def mixed(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mix each image with another one: a weighted mean of the two, or a square of the other pasted into it.

    The loss is then the mean of those for the labels of both, with the same weights. Sources: mixup, Zhang et al. (ICLR
    2018), and CutMix, Yun et al. (ICCV 2019), each for half of the batches, with weights drawn evenly from 0 to 1.

    Args:
        images: (n, 3, size, size) float.
        generator: on the CPU.

    Returns:
        The mixed images, (n,) int64 positions of the others, and the weight of an image's own label.
    """
    partners = torch.randperm(len(images), generator=generator)
    share, blend, top, left = torch.rand(4, generator=generator).tolist()
    if blend < 0.5:
        return share * images + (1 - share) * images[partners], partners, share
    size = images.shape[2]
    side = round(size * (1 - share) ** 0.5)
    rows, columns = (slice(start, start + side) for start in (round(p * (size - side)) for p in (top, left)))
    pasted = images.clone()
    pasted[:, :, rows, columns] = images[partners][:, :, rows, columns]
    return pasted, partners, 1 - side * side / (size * size)
