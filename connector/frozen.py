"""What a frozen backbone makes of every image, computed once: an epoch then takes seconds instead of minutes.

With the "flip" augmentation there is a second copy, of the mirrored images; the other augmentations move pixels, which
would mean to compute everything anew, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from connector.errors import DataError
from connector.model import SemanticHashNet

Layers = tuple[torch.Tensor, ...]
"""Mid-level outputs of a backbone for n images: (n, width) each."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs for n images.

    Attributes:
        copies: one for the images as they are, and one for mirrored ones if there are any.
        labels: (n,) int64.
    """

    copies: tuple[Layers, ...]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, order: torch.Tensor, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Layers, torch.Tensor]]:
        """Layers and labels of the images at these positions, each mirrored or not at random."""
        which = torch.randint(len(self.copies), (len(order),), generator=generator)
        for start in range(0, len(order), size):
            rows, copy = order[start : start + size], which[start : start + size]
            layers = tuple(
                torch.stack([one[layer][rows] for one in self.copies])[copy, torch.arange(len(rows))]
                for layer in range(len(self.copies[0]))
            )
            yield layers, self.labels[rows]


@torch.no_grad()
def outputs_of(
    net: SemanticHashNet, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], device: torch.device, *, mirror: bool
) -> Outputs:
    """What the network's backbone makes of images.

    Args:
        net: whose backbone is in evaluation mode.
        batches: pixels (n, 3, size, size) uint8 and labels (n,).
        device: of the network.
        mirror: whether to have a copy of the mirrored images, too.

    Raises:
        DataError: there is no image.
    """
    found: tuple[list[Layers], ...] = ([], []) if mirror else ([],)
    labels = []
    for pixels, of_batch in batches:
        images = pixels.to(device).contiguous(memory_format=torch.channels_last)
        for copy, shown in zip(found, (images, images.flip(3)), strict=False):
            copy.append(tuple(layer.float().cpu() for layer in net.middle_outputs(shown)))
        labels.append(of_batch)
    if not labels:
        raise DataError("none of the images can be read")
    return Outputs(
        tuple(tuple(torch.cat(layer) for layer in zip(*copy, strict=True)) for copy in found), torch.cat(labels)
    )
