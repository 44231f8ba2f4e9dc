"""Read labelled images as tensors, in batches; choose those of an epoch; and augment a batch at random.

`labelled_batches` is not in `data.images` because the HTTP API uses that module without loading torch. All randomness
of `augment` comes from the generator that the caller passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from semcut.connector.data.image_contents import readable_images
from semcut.connector.data.images import read_batches
from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import SemcutWarning


@dataclass(frozen=True, eq=False)
class NumberedFiles:
    """Files whose labels are their positions, so that the labels of a batch say which files were read."""

    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The positions, (n,) int64."""
        return np.arange(len(self.files))


def checked_images(images: ImageSet, workers: int) -> ImageSet:
    """Select the images that can be read, see `readable_images`; issue a `SemcutWarning` if some cannot be.

    Raises:
        DataError: fewer than two classes are left.
    """
    found = readable_images(images, workers)
    left_out = found.skipped[len(images.skipped) :]
    if left_out:
        name, reason = left_out[0]
        warnings.warn(
            f"left out {len(left_out):,} images and classes that cannot be read; the first is {name}: {reason}",
            SemcutWarning,
            stacklevel=3,
        )
    return found


def labelled_batches(
    images: ImageSet | NumberedFiles, size: int, batch_size: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Read images in order, in batches; images that cannot be read are left out.

    Args:
        images: files and labels.
        size: pixels per side.
        batch_size: files per batch.
        workers: threads that decode images.

    Yields:
        Pixels (n, 3, size, size) uint8 and labels (n,) int64.
    """
    labels = torch.from_numpy(images.labels)
    for batch in read_batches(images.files, size, batch_size, workers, any_name=True):
        if len(batch.positions):
            yield torch.from_numpy(batch.pixels), labels[torch.from_numpy(batch.positions)]


def epoch_order(labels: NDArray[np.int64], balance: int | None, generator: torch.Generator) -> list[int]:
    """Choose the images of an epoch, in random order.

    Args:
        labels: (n,) the class of each image.
        balance: how many images of every class; None for each image once. Where a class has fewer, all of them are
            taken equally often, give or take one; where it has more, as many are drawn as are wanted.
        generator: random generator on the CPU.

    Returns:
        Positions in `labels`.
    """
    if balance is None:
        return torch.randperm(len(labels), generator=generator).tolist()
    chosen: list[torch.Tensor] = []
    for label in np.unique(labels):
        members = torch.from_numpy(np.flatnonzero(labels == label))
        rounds = -(-balance // len(members))
        shuffled = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
        chosen.append(torch.cat(shuffled)[:balance])
    together = torch.cat(chosen)
    return together[torch.randperm(len(together), generator=generator)].tolist()


def augment(images: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Augment a batch of images at random.

    "none" returns the images unchanged. "shift" moves, scales and rotates each image a little. "flip" also mirrors each
    image with probability 0.5. "strong" also changes saturation, contrast and brightness, and covers a square in each
    image with probability 0.5.

    Args:
        images: (n, 3, size, size) float, from 0 to 255.
        kind: "none", "shift", "flip" or "strong".
        generator: random generator on the CPU.

    Returns:
        (n, 3, size, size) float.
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
    for gray in (images.mean(dim=1, keepdim=True), images.mean(dim=(1, 2, 3), keepdim=True)):  # saturation, contrast
        images = gray + (images - gray) * uniform(0.6, 1.4).view(-1, 1, 1, 1)
    images = (images * uniform(0.7, 1.3).view(-1, 1, 1, 1)).clamp(0, 255)  # brightness
    size, side = images.shape[2], torch.where(uniform(0, 1) < 0.5, uniform(0.2, 0.5), 0.0)
    centres = (torch.arange(size) + 0.5) / size  # positions of pixel centres, from 0 to 1 along a side
    covered_rows, covered_columns = (
        (centres > low) & (centres < low + side[:, None])
        for low in ((uniform(0, 1) * (1 - side))[:, None] for _ in range(2))
    )
    square = (covered_rows[:, :, None] & covered_columns[:, None, :])[:, None]
    return torch.where(square, images.mean(dim=(2, 3), keepdim=True), images)
