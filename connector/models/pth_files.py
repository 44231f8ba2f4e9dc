"""Read weights from a .pth file of torch that may come from someone else, in memory in proportion to the file.

`torch.load` is not used, not even with `weights_only`. It runs no code then, but it trusts a file in other ways: a few
bytes make copies of dictionaries, or change the size of a tensor so that it shows memory of this process; records may
overlap, so that a thousand of them share the same megabytes; one number can stand for all numbers of a tensor, 2^40 for
example; and `tarfile` takes gigabytes for a hundred kilobytes. So the description of the tensors is read by
`weight_pickle`, which makes no tensor, and the numbers are read here:

- Every record that the description uses is in the file, and has exactly the bytes of the numbers that are stated of it.
- Every tensor lies in its record, and has at most as many numbers as the record.

Files in torch's format before version 1.6, which is no zip archive, are read as well: five pickles, then each record
behind its number of numbers. Tar archives, as the first versions of torch wrote, are refused.
"""

from __future__ import annotations

import errno
import io
import math
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from semcut.connector.models.weight_pickle import Described, Record, WeightPickle
from semcut.indexes.errors import shown
from semcut.indexes.regular_files import BoundedReads, open_binary

_PICKLE_BYTES = 4 << 20
"""The largest description of the tensors; one of a thousand tensors has 0.1 MB."""
_DIRECTORY_BYTES = 4 << 20
"""The largest directory of a zip archive: 40,000 records of torch."""
_MOST_TENSORS = 20_000
_MAX_NUMBERS = 1 << 40
_PIECE_BYTES = 1 << 20
_ZIP, _OLD = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file begins: a zip archive; and the first pickle of the old format, which is always the same number."""
_OLD_VERSION = 1001
_TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}

Numbers = dict[str, bytearray]
"""The bytes of each record, by its name."""


Check = Callable[[Mapping[str, tuple[int, ...]]], None]


def read_pth(file: Path, max_bytes: int, check: Check | None = None) -> dict[str, torch.Tensor]:
    """Read all tensors of a file, which holds a dictionary of them and nothing else.

    Args:
        file: the file.
        max_bytes: its largest size.
        check: is called with the shapes by name before the numbers are read; may raise a `ValueError`.

    Returns:
        Tensors of the shapes and dtypes in the file, on the CPU; parameters are tensors, too.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger than `max_bytes`.
        ValueError: it is no file of torch, or breaks a rule above; the message is the reason.
    """
    with open_binary(file, max_bytes=max_bytes, follow=True) as stream:
        start = stream.read(tarfile.BLOCKSIZE)
        stream.seek(0)
        if start.startswith(_ZIP):
            state, numbers = _read_zip(stream, check)
        else:
            _require_old_format(start)
            state, numbers = _read_old(stream, check)
    return {name: _tensor(name, value, numbers) for name, value in state.items()}


def _read_zip(stream: IO[bytes], check: Check | None) -> tuple[dict[str, Any], Numbers]:
    """Read the description, and the bytes of all records that it uses, from a zip archive."""
    size = os.fstat(stream.fileno()).st_size
    try:
        with zipfile.ZipFile(BoundedReads(stream, _DIRECTORY_BYTES)) as archive:
            return _read_archive(archive, size, check)
    except Exception as error:  # zipfile raises errors of many types for an archive that is damaged
        if isinstance(error, OSError | MemoryError) and getattr(error, "errno", None) != errno.EINVAL:
            raise
        if type(error) is ValueError:
            raise
        raise ValueError("it is a zip archive that is damaged, or that torch has not written") from None


def _read_archive(archive: zipfile.ZipFile, size: int, check: Check | None) -> tuple[dict[str, Any], Numbers]:
    infos = archive.infolist()
    by_name = {info.filename: info for info in infos}
    if len(by_name) < len(infos):
        raise ValueError("it has the same record twice")
    if sum(info.file_size for info in infos) > size:
        raise ValueError(f"its records have more bytes than the file ({size:,})")
    folder = infos[0].filename.partition("/")[0] if infos else ""

    def content(name: str, most: int) -> bytearray:
        info = by_name.get(f"{folder}/{name}")
        if info is None:
            raise ValueError(f"it has no record {shown(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(f"{shown(name)} is compressed, which torch never writes")
        if info.file_size > most:
            raise ValueError(f"{shown(name)} has more than {most:,} bytes")
        with archive.open(info) as stream:
            return _read_all(stream.read, info.file_size)

    if f"{folder}/byteorder" in by_name and content("byteorder", _PIECE_BYTES) != b"little":
        raise ValueError("its numbers are not little-endian, as most computers have them")
    pickle = WeightPickle(io.BytesIO(content("data.pkl", _PICKLE_BYTES)))
    state = _require_tensors(pickle.read(), check)
    numbers: Numbers = {}
    for key, record in pickle.records.items():
        info = by_name.get(f"{folder}/data/{key}")
        if info is None or info.file_size != _bytes_of(record):
            held = 0 if info is None else info.file_size
            raise ValueError(f"it states {record.count:,} numbers in the record {shown(key)}, which has {held:,} bytes")
        numbers[key] = content(f"data/{key}", info.file_size)
    return state, numbers


def _require_old_format(start: bytes) -> None:
    """Raise `ValueError` unless a file begins as the old format does, and not as a tar archive as well."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")  # reads a header, and nothing behind it
    except tarfile.HeaderError:
        if not start.startswith(_OLD):
            raise ValueError("it is no file that torch.save writes") from None
    else:
        raise ValueError(
            "it is a tar archive, as the first versions of torch wrote, which can run code when it is read: get the "
            "weights as .safetensors, or as a .pth file of a later version, from where they come"
        )


