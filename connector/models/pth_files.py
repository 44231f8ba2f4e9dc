"""Read weights from a .pth file of torch that may come from someone else, in memory in proportion to the file.

With `weights_only`, `torch.load` runs no code of a file, but it trusts a file in other ways:

- Its pickle may call a few harmless functions, any number of times: `bytearray(10**10)`, or a copy of a dictionary of
  a thousand entries for every three bytes. So only what the weights of a network need may be named here.
- Its records may overlap, so that a thousand of them share the same megabytes, and its library for zip archives may
  find other records than another library. So torch gets a copy of the records that were checked.
- A description may state more numbers than its record has, which some versions of torch believe.
- One number can stand for all numbers of a tensor, 2^40 for example. So every tensor has all of its own in memory.

Files in torch's format before version 1.6, which is no zip archive, are read as well: five pickles, then all numbers.
For them torch has no checks of its own but one, that a record has as many numbers as its tensors want, and it asks
`tarfile` first whether a file is of a still older format. That takes gigabytes, or minutes, for a hundred kilobytes. So
torch gets those in memory too, where it never tries that, and nothing of the memory that it puts their numbers into is
left as it was before.
"""

from __future__ import annotations

import io
import os
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch.types import Storage

from semcut.indexes.errors import shown
from semcut.indexes.regular_files import open_binary

