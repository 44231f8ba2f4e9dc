"""Run a network that is being adopted on a sample of images, and compute with what it says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from semcut.connector.adoption.named_network import NamedNetwork
from semcut.connector.data.images import read_batches
from semcut.connector.models.device import device_named, images_at_once
from semcut.connector.models.scales import at_scales
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.progress import Progress

_BATCH = 6
"""Larger batches are not faster on a CPU, and take more memory. They are smaller where an image takes much."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network says of k images.

    Attributes:
        files: k paths, of the images that can be read.
        logits: (k, C) float32; (k, 0) if the network has no classes.
        directions: (k, D) float32, features of length 1.
        labels: (k,) int64; None if they are not known.
    """

    files: list[str]
    logits: NDArray[np.float32]
    directions: NDArray[np.float32]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.files)


class Sampler:
    """A network on a device.

    Args:
        found: the network.
        scales: shares of the image size that it sees an image at.
        device: "cpu", "cuda", "cuda:0".
        progress: called with the number of images that it has seen.

    Raises:
        DataError: the device cannot be used.
    """

    def __init__(self, found: NamedNetwork, scales: Sequence[float], device: str, progress: Progress) -> None:
        self._device = device_named(device)
        self._found, self._scales, self._progress = found, scales, progress
        self._batch = images_at_once(self._device, found.image_bytes, _BATCH)
        self._network = found.network.to(self._device).eval()
        self._mean, self._std = (
            torch.tensor(channels, device=self._device).view(3, 1, 1) * 255 for channels in (found.mean, found.std)
        )

    @torch.inference_mode()
    def sample(self, files: Sequence[str], labels: NDArray[np.int64] | None = None, *, mirror: bool = False) -> Sample:
        """Run the network on images; those that cannot be read are left out.

        Args:
            files: their files; without any, the network runs on one grey image, to see what it computes.
            labels: (n,) int64.
            mirror: whether the images are mirrored.

        Raises:
            DataError: none of the files can be read.
            CheckpointError: the network computes something else than finite numbers, the same number for each image.
        """
        size = self._found.image_size
        if not files:
            logits, directions = self._run(np.full((1, 3, size, size), 127, np.uint8))
            return Sample([], logits[:0], directions[:0], None if labels is None else labels[:0])
        parts, positions = [], []
        for batch in read_batches(files, size, self._batch):
            if len(batch.positions):
                parts.append(self._run(batch.pixels[..., ::-1].copy() if mirror else batch.pixels))
                positions.append(batch.positions)
            self._progress(min(len(files), sum(map(len, positions)) + len(batch.skipped)), len(files))
        if not parts:
            raise DataError(f"none of the {len(files):,} images that the network is to be fitted to can be read")
        kept = np.concatenate(positions)
        logits, directions = (np.concatenate(one) for one in zip(*parts, strict=True))
        return Sample([files[one] for one in kept], logits, directions, None if labels is None else labels[kept])

    def _run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        images = torch.from_numpy(pixels).to(self._device)
        try:
            given = images if self._network.takes_pixels else (images - self._mean) / self._std
            outputs = at_scales(self._network, given, self._scales)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            sides = " and ".join(f"{max(8, round(scale * images.shape[-1]))}" for scale in self._scales)
            raise CheckpointError(f"the network cannot take images of {sides} pixels: {reason}") from None
        if not all(bool(torch.isfinite(one).all()) for one in outputs):
            raise CheckpointError(
                "the network computes numbers that are not finite, so its encodings would mean nothing: give other "
                "weights, or another normalisation of the pixels"
            )
        logits, features = (one.float().cpu().numpy() for one in outputs)
        return logits, features


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the rows of (k, n) to length 1; rows of zeros stay as they are."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return scaled


def cosines(directions: NDArray[np.float32], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosines (k, C) of directions (k, D) and vectors (C, D)."""
    found: NDArray[np.float32] = directions @ unit(vectors).T
    return found


def class_means(sample: Sample, classes: int) -> NDArray[np.float32]:
    """Return the mean direction of each class of a labelled sample: (classes, D) float32.

    Raises:
        DataError: no image of a class can be read.
    """
    sums, counts = _sums(sample, classes)
    if not counts.all():
        raise DataError(f"no image of {int((counts == 0).sum())} of the {classes} labelled classes can be read")
    return (sums / counts[:, None]).astype(np.float32)


def left_out_cosines(sample: Sample, classes: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the cosines of each image and the mean of each class without that image, (k, classes) float32.

    Also returns which images are not the only one of their class, (k,) bool: the others have no mean without them.
    """
    sums, counts = _sums(sample, classes)
    assert sample.labels is not None
    found = cosines(sample.directions, sums.astype(np.float32))
    own = sums[sample.labels] - sample.directions
    lengths = np.maximum(np.linalg.norm(own, axis=1), 1e-12)
    rows = np.arange(len(sample))
    found[rows, sample.labels] = (own * sample.directions).sum(axis=1) / lengths
    return found, counts[sample.labels] > 1


def _sums(sample: Sample, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    assert sample.labels is not None
    sums = np.zeros((classes, sample.directions.shape[1]))
    np.add.at(sums, sample.labels, sample.directions)
    return sums, np.bincount(sample.labels, minlength=classes)
