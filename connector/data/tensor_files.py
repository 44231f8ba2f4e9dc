"""Read a .safetensors file that may come from someone else: a regular file, within limits, and all of it finite.

`safetensors.safe_open` opens a file by its name and maps it: a FIFO under that name makes it wait, and a mapped file
that becomes shorter ends the process. Here a file is opened once, its size and its header are checked, and only then is
its content read. The caller passes the content to `safetensors`, which checks the header again, completely.

Source: https://github.com/huggingface/safetensors, section Format: the length of the header as 8 bytes, the header as
JSON, the tensors.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from semcut.indexes.errors import shown
from semcut.indexes.regular_files import open_binary

_HEADER_BYTES = 4 << 20
"""The longest header; one of a thousand tensors has 0.1 MB."""
_MAX_DIMENSIONS, _MAX_NUMBER = 8, 1 << 40
"""The largest shape and offsets, checked before they are multiplied."""
_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""The types of numbers, and their sizes."""

Shapes = Mapping[str, tuple[int, ...]]
Check = Callable[[Shapes, Mapping[str, str]], None]


@dataclass(frozen=True, eq=False)
class TensorFile:
    """A whole file.

    Attributes:
        content: all bytes, for `safetensors.torch.load` or `safetensors.numpy.load`.
        shapes: the shape of every tensor, by name.
        metadata: the texts beside the tensors.
    """

    content: bytes
    shapes: Shapes
    metadata: Mapping[str, str]


def read_tensor_file(
    path: str | os.PathLike[str], max_bytes: int, *, follow: bool = False, check: Check | None = None
) -> TensorFile:
    """Read a file of at most `max_bytes`.

    Args:
        path: the file.
        max_bytes: its largest size.
        follow: whether it may be a symbolic link, as for files that a user names.
        check: is called with the shapes and the metadata before the tensors are read; may raise an error of its own.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger; see `regular_files`.
        ValueError: it is no .safetensors file, or its size or that of a tensor does not fit its header.
    """
    with open_binary(path, max_bytes=max_bytes, follow=follow) as stream:
        start, shapes, metadata, size = _start(stream)
        if check is not None:
            check(shapes, metadata)
        stream.seek(0)
        content = stream.read(size)
        if len(content) != size or not content.startswith(start):
            raise OSError(errno.EIO, "it was changed while it was read", os.fspath(path))
        return TensorFile(content, shapes, metadata)


def read_metadata(path: str | os.PathLike[str], max_bytes: int) -> Mapping[str, str]:
    """Read only the texts beside the tensors of a file; arguments and errors as for `read_tensor_file`."""
    with open_binary(path, max_bytes=max_bytes) as stream:
        return _start(stream)[2]


def _start(stream: IO[bytes]) -> tuple[bytes, Shapes, Mapping[str, str], int]:
    """Read what is before the tensors: its bytes, the shapes, the metadata; and the size of the file that fits them."""
    size = os.fstat(stream.fileno()).st_size
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, _HEADER_BYTES):
        raise ValueError("it is not a .safetensors file, or is cut off")
    header = stream.read(length)
    shapes, metadata, expected = _parse(header)
    if size != 8 + length + expected:
        raise ValueError(f"it has {size:,} bytes, but its header describes {8 + length + expected:,}")
    return prefix + header, shapes, metadata, size


def require_finite(tensors: Mapping[str, Any], path: Path) -> None:
    """Raise `ValueError` if a tensor of numpy or torch holds a number that is not finite.

    A network with such a number encodes images as if nothing were wrong: every comparison with NaN is false.
    """
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        with np.errstate(over="ignore", invalid="ignore"):
            # a sum, which takes no memory, is not finite if a number is not, or if large numbers overflow
            if array.dtype.kind == "f" and not np.isfinite(array.sum()) and not np.isfinite(array).all():
                raise ValueError(f"{shown(name)} holds numbers that are not finite")


def compare_shapes(found: Shapes, expected: Mapping[str, Any]) -> None:
    """Raise `ValueError` if names or shapes differ from those of the expected tensors, of numpy or torch."""
    if missing := expected.keys() - found.keys():
        raise ValueError(f"{min(missing)} is missing")
    if unknown := found.keys() - expected.keys():
        raise ValueError(f"{shown(min(unknown))} is not part of the network")
    for name, tensor in expected.items():
        if found[name] != tuple(tensor.shape):
            raise ValueError(f"{name} has shape {list(found[name])}, expected {list(tensor.shape)}")


def as_stored(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors of torch in the types of the expected ones of the same names.

    Raises:
        ValueError: one holds integers in place of floats, which no network is stored as, and which take more memory
            than their file; or has no expected one.
    """
    for name, tensor in found.items():
        if name not in expected:
            raise ValueError(f"{shown(name)} is not part of the network")
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}, expected {expected[name].dtype}")
    return {name: tensor.to(expected[name].dtype) for name, tensor in found.items()}


def _parse(header: bytes) -> tuple[Shapes, Mapping[str, str], int]:
    """Read the names and shapes of the tensors, the metadata, and the number of bytes of all tensors."""
    try:
        entries = json.loads(header)
        metadata = entries.pop("__metadata__", {})
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        places = {name: tuple(entry["data_offsets"]) for name, entry in entries.items()}
        sizes = {name: _BYTES[entry["dtype"]] for name, entry in entries.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise ValueError("its header cannot be read") from None
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its header cannot be read")
    for name, shape in shapes.items():
        place = places[name]
        if len(shape) > _MAX_DIMENSIONS or len(place) != 2:
            raise ValueError(f"its header cannot be read: {shown(name)} has {len(shape):,} dimensions")
        if any(type(number) is not int or not 0 <= number <= _MAX_NUMBER for number in (*shape, *place)):
            raise ValueError(f"its header cannot be read: a size of {shown(name)} is no number up to {_MAX_NUMBER:,}")
        if math.prod(shape) * sizes[name] != place[1] - place[0]:
            raise ValueError(f"its header cannot be read: the shape of {shown(name)} is not that of its bytes")
    return shapes, metadata, max((place[1] for place in places.values()), default=0)