_PICKLE_BYTES = 4 << 20
"""The largest description of the tensors; one of a thousand tensors has 0.1 MB."""
_MOST_RECORDS = 100_000
_MOST_CALLS = 100_000
"""How often the description may make a tensor, or name the numbers of one; each is there for a few bytes."""
_ZIP, _OLD = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file begins: a zip archive; and the first pickle of the old format, which is always the same number."""
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
_USE = ["MARK", "BINUNICODE", "GLOBAL", "BINUNICODE", "BINUNICODE", "INT", "TUPLE"]
_OLD_USE = [*_USE[:-1], "NONE", "TUPLE"]
"""What comes before each use of a record: ("storage", its type, its name, a device, how many numbers). The old format
adds which part of the record is used: all of it."""
_KEYS = re.compile(r"PROTO EMPTY_LIST (MARK (TEXT )+APPENDS |TEXT APPEND )*STOP ")
"""The fifth pickle of the old format: the names of the records, in their order in the file."""


def read_pth(file: Path, max_bytes: int) -> dict[str, torch.Tensor]:
    """Read all tensors of a file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger than `max_bytes`.
        Exception: of several types, if it is no file of torch, or breaks a rule above; the message is the reason.
    """
    with open_binary(file, max_bytes=max_bytes, follow=True) as stream:
        start = stream.read(tarfile.BLOCKSIZE)
        stream.seek(0)
        if start.startswith(_ZIP):
            state = torch.load(_checked_copy(stream, os.fstat(stream.fileno()).st_size), "cpu", weights_only=True)
        else:
            _require_old_format(start)
            state = torch.load(_checked_old_copy(stream), _new_storage, weights_only=True)
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
                _check_numbers(content, sizes, records[0].filename.partition("/")[0])
            copied.writestr(record.filename, content)
    copy.seek(0)
    return copy


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


def _checked_old_copy(stream: IO[bytes]) -> io.BytesIO:
    """Copy a file of the old format to memory, where every record has just the numbers that the description states."""
    copy = io.BytesIO(stream.read())
    head = io.BytesIO(copy.getbuffer()[:_PICKLE_BYTES])
    pickles = []
    for _ in ("its number", "its version", "the computer", "the description", "the names of the records"):
        start = head.tell()
        _check_pickle(head)
        pickles.append(head.getvalue()[start : head.tell()])
    *_, description, names = pickles
    used: dict[str, tuple[str, int]] = {}
    for kind, key, count in _records_used(description, _OLD_USE):
        if used.setdefault(key, (kind, count)) != (kind, count) or kind not in _NUMBER_BYTES or count < 0:
            raise ValueError(
                f"it states {count:,} numbers of {shown(kind)} in the record {shown(key)}, or others before"
            )
    keys = _record_names(names)
    if len(keys) != len(used) or set(keys) != used.keys():
        raise ValueError(f"it uses {len(used):,} records, but holds {len(keys):,}, or others")
    size, end = copy.seek(0, os.SEEK_END), head.tell()
    for key in keys:
        kind, count = used[key]
        copy.seek(end)
        held = int.from_bytes(copy.read(8), "little")
        end += 8 + count * _NUMBER_BYTES[kind]
        if held != count or end > size:
            raise ValueError(f"it states {count:,} numbers in the record {shown(key)}, which has others or ends early")
    copy.seek(0)
    return copy


def _new_storage(storage: Storage, device: str) -> Storage:
    """Make the memory for a record: of zeros, and, unlike what torch has made, of a size that no tensor can change."""
    return cast(Storage, torch.from_numpy(np.zeros(storage.nbytes(), np.uint8)).untyped_storage())


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


def _record_names(pickle: bytes) -> list[str]:
    """Read the list of names at the end of the old format."""
    found = [(_plain(operation.name, argument), argument) for operation, argument, _ in _operations(pickle)]
    found = [("TEXT" if name == "BINUNICODE" else name, argument) for name, argument in found]
    if not _KEYS.fullmatch("".join(f"{name} " for name, _ in found if name not in ("BINPUT", "LONG_BINPUT"))):
        raise ValueError("it names its records in another way than torch does")
    return [argument for name, argument in found if name == "TEXT"]


def _plain(name: str, argument: Any) -> str:
    """Return one name for all operations that give a whole number, or a text; Python 2 writes ASCII of its own kind."""
    if name in ("BININT", "BININT1", "BININT2", "LONG1"):
        return "INT"
    return "BINUNICODE" if name == "SHORT_BINSTRING" and argument.isascii() else name


def _records_used(pickle: bytes, form: list[str]) -> Iterator[tuple[str, str, int]]:
    """Read from a pickle, which was checked, what it states of the records that it uses.

    Args:
        pickle: the pickle.
        form: the operations before each use.

    Yields:
        The type of the numbers, the name of the record, and how many numbers it has.
    """
    kept: dict[object, tuple[str, Any]] = {}
    latest: list[tuple[str, Any]] = [("", None)]
    for operation, argument, _ in _operations(pickle):
        name = _plain(operation.name, argument)
        if name in ("BINPUT", "LONG_BINPUT"):
            kept[argument] = latest[-1] if latest[-1][0] in ("BINUNICODE", "GLOBAL") else ("", None)
            continue
        if name in ("BINGET", "LONG_BINGET"):
            name, argument = kept.get(argument, ("", None))
        if name in ("BINPERSID", "PERSID"):
            if [one for one, _ in latest] != form or latest[1][1] != "storage":
                raise ValueError("it names its records in another way than torch does")
            yield latest[2][1], latest[3][1], latest[5][1]
        latest = [*latest[-len(form) + 1 :], (name, argument)]


def _check_numbers(pickle: bytes, sizes: dict[str, int], folder: str) -> None:
    """Check that each record that a pickle uses has just the bytes of the numbers that it states.

    Args:
        pickle: the pickle, which was checked.
        sizes: the bytes of each record, by its name in lower case.
        folder: the folder of all records.
    """
    for kind, key, count in _records_used(pickle, _USE):
        held = sizes.get(f"{folder}/data/{key}".lower())
        if held is None or held != count * _NUMBER_BYTES.get(kind, 0):
            raise ValueError(f"it states {count:,} numbers in the record {shown(key)}, which has {held or 0:,} bytes")


def _check_tensors(state: dict[str, Any]) -> None:
    """Raise `ValueError` for what is no tensor with all its numbers in the file; see above."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            raise ValueError(f"{shown(name)} is not a tensor of numbers")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{shown(name)} has {value.numel():,} numbers, but the file holds fewer")
