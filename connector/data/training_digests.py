"""Read and write the digests of the images that a network was trained on: `training-images.safetensors`.

They tell whether an image is one of them, in whichever folder or archive it is, see `image_contents`. No function here
needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semcut.connector.data.sources import DIGEST_BYTES
from semcut.connector.data.tensor_files import Shapes, read_tensor_file
from semcut.indexes.errors import CheckpointError
from semcut.indexes.storage.atomic_write import replacing

TRAINING_DIGESTS = "training-images.safetensors"
"""Name of the file: digests of the training images and of the validation images, (n, 16) uint8, sorted."""
_MOST_DIGESTS = 4_000_000
_DIGESTS_BYTES = _MOST_DIGESTS * DIGEST_BYTES + (1 << 20)


class TrainingDigests(NamedTuple):
    """Digests of the images that a network was trained on, and of those by which its epoch was chosen."""

    training: frozenset[bytes]
    validation: frozenset[bytes]

    @property
    def all(self) -> frozenset[bytes]:
        """The digests of both."""
        return self.training | self.validation


def write_digests(path: Path, digests: TrainingDigests) -> None:
    """Write the digests of the images of a training to its run directory, in one step."""
    with replacing(path / TRAINING_DIGESTS) as scratch:
        scratch.write_bytes(stored_digests(digests))


def stored_digests(digests: TrainingDigests) -> bytes:
    """Return what `write_digests` writes: the same bytes for the same digests."""
    import safetensors.numpy

    return safetensors.numpy.save(
        {
            name: np.frombuffer(b"".join(sorted(part)), np.uint8).reshape(-1, DIGEST_BYTES)
            for name, part in digests._asdict().items()
        }
    )


def read_digests(path: Path) -> TrainingDigests:
    """Read the digests of the images that a network was trained and validated on.

    Args:
        path: run directory of the network.

    Raises:
        CheckpointError: they were not recorded, or cannot be read.
    """
    import safetensors.numpy

    file = path / TRAINING_DIGESTS
    try:
        tensors = safetensors.numpy.load(read_tensor_file(file, _DIGESTS_BYTES, check=_check_digests).content)
        for name in TrainingDigests._fields:
            if tensors[name].dtype != np.uint8:
                raise ValueError(f"{name} are not digests of {DIGEST_BYTES} bytes")
        return TrainingDigests(*(frozenset(map(bytes, tensors[name])) for name in TrainingDigests._fields))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not record the contents of its training images (no {TRAINING_DIGESTS}), as networks of "
            "earlier versions and adopted ones: train it again, because paths do not tell whether an image is the same"
        ) from None
    except Exception as error:  # safetensors raises errors of its own type and of others
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot read {file}: {reason}") from None


def _check_digests(shapes: Shapes, metadata: Mapping[str, str]) -> None:
    """Raise `ValueError` unless the tensors are digests of both kinds, and no more than are ever read."""
    if shapes.keys() != set(TrainingDigests._fields):
        raise ValueError(f"expected the tensors {' and '.join(TrainingDigests._fields)}")
    for name, shape in shapes.items():
        if len(shape) != 2 or shape[1] != DIGEST_BYTES:
            raise ValueError(f"{name} are not digests of {DIGEST_BYTES} bytes")
    count = sum(shape[0] for shape in shapes.values())
    if count > _MOST_DIGESTS:
        raise ValueError(f"it has {count:,} digests, expected at most {_MOST_DIGESTS:,}")
