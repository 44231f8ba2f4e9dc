"""Read weights from a .pth file of torch that may come from someone else, in memory in proportion to the file.

With `weights_only`, `torch.load` runs no code of a file, but it trusts a file in other ways:

- Its pickle may call a few harmless functions, any number of times: `bytearray(10**10)`, or a copy of a dictionary of
  a thousand entries for every three bytes. So only what the weights of a network need may be named here.
- Its records may overlap, so that a thousand of them share the same megabytes, and its library for zip archives may
  find other records than another library. So torch gets a copy of the records that were checked.
- A description may state more numbers than its record has, which some versions of torch believe.
- One number can stand for all numbers of a tensor, 2^40 for example. So every tensor has all of its own in memory.

Files in torch's format before version 1.6, which is no zip archive, are read as well.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from semcut.indexes.errors import shown
from semcut.indexes.regular_files import open_binary

_PICKLE_BYTES = 4 << 20
"""The largest description of the tensors; one of a thousand tensors has 0.1 MB."""
_MOST_RECORDS = 100_000
_MOST_CALLS = 100_000
"""How often the description may make a tensor, or name the numbers of one; each is there for a few bytes."""
_OLD_PICKLES = 5
"""How many pickles a file of the old format begins with."""
_ORDERED = "collections OrderedDict"
_NUMBER_BYTES = {
    f"torch {name}Storage": size
    for names, size in (
        ("Double Long", 8),
        ("Float Int", 4),
        ("Half BFloat16 Short", 2),
        ("Char Byte Bool", 1),
    )
    for name in names.split()
}
_NAMES = re.compile(
    rf"{_ORDERED}|torch\._utils _rebuild_(tensor_v2|parameter)"
    rf"|{'|'.join(_NUMBER_BYTES)}"
)
_NUMBERS = ["MARK", "BINUNICODE", "GLOBAL", "BINUNICODE", "BINUNICODE", "INT", "TUPLE"]
"""What comes before each use of a record: ("storage", its type, its name, a device, how many numbers)."""


def read_pth(file: Path, max_bytes: int) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger than `max_bytes`.
        Exception: of several types, if it is no file of torch, or breaks a rule above; the message is the reason.
    """
    with open_binary(file, max_bytes=max_bytes, follow=True) as stream:
        size = os.fstat(stream.fileno()).st_size
        is_zip = stream.read(4) == b"PK\x03\x04"
        stream.seek(0)
        source: IO[bytes] = stream
        if is_zip:
            source = _checked_copy(stream, size)
        else:
            head = io.BytesIO(stream.read(_PICKLE_BYTES))
            for _ in range(_OLD_PICKLES):
                _check_pickle(head)
            stream.seek(0)
        state = torch.load(source, "cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("it holds no tensors by name")
    _check_tensors(state)
    return state


def _checked_copy(stream: IO[bytes], size: int) -> io.BytesIO:
    """Copy the records of a zip archive to another in memory."""
    copy = io.BytesIO()
    with zipfile.ZipFile(stream) as archive, zipfile.ZipFile(copy, "w") as copied:
        records = archive.infolist()
        if len(records) > _MOST_RECORDS or len({record.filename.lower() for record in records}) < len(records):
            raise ValueError(f"it has more than {_MOST_RECORDS:,} records, or the same twice")
        if compressed := [record.filename for record in records if record.compress_type]:
            raise ValueError(f"{shown(compressed[0])} is compressed, which torch never writes")
        if sum(record.file_size for record in records) > size:
            raise ValueError(f"its records have more bytes than the file ({size:,})")
        sizes = {record.filename.lower(): record.file_size for record in records}
        for record in records:
            content = archive.read(record)
            if record.filename.lower().endswith(".pkl"):
                if len(content) > _PICKLE_BYTES:
                    raise ValueError(f"{shown(record.filename)} has more than {_PICKLE_BYTES:,} bytes")
                _check_pickle(io.BytesIO(content))
                _check_numbers(content, sizes, records[0].filename.lower().partition("/")[0])
            copied.writestr(record.filename, content)
    copy.seek(0)
    return copy


def _operations(pickle: bytes | IO[bytes]) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    try:
        yield from pickletools.genops(pickle)
    except Exception:  # its errors quote the bytes
        raise ValueError("it has no weights in a form that torch writes") from None


def _check_pickle(stream: IO[bytes]) -> None:
    """Read the operations of a pickle, without running any, and refuse names and calls that no weights need."""
    ordered: set[object] = set()  # keys under which the pickle keeps the class OrderedDict
    wanted: list[str] = []  # operations that have to follow: the class is only called without arguments
    calls = 0
    for operation, argument, _ in _operations(stream):
        calls += operation.name in ("REDUCE", "BINPERSID", "PERSID")
        if calls > _MOST_CALLS:
            raise ValueError(f"it makes more than {_MOST_CALLS:,} tensors and their parts")
        if operation.name in ("BINPUT", "LONG_BINPUT"):
            if len(wanted) == 2:
                ordered.add(argument)
            continue
        if wanted and operation.name != wanted.pop(0):
            raise ValueError("it copies a dictionary")
        if operation.name in ("NEWOBJ", "INST", "OBJ", "STACK_GLOBAL", "NEWOBJ_EX"):
            raise ValueError(f"it makes objects ({operation.name})")
        if operation.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
            raise ValueError(f"it names {shown(str(argument).replace(' ', '.'))}, which weights do not need")
        if argument == _ORDERED or (operation.name in ("BINGET", "LONG_BINGET") and argument in ordered):
            wanted = ["EMPTY_TUPLE", "REDUCE"]


def _check_numbers(content: bytes, sizes: dict[str, int], folder: str) -> None:
    """Check that each record that a pickle uses has just the bytes of the numbers that it states.

    Args:
        content: the pickle, which was checked.
        sizes: the bytes of each record, by its name in lower case.
        folder: the folder of all records.
    """
    kept: dict[object, tuple[str, Any]] = {}
    latest: list[tuple[str, Any]] = [("", None)]
    for operation, argument, _ in _operations(content):
        name = "INT" if operation.name in ("BININT", "BININT1", "BININT2", "LONG1") else operation.name
        if name in ("BINPUT", "LONG_BINPUT"):
            kept[argument] = latest[-1] if latest[-1][0] in ("BINUNICODE", "GLOBAL") else ("", None)
            continue
        if name in ("BINGET", "LONG_BINGET"):
            name, argument = kept.get(argument, ("", None))
        if name in ("BINPERSID", "PERSID"):
            if [one for one, _ in latest] != _NUMBERS:
                raise ValueError("it names its records in another way than torch does")
            kind, key, count = latest[2][1], latest[3][1], latest[5][1]
            held = sizes.get(f"{folder}/data/{key}".lower())
            if held is None or held != count * _NUMBER_BYTES.get(kind, 0):
                raise ValueError(
                    f"it states {count:,} numbers in the record {shown(key)}, which has {held or 0:,} bytes"
                )
        latest = [*latest[-len(_NUMBERS) + 1 :], (name, argument)]


def _check_tensors(state: dict[str, Any]) -> None:
    """Raise `ValueError` for what is no tensor with all its numbers in the file; see above."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise ValueError(f"{shown(name)} is not a tensor of numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{shown(name)} has {value.numel():,} numbers, but the file holds fewer")
