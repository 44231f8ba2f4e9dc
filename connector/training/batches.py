"""Labelled images as tensors, in batches. Apart from `images`, which the explorer needs without loading torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from semcut.connector.data.images import read_batches
from semcut.connector.data.sources import ImageSet


def labelled_batches(
    images: ImageSet, size: int, batch_size: int, workers: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pixels (n, 3, size, size) uint8 and labels (n,) int64, in order; images that cannot be read are left out."""
    labels = torch.from_numpy(images.labels)
    for batch in read_batches(images.files, size, batch_size, workers):
        if len(batch.positions):
            yield torch.from_numpy(batch.pixels), labels[torch.from_numpy(batch.positions)]
