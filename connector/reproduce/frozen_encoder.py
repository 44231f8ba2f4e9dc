"""`FrozenEncoder`: encode images with networks that share a frozen backbone, and run the backbone only once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from semcut.connector.data.file_arguments import files_given
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import SemanticHashNet
from semcut.connector.retrieval.encoder import EncodedFiles, Encoder, encodings_of
from semcut.connector.training.batches import NumberedFiles, labelled_batches
from semcut.connector.training.frozen_features import cached_features
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.progress import Progress


class FrozenEncoder(Encoder):
    """An encoder of images that are known in advance.

    The outputs of the backbone are read from the cache of frozen features, or are computed once and cached.

    Args:
        checkpoint: a network with a frozen backbone that other networks can have too, see `has_shared_backbone`.
        files: all images that will be encoded.
        device: "cpu", "cuda", "cuda:0".
        progress: called with the number of images that the backbone has processed.

    Raises:
        DataError: none of the images can be read.
    """

    def __init__(self, checkpoint: Checkpoint, files: Sequence[str], device: str, progress: Progress) -> None:
        super().__init__(checkpoint, device)
        images = NumberedFiles(tuple(files))
        net = instance_given("net", checkpoint.net, SemanticHashNet, "a network that was trained")

        def read(images: NumberedFiles) -> Iterator[tuple[Any, Any]]:
            size = self.architecture.image_size
            for pixels, positions in labelled_batches(images, size, self._batch_size, self._workers):
                yield pixels, positions
                progress(int(positions[-1]) + 1, len(images))

        (outputs,) = cached_features(net, [images], read, self._network.device, mirror=False)
        self._layers = [layer.numpy() for layer in outputs.variants[0]]
        self._row_of = {files[position]: row for row, position in enumerate(outputs.labels.tolist())}

    def encode_files(self, files: Iterable[str | os.PathLike[str]], first_id: int = 0) -> Iterator[EncodedFiles]:
        """Encode some of the images, batch by batch; images that cannot be read are skipped."""
        files = files_given("files", files)
        for start in range(0, len(files), self._batch_size):
            batch = files[start : start + self._batch_size]
            readable = [place for place, file in enumerate(batch) if file in self._row_of]
            rows = np.array([self._row_of[batch[place]] for place in readable], np.int64)
            outputs = self._network.run_branches([layer[rows] for layer in self._layers])
            ids = np.array(readable, np.int64) + start + first_id
            skipped = [(file, "it cannot be read") for file in batch if file not in self._row_of]
            yield EncodedFiles(encodings_of(outputs, ids, [batch[place] for place in readable]), skipped)