def _read_old(stream: IO[bytes], check: Check | None) -> tuple[dict[str, Any], Numbers]:
    """Read the description, and the bytes of all records, from a file of the old format."""
    head = io.BytesIO(stream.read(_PICKLE_BYTES))
    pickle = WeightPickle(head)
    _, version, _, description, keys = (pickle.read() for _ in range(5))
    if version != _OLD_VERSION:
        raise ValueError(f"it has version {shown(version)} of the format, expected {_OLD_VERSION}")
    state, used = _require_tensors(description, check), pickle.records
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("it names its records in another way than torch does")
    if len(keys) != len(used) or set(keys) != used.keys():
        raise ValueError(f"it uses {len(used):,} records, but holds {len(keys):,}, or others")
    stream.seek(head.tell())
    left = os.fstat(stream.fileno()).st_size - head.tell()
    numbers: Numbers = {}
    for key in keys:
        size = _bytes_of(used[key])
        left -= 8 + size
        if left < 0 or int.from_bytes(stream.read(8), "little") != used[key].count:
            raise ValueError(
                f"it states {used[key].count:,} numbers in the record {shown(key)}, which has others or ends early"
            )
        numbers[key] = _read_all(stream.read, size)
    return state, numbers


def _bytes_of(record: Record) -> int:
    return record.count * _TYPES[record.kind].itemsize


def _read_all(read: Callable[[int], bytes], size: int) -> bytearray:
    """Read `size` bytes, in pieces; `ValueError` if there are fewer."""
    found = bytearray(size)
    position = 0
    while position < size:
        piece = read(min(size - position, _PIECE_BYTES))
        if not piece:
            raise ValueError("it ends early")
        found[position : position + len(piece)] = piece
        position += len(piece)
    return found


def _require_tensors(state: Any, check: Check | None) -> dict[str, Described]:
    """Raise `ValueError` for what is no dictionary of tensors in their records, or has other shapes than expected."""
    if not isinstance(state, dict):
        raise ValueError("it holds no tensors by name")
    if len(state) > _MOST_TENSORS:
        raise ValueError(f"it has {len(state):,} tensors, expected at most {_MOST_TENSORS:,}")
    for name, value in state.items():
        if type(name) is not str or type(value) is not Described:
            raise ValueError(
                f"{shown(name)} is not a tensor of numbers: save a file of the state dict of a network only"
            )
        if wrong := [one for one in (value.first, *value.shape, *value.strides) if not 0 <= one <= _MAX_NUMBERS]:
            raise ValueError(f"{shown(name)} has the size {shown(wrong[0])}, expected 0 to {_MAX_NUMBERS:,}")
        last = value.first + sum((size - 1) * step for size, step in zip(value.shape, value.strides, strict=True))
        numbers, empty = math.prod(value.shape), 0 in value.shape
        if empty and math.prod(size or 1 for size in value.shape) > _MAX_NUMBERS:
            raise ValueError(f"{shown(name)} has no numbers, but a size of more than {_MAX_NUMBERS:,}")
        if not empty and max(last + 1, numbers) > value.record.count:
            raise ValueError(f"{shown(name)} has {numbers:,} numbers, but its record holds {value.record.count:,}")
    if check is not None:
        check({name: value.shape for name, value in state.items()})
    return state


def _tensor(name: str, value: Described, numbers: Numbers) -> torch.Tensor:
    """Make a tensor, which was checked, of the bytes of its record."""
    kind = _TYPES[value.record.kind]
    if 0 in value.shape:
        return torch.empty(value.shape, dtype=kind)
    return torch.frombuffer(numbers[value.record.key], dtype=kind).as_strided(value.shape, value.strides, value.first)
