"""`Encoder`: images to `Encodings`, in batches, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from semcut.connector.data.images import load, read_batches
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.hashing import binarise, pack
from semcut.connector.models.network import device_named
from semcut.indexes import Encodings, IndexConfig


class EncodedFiles(NamedTuple):
    """Encodings of files, with the files as uris and their positions as ids; and the files skipped, with reasons."""

    encodings: Encodings
    skipped: list[tuple[str, str]]


class Encoder:
    """A trained network that encodes images.

    Args:
        checkpoint: the network.
        device: "cpu", "cuda", "cuda:0".
        batch_size: images at a time.
        workers: threads that decode images.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", batch_size: int = 128, workers: int = 2) -> None:
        self.architecture = checkpoint.net.architecture
        self.checkpoint = checkpoint
        self._device = device_named(device)
        self._net = checkpoint.net.to(self._device).to(memory_format=torch.channels_last)
        self._batch_size, self._workers = batch_size, workers

    def index_config(self) -> IndexConfig:
        """The configuration of an index for this network's encodings."""
        return IndexConfig(classes=len(self.architecture.classes), bits=self.architecture.bits, dim=self._net.dim)

    def encode(self, images: Sequence[str | Path | Image.Image]) -> Encodings:
        """Encodings of a few images: files or PIL images. Without ids, as queries are.

        Raises:
            DataError: an image cannot be read.
        """
        size = self.architecture.image_size
        parts = []
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            parts.append(self._encode(np.stack([load(image, size) for image in part])))
        return Encodings.concatenate(parts) if parts else self._encode(np.empty((0, 3, size, size), np.uint8))

    def encode_files(self, files: Sequence[str], first_id: int = 0) -> Iterator[EncodedFiles]:
        """Encodings of any number of files, batch by batch; what cannot be read is skipped.

        Args:
            files: paths.
            first_id: id of the first file; a file's id is this plus its position.
        """
        for batch in read_batches(files, self.architecture.image_size, self._batch_size, self._workers):
            encodings = self._encode(
                batch.pixels, ids=batch.positions + first_id, uris=[files[i] for i in batch.positions]
            )
            yield EncodedFiles(encodings, batch.skipped)

    @torch.inference_mode()
    def _encode(
        self, pixels: NDArray[np.uint8], ids: NDArray[np.int64] | None = None, uris: list[str] | None = None
    ) -> Encodings:
        """(n, 3, size, size) uint8 pixels to encodings; features are L2-normalised."""
        if not len(pixels):
            config = self.index_config()
            return Encodings(
                probabilities=np.empty((0, config.classes), np.float32),
                codes=np.empty((0, config.bits // 8), np.uint8),
                features=np.empty((0, config.dim), np.float32),
                ids=ids,
                uris=uris,
            )
        images = torch.from_numpy(pixels).to(self._device)
        layers = self._net.middle_outputs(images.contiguous(memory_format=torch.channels_last))
        return self._encodings(layers, ids, uris)

    @torch.inference_mode()
    def _encodings(
        self, layers: tuple[torch.Tensor, ...], ids: NDArray[np.int64] | None, uris: list[str] | None
    ) -> Encodings:
        """Encodings of what the backbone has made of images."""
        output = self._net.answers(layers)
        features = functional.normalize(output.features.double(), dim=1)
        dead = features.norm(dim=1) < 0.5  # a feature of zeros has no direction; any unit vector will do
        features[dead] = features.shape[1] ** -0.5
        return Encodings(
            probabilities=self._net.probabilities(output.logits).float().cpu().numpy(),
            codes=pack(binarise(output.hash, self._net.head.binarisation)),
            features=features.float().cpu().numpy(),
            ids=ids,
            uris=uris,
        )
