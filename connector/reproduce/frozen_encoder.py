"""`FrozenEncoder`: networks of one frozen backbone are measured without computing it for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.encoder import EncodedFiles, Encoder
from semcut.connector.training.batches import labelled_batches
from semcut.connector.training.frozen_features import kept_outputs


class FrozenEncoder(Encoder):
    """An encoder of images that are known before; what its backbone makes of them comes from the cache, or goes there.

    Args:
        checkpoint: a network whose backbone was left as it was, so that it is that of other networks, too.
        files: all images that it will be asked for.
        device: "cpu", "cuda", "cuda:0".
        progress: told how many images the backbone has seen, and of how many.

    Raises:
        DataError: none of the images can be read.
    """

    def __init__(
        self, checkpoint: Checkpoint, files: Sequence[str], device: str, progress: Callable[[int, int], None]
    ) -> None:
        super().__init__(checkpoint, device)
        images = ImageSet(tuple(files), np.arange(len(files)), self.architecture.classes)

        def read(images: ImageSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            size = self.architecture.image_size
            for pixels, numbers in labelled_batches(images, size, self._batch_size, self._workers):
                yield pixels, numbers
                progress(int(numbers[-1]) + 1, len(images))

        (found,) = kept_outputs(self._net, [images], read, self._device, mirror=False)
        self._layers = found.copies[0]
        self._row_of = {files[number]: row for row, number in enumerate(found.labels.tolist())}

    def encode_files(self, files: Sequence[str], first_id: int = 0) -> Iterator[EncodedFiles]:
        """Encodings of some of the images, batch by batch; what cannot be read is skipped."""
        for start in range(0, len(files), self._batch_size):
            part = files[start : start + self._batch_size]
            good = [place for place, file in enumerate(part) if file in self._row_of]
            rows = torch.tensor([self._row_of[part[place]] for place in good], dtype=torch.int64)
            layers = tuple(layer[rows].to(self._device) for layer in self._layers)
            ids = np.array(good, np.int64) + start + first_id
            skipped = [(file, "it cannot be read") for file in part if file not in self._row_of]
            yield EncodedFiles(self._encodings(layers, ids, [part[place] for place in good]), skipped)
