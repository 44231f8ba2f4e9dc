"""Compute the outputs of a frozen backbone once for each image: an epoch then takes seconds instead of minutes.

With the "flip" and "strong" augmentations, the outputs for the mirrored images are computed too. The other changes of
these augmentations are left out with a frozen backbone, because they would need new outputs in every epoch.

The outputs are cached on disk (see `data.sources`), so that a training with another head, or with another seed on the
same images, need not compute them again. Outputs of a random backbone are not cached, because no other network has the
same backbone. The name of a cached file contains a digest of everything that its content depends on: the backbone and
its weights, how images are scaled, the kind of device, whether images are mirrored, and the contents of all image files
in order. Deleting a cached file costs only the time to compute it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from semcut.connector.data.image_contents import DIGEST_BYTES, digests_of
from semcut.connector.data.source_folders import cache
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.network import SemanticHashNet
from semcut.connector.training.batches import NumberedFiles
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import open_binary
from semcut.indexes.storage.atomic_write import replacing

_VERSION = 2
"""Version of the cached files; raise it when the decoding or scaling of images changes."""

Layers = tuple[torch.Tensor, ...]
"""Mid-level outputs of a backbone for n images: (n, width) each."""

LabelledBatches = Iterable[tuple[torch.Tensor, torch.Tensor]]
"""Batches of pixels (n, 3, size, size) uint8 and labels (n,) int64."""


@dataclass(frozen=True, eq=False)
class FrozenFeatures:
    """Outputs of a frozen backbone for n images.

    Attributes:
        layers: outputs for the images.
        labels: (n,) int64.
        mirrored: outputs for the mirrored images; None if they are not needed.
    """

    layers: Layers
    labels: torch.Tensor
    mirrored: Layers | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def variants(self) -> tuple[Layers, ...]:
        """The outputs for the images, followed by the outputs for the mirrored images if these were computed."""
        return (self.layers,) if self.mirrored is None else (self.layers, self.mirrored)

    def rows(self, rows: torch.Tensor, labels: torch.Tensor) -> FrozenFeatures:
        """Select the outputs of these images, and give them other labels."""
        layers, *mirrored = (tuple(layer[rows] for layer in variant) for variant in self.variants)
        return FrozenFeatures(layers, labels, *mirrored)

    def batches(
        self, order: torch.Tensor, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Layers, torch.Tensor]]:
        """Yield outputs and labels of the images at these positions in batches; each is mirrored or not, at random."""
        variants = self.variants
        choice = torch.randint(len(variants), (len(order),), generator=generator)
        for start in range(0, len(order), size):
            rows, chosen = order[start : start + size], choice[start : start + size]
            layers = tuple(
                torch.stack([variant[layer][rows] for variant in variants])[chosen, torch.arange(len(rows))]
                for layer in range(len(self.layers))
            )
            yield layers, self.labels[rows]


@torch.no_grad()
def compute_features(
    net: SemanticHashNet, batches: LabelledBatches, device: torch.device, *, mirror: bool
) -> FrozenFeatures:
    """Run the backbone of a network on images.

    Args:
        net: the network, its backbone in evaluation mode.
        batches: pixels and labels of the images.
        device: device of the network.
        mirror: whether to run the backbone on the mirrored images too.

    Raises:
        DataError: none of the images can be read.
    """
    found: tuple[list[Layers], ...] = ([], []) if mirror else ([],)
    labels = []
    for pixels, batch_labels in batches:
        images = pixels.to(device).contiguous(memory_format=torch.channels_last)
        for variant, shown in zip(found, (images, images.flip(3)), strict=False):
            variant.append(tuple(layer.float().cpu() for layer in net.backbone_outputs(shown)))
        labels.append(batch_labels)
    if not labels:
        raise DataError("none of the images can be read")
    layers, *mirrored = (tuple(torch.cat(layer) for layer in zip(*variant, strict=True)) for variant in found)
    return FrozenFeatures(layers, torch.cat(labels), *mirrored)


def cached_features(
    net: SemanticHashNet,
    parts: Sequence[ImageSet | NumberedFiles],
    read: Callable[[NumberedFiles], LabelledBatches],
    device: torch.device,
    *,
    mirror: bool,
    use_cache: bool = True,
) -> list[FrozenFeatures]:
    """Read the features of images from the cache; or compute them, and cache them if all images can be read.

    Args:
        net: the network, its backbone in evaluation mode.
        parts: the images. All parts share one file in the cache, which does not depend on the division into parts.
        read: reads images in batches; leaves out images that cannot be read.
        device: device of the network.
        mirror: whether to return the features of the mirrored images too.
        use_cache: whether to use the cache; False for a backbone that no other network has, see `has_shared_backbone`.

    Returns:
        The features of each part, without images that cannot be read.

    Raises:
        DataError: none of the images can be read.
    """
    files = sorted(file for part in parts for file in part.files)
    images = NumberedFiles(tuple(files))
    file = cache() / f"frozen-{_key(net, files, device, mirror)}.safetensors"
    features = _read(file) if use_cache else None
    if features is None:
        features = compute_features(net, read(images), device, mirror=mirror)
        if use_cache and len(features) == len(files):  # an unreadable file may be readable the next time
            _write(features, file)
    row_of = {files[number]: row for row, number in enumerate(features.labels.tolist())}
    found = []
    for part in parts:
        pairs = [
            (row_of[file], int(label)) for file, label in zip(part.files, part.labels, strict=True) if file in row_of
        ]
        rows, labels = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(dim=1)
        found.append(features.rows(rows, labels))
    return found


def has_shared_backbone(training: Mapping[str, Any]) -> bool:
    """Check whether other networks can have the same frozen backbone: it was pretrained, or is from a warm start.

    Args:
        training: settings of the training, see `Checkpoint`.
    """
    return any(training.get(name) is not None for name in ("backbone_weights", "start"))


def _read(file: Path) -> FrozenFeatures | None:
    """Read cached features; None if the file does not exist or is damaged."""
    try:
        # `safe_open` takes only a path: this one leads to the file that was checked, whatever has its name by now.
        with open_binary(file) as checked, safe_open(f"/proc/self/fd/{checked.fileno()}", "pt") as stored:
            depth, variants = (int(stored.metadata()[name]) for name in ("layers", "copies"))
            layers, *mirrored = (
                tuple(stored.get_tensor(f"{variant}.{layer}") for layer in range(depth)) for variant in range(variants)
            )
            return FrozenFeatures(layers, stored.get_tensor("labels"), *mirrored)
    except Exception:  # safetensors raises errors of its own type and of others
        return None


def _write(features: FrozenFeatures, file: Path) -> None:
    """Write features to the cache in one step; do nothing if the file cannot be written."""
    tensors = {f"{v}.{i}": layer for v, variant in enumerate(features.variants) for i, layer in enumerate(variant)}
    metadata = {"layers": str(len(features.layers)), "copies": str(len(features.variants))}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as scratch:
            save_file({**tensors, "labels": features.labels}, scratch, metadata)
    except OSError:
        pass


def _key(net: SemanticHashNet, files: Sequence[str], device: torch.device, mirror: bool) -> str:
    """Compute the digest in the name of a cached file from everything that the content of the file depends on."""
    architecture, backbone = net.architecture, net.backbone
    facts = (_VERSION, architecture.backbone, architecture.image_size, backbone.mean, backbone.std, device.type, mirror)
    digest = hashlib.sha256(repr(facts).encode())
    for name, value in backbone.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for content in digests_of(files):
        digest.update(content or bytes(DIGEST_BYTES))
    return digest.hexdigest()[:24]
