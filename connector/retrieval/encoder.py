"""`Encoder`: turn images into `Encodings`, batch by batch, on any device.

This module works with numpy arrays; `semcut.connector.models.inference` runs the network on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.file_arguments import files_given
from semcut.connector.data.image_arguments import images_given
from semcut.connector.data.images import UnreadableImage, fitted_pixels, load_pixels, read_batches
from semcut.connector.models.bulk_network import bulk_form, weights_version
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.device import images_at_once
from semcut.connector.models.inference import NetworkOutputs, NetworkRunner
from semcut.connector.retrieval.trained_records import training_of
from semcut.indexes import Encodings, IndexConfig
from semcut.indexes.argument_checks import instance_given, integer_given
from semcut.indexes.array_checks import array_of
from semcut.indexes.errors import InvalidParameterError, shown

MAX_WORKERS = 256


class EncodedFiles(NamedTuple):
    """One batch of encoded files.

    Attributes:
        encodings: encodings of the files that can be read; uris are the paths, ids follow from the positions of files.
        skipped: pairs (file, reason), one for each file that cannot be read.
    """

    encodings: Encodings
    skipped: list[tuple[str, str]]


class Encoder:
    """A trained network that encodes images.

    Args:
        checkpoint: the network; it is moved to the device.
        device: "cpu", "cuda", "cuda:0".
        batch_size: largest number of images per batch; batches are smaller where the network would take more than 128
            MiB for them (4 GiB on a GPU).
        workers: threads that decode images.

    Attributes:
        checkpoint: the network, and how it was trained.
        architecture: architecture of the network.

    Raises:
        DataError: the device cannot be used on this machine.
        InvalidParameterError: an argument is of another type, or out of range.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", batch_size: int = 128, workers: int = 2) -> None:
        instance_given("checkpoint", checkpoint, Checkpoint, "Checkpoint.load(path) reads one")
        batch_size = integer_given("batch_size", batch_size, 1)
        self._workers = integer_given("workers", workers, 1, MAX_WORKERS)
        self.checkpoint = checkpoint
        self.architecture = checkpoint.net.architecture
        self._network = NetworkRunner(checkpoint.net, device)
        self._bulk: tuple[tuple[tuple[int, int], ...], NetworkRunner] | None = None
        self._batch_size = images_at_once(self._network.device, self._network.bytes_per_image(), batch_size)

    def _for_many(self) -> NetworkRunner:
        """Return the network in a form that encodes many images faster; it is made anew when the weights change."""
        if self._network.device.type != "cpu":
            return self._network
        version = weights_version(self._network.net)
        if self._bulk is None or self._bulk[0] != version:
            self._bulk = version, NetworkRunner(bulk_form(self._network.net))
        return self._bulk[1]

    @cached_property
    def trained_on(self) -> frozenset[bytes] | None:
        """Digests of the images that the network was trained and validated on; None if they are not recorded."""
        return training_of(self.checkpoint.path)

    def index_config(self) -> IndexConfig:
        """Return the configuration of an index for the encodings of this network."""
        return IndexConfig(
            classes=len(self.architecture.classes), bits=self.architecture.bits, dim=self._network.net.dim
        )

    def encode(self, images: Iterable[str | os.PathLike[str] | Image.Image]) -> Encodings:
        """Encode a few images, given as files or PIL images, as queries: the encodings have no ids.

        Raises:
            DataError: an image cannot be read, or `images` holds something else than images.
        """
        images = images_given("images", images)
        size = self.architecture.image_size
        parts = []
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            pixels = np.stack([_beside(load_pixels, image, size) for image in batch])
            parts.append(encodings_of(self._network.run(pixels)))
        if parts:
            return Encodings.concatenate(parts)
        return encodings_of(self._network.run(np.empty((0, 3, size, size), np.uint8)))

    def encode_read(self, read: Callable[[int], NDArray[np.uint8]]) -> Encodings:
        """Encode one image as a query.

        Args:
            read: gets the image size of the network, S, and returns the (3, S, S) pixels of the image, see
                `fitted_pixels`. Its errors are passed on.

        Raises:
            InvalidParameterError: `read` is no function, or returns something else.
        """
        if not callable(read):
            raise InvalidParameterError(f"read = {shown(read)}, expected a function that returns pixels")
        size = self.architecture.image_size
        pixels = array_of("pixels", read(size), "u", (3, size, size), 0, 255)
        return encodings_of(self._network.run(pixels[None].astype(np.uint8)))

    def encode_readable(
        self, images: Iterable[str | os.PathLike[str] | Image.Image], skipped: list[tuple[str, str]]
    ) -> tuple[Encodings, list[int]]:
        """Encode a few images as `encode` does, without those that cannot be read.

        Args:
            images: files or PIL images.
            skipped: gets a pair (image, reason) for each image that cannot be read.

        Returns:
            The encodings of the other images, and their positions in `images`.

        Raises:
            DataError: `images` holds something else than images.
        """
        images = images_given("images", images)
        instance_given("skipped", skipped, list)
        size = self.architecture.image_size

        def pixels_of(image: str | Image.Image) -> NDArray[np.uint8] | str:
            try:
                return _beside(fitted_pixels, image, size)
            except UnreadableImage as reason:
                return str(reason)

        pixels = [pixels_of(image) for image in images]
        skipped += [(str(image), why) for image, why in zip(images, pixels, strict=True) if isinstance(why, str)]
        positions = [position for position, found in enumerate(pixels) if not isinstance(found, str)]
        readable = [found for found in pixels if not isinstance(found, str)]
        parts = [
            encodings_of(self._network.run(np.stack(readable[start : start + self._batch_size])))
            for start in range(0, len(readable), self._batch_size)
        ]
        return Encodings.concatenate([self.encode([]), *parts]), positions

    def encode_files(self, files: Iterable[str | os.PathLike[str]], first_id: int = 0) -> Iterator[EncodedFiles]:
        """Encode any number of files, batch by batch; files that cannot be read are skipped.

        Args:
            files: paths, which become the uris of the encodings.
            first_id: id of the first file; the id of every other file is `first_id` plus the position of the file.

        Raises:
            DataError: `files` holds something else than paths.
            InvalidParameterError: the ids would not be from 0 to 2**63 - 1.
        """
        paths, network = files_given("files", files), self._for_many()
        first_id = integer_given("first_id", first_id, 0, 2**63 - max(1, len(paths)))
        return (
            EncodedFiles(
                encodings_of(
                    network.run(batch.pixels),
                    ids=batch.positions + first_id,
                    uris=[paths[position] for position in batch.positions],
                ),
                batch.skipped,
            )
            for batch in read_batches(paths, self.architecture.image_size, self._batch_size, self._workers)
        )


def _beside(
    read: Callable[[str | Image.Image, int], NDArray[np.uint8]], image: str | Image.Image, size: int
) -> NDArray[np.uint8]:
    """Read an image file in another thread, so that Ctrl-C does not wait for it."""
    if isinstance(image, Image.Image):
        return read(image, size)
    threads = DaemonThreads(1, "image")
    try:
        return result_of(threads.submit(partial(read, image, size)))
    finally:
        threads.stop()


def encodings_of(
    outputs: NetworkOutputs, ids: NDArray[np.int64] | None = None, uris: list[str] | None = None
) -> Encodings:
    """Combine the outputs of a network with ids and uris; the arrays are not copied."""
    return Encodings(
        probabilities=outputs.probabilities, codes=outputs.codes, features=outputs.features, ids=ids, uris=uris
    )
