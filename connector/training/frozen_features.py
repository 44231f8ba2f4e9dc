"""What a frozen backbone makes of every image, computed once: an epoch then takes seconds instead of minutes.

With the "flip" and "strong" augmentations there is a second copy, of the mirrored images; all else that they do would
mean to compute everything anew, and is left out.

It is kept in the cache (see `data`), so that it need not be computed again for another head, or another seed if that
draws the same images; unless the backbone is random, and so nobody else's. A file there is named by the SHA-256 of all
that it depends on: the backbone's weights, how images are scaled, and path, length and time of every file. Deleting it
costs only the time to compute it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from semcut.connector.data import sources
from semcut.connector.models.network import SemanticHashNet
from semcut.indexes.errors import DataError

_VERSION = 1
"""Of what is kept; to be raised when images are decoded or scaled in another way."""

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


def kept_outputs(
    net: SemanticHashNet,
    parts: Sequence[sources.ImageSet],
    read: Callable[[sources.ImageSet], Iterable[tuple[torch.Tensor, torch.Tensor]]],
    device: torch.device,
    *,
    mirror: bool,
    keep: bool = True,
) -> list[Outputs]:
    """`outputs_of` images, from the cache if they are there, into it if not and if there is room.

    Args:
        parts: of the images; however they are divided, it is the same file in the cache.
        read: gives batches of images, see `outputs_of`; what cannot be read is left out.
        net, device, mirror: see there.
        keep: whether to use the cache, see `others_have_it`: otherwise it would only take room.

    Raises:
        DataError: there is no image.
    """
    files = sorted(file for part in parts for file in part.files)
    images = sources.ImageSet(tuple(files), np.arange(len(files)), parts[0].classes)
    file = sources.cache() / f"frozen-{_key(net, files, device, mirror)}.safetensors"
    every = _read(file) if keep else None
    if every is None:
        every = outputs_of(net, read(images), device, mirror=mirror)
        if keep and len(every) == len(files):  # what could not be read now may be readable the next time
            _write(every, file)
    row_of = {files[number]: row for row, number in enumerate(every.labels.tolist())}
    found = []
    for part in parts:
        pairs = [
            (row_of[file], int(label)) for file, label in zip(part.files, part.labels, strict=True) if file in row_of
        ]
        rows, labels = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unbind(dim=1)
        found.append(Outputs(tuple(tuple(layer[rows] for layer in copy) for copy in every.copies), labels))
    return found


def others_have_it(training: Mapping[str, Any]) -> bool:
    """Whether other networks have this one's frozen backbone, too: `training` says how it began, see `Checkpoint`."""
    return any(training.get(name) is not None for name in ("backbone_weights", "start"))


def _read(file: Path) -> Outputs | None:
    """Outputs that are kept in a file; None if it is not there, or damaged."""
    try:
        with safe_open(file, "pt") as stored:
            layers, copies = (int(stored.metadata()[name]) for name in ("layers", "copies"))
            return Outputs(
                tuple(tuple(stored.get_tensor(f"{copy}.{layer}") for layer in range(layers)) for copy in range(copies)),
                stored.get_tensor("labels"),
            )
    except Exception:  # safetensors has errors of its own, and others come through it
        return None


def _write(outputs: Outputs, file: Path) -> None:
    """Keep outputs in a file, in one step; not where there is no room for it."""
    tensors = {f"{c}.{i}": layer for c, copy in enumerate(outputs.copies) for i, layer in enumerate(copy)}
    scratch = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"layers": str(len(outputs.copies[0])), "copies": str(len(outputs.copies))}
        save_file({**tensors, "labels": outputs.labels}, scratch, metadata)
        os.replace(scratch, file)
    except (OSError, SafetensorError):
        pass
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def _key(net: SemanticHashNet, files: Sequence[str], device: torch.device, mirror: bool) -> str:
    architecture, backbone = net.architecture, net.backbone
    facts = (_VERSION, architecture.backbone, architecture.image_size, backbone.mean, backbone.std, device.type, mirror)
    digest = hashlib.sha256(repr(facts).encode())
    for name, value in backbone.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for file in files:
        digest.update(f"{file}\0{_facts(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _facts(file: str) -> tuple[int, int] | None:
    """Length and time of a file, None if it is gone."""
    try:
        facts = Path(file).stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns
