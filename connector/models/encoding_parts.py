"""Compare the parts of two networks that decide features and codes: only then can their encodings be mixed.

These are all tensors but those that tell the classes apart: the softmax layer and its temperature, the classifier of
the hash branch, the codewords, and the vectors of the classes of an adopted network. The image size, the normalisation
of the pixels and how outputs become bits decide features and codes, too.
"""

from __future__ import annotations

import hashlib

import torch

from semcut.connector.models.image_network import ImageNetwork, encoding_facts

_OF_CLASSES = ("semantic.", "head.classifier.", "head.centres", "head.targets", "temperature", "vectors")
"""How the names of tensors begin that decide neither features nor codes. A name that is not here counts as decisive."""
_COUNTER = "num_batches_tracked"


def part_digests(net: ImageNetwork) -> dict[str, str]:
    """Return a digest, in hexadecimal, of each part of a network that decides features and codes, by its name."""
    architecture = net.architecture.model_dump(mode="json", exclude={"classes"})
    settings = {**architecture, **encoding_facts(net.architecture)}
    digests = {name: _digest(repr(value).encode()) for name, value in settings.items()}
    for name, tensor in net.state_dict().items():
        if not name.startswith(_OF_CLASSES) and not name.endswith(_COUNTER):
            content = tensor.detach().cpu().contiguous()
            shape = f"{tensor.dtype} {tuple(tensor.shape)} ".encode()
            digests[name] = _digest(shape + content.view(-1).view(torch.uint8).numpy().tobytes())
    return digests


def different_part(one: ImageNetwork, other: ImageNetwork) -> str | None:
    """Name a part by which two networks compute other features or codes of the same image; None if there is none."""
    first, second = part_digests(one), part_digests(other)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return names[0] if names else None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
