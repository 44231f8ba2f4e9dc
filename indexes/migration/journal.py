"""`Journal`: a file that lists which batches of a migration are in the target, so that a copy can be resumed.

The file has one JSON object per line. The first line is the header: the names of source and target, and the version,
the number of records and the attributes of the source, and whether it has keys. Every other line describes one batch
that the target has acknowledged: its last id, its number of records, and the CRC-32 of their content. A line is on the
disk before the next batch is written. A last line that a crash cut off is ignored, and its batch is copied again.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import microseconds_of
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import SemcutError, StorageError
from semcut.indexes.milvus import LARGEST_BATCH
from semcut.indexes.regular_files import open_binary, open_descriptor
from semcut.indexes.storage.atomic_write import replacing

FORMAT_VERSION = 1
_MAX_BYTES = 256 << 20
"""The largest journal: a line of semcut has 50 to 90 bytes, a forged one 32, and takes up to 70 bytes of memory."""
_BEGIN = b'{"format": %d, "source": "' % FORMAT_VERSION
"""How a header begins: a file without a whole line is a journal only if it begins so, or is cut before."""
_HEADER_BYTES, _LINE_BYTES = 1 << 16, 256
"""The longest header, and the longest of the other lines."""
_LARGEST = {"last": 2**63 - 1, "records": LARGEST_BATCH, "crc": 2**32 - 1}


class CopiedBatch(NamedTuple):
    """A batch that is in the target: its last id, its number of records, and the CRC-32 of their content."""

    last: int
    records: int
    crc: int


class SourceChangedError(SemcutError):
    """The source was changed during its migration or since then, so the target is no copy of it."""


class Journal:
    """The journal of one migration.

    Args:
        path: the file, which need not exist.

    Attributes:
        path: as given.
        header: the first line; None if no migration has begun.

    Raises:
        StorageError: the file cannot be read, or is no journal of this version of semcut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: dict[str, Any] | None = None
        self._numbers = array("q")  # three for every batch
        self._size = 0  # bytes of whole lines
        try:
            with open_binary(path, max_bytes=_MAX_BYTES) as file:
                self._read(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the journal {path} cannot be read: {error.strerror or error}") from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise StorageError(f"{path} is no journal of a migration by this version of semcut: move it away") from None

    def _read(self, file: IO[bytes]) -> None:
        """Read all whole lines, one at a time: a journal from someone else can have any.

        Raises:
            ValueError, TypeError, KeyError, RecursionError: a line is not one of a journal.
        """
        while line := file.readline(_LINE_BYTES if self._size else _HEADER_BYTES):
            if not line.endswith(b"\n"):
                if file.read(1) or not (self._size or line.startswith(_BEGIN) or _BEGIN.startswith(line)):
                    raise ValueError("the line is too long, or is not the begin of a header")
                return
            content = dict(json.loads(line))
            if not self._size:
                if content["format"] != FORMAT_VERSION:
                    raise ValueError("another version")
                self.header = content
            else:
                numbers = [content[name] for name in CopiedBatch._fields]
                if not all(
                    type(number) is int and 0 <= number <= largest
                    for number, largest in zip(numbers, _LARGEST.values(), strict=True)
                ):
                    raise ValueError("a number is out of range")
                self._numbers.extend(numbers)
            self._size += len(line)

    @property
    def batches(self) -> Iterator[CopiedBatch]:
        """The other lines: all batches that were copied, in this order."""
        return (CopiedBatch(*self._numbers[at : at + 3]) for at in range(0, len(self._numbers), 3))

    @property
    def last_ids(self) -> NDArray[np.int64]:
        """(batches,) int64, the last id of each batch."""
        return np.array(self._numbers[::3], np.int64)

    @property
    def copied(self) -> int:
        """The number of records that have been copied."""
        return sum(self._numbers[1::3])

    @property
    def last_id(self) -> int:
        """The largest id that has been copied, -1 if there is none."""
        return self._numbers[-3] if self._numbers else -1

    def begin(self, header: dict[str, Any]) -> None:
        """Start the journal of a new migration. It replaces a file at the same path.

        Raises:
            StorageError: the disk refuses.
        """
        self.header, self._numbers = {"format": FORMAT_VERSION, **header}, array("q")
        line = _line(self.header)
        with self._writing(), replacing(self.path) as scratch:
            scratch.write_bytes(line)
        self._size = len(line)

    def append(self, batch: Encodings) -> None:
        """Add the line for a batch that is in the target.

        Args:
            batch: the records, in order of ids.

        Raises:
            StorageError: the disk refuses.
        """
        assert batch.ids is not None
        entry = CopiedBatch(int(batch.ids[-1]), len(batch), checksum(batch))
        line = _line(entry._asdict())
        with self._writing(), os.fdopen(open_descriptor(self.path, os.O_RDWR), "r+b") as file:
            file.truncate(self._size)  # remove a line that a crash cut off
            file.seek(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)
        self._numbers.extend(entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert an OSError in the block to a StorageError that names the journal."""
        try:
            yield
        except OSError as error:
            raise StorageError(f"the journal {self.path} cannot be written: {error.strerror or error}") from None


def checksum(batch: Encodings) -> int:
    """Return the CRC-32 of the whole content of a batch: ids, codes, probabilities, features, uris, attributes, keys.

    Attributes count as an index returns them. A batch without any, or without keys, has the CRC-32 of the other
    columns.
    """
    assert batch.ids is not None
    crc = 0
    for column in (batch.ids, batch.codes, batch.probabilities, batch.features):
        crc = zlib.crc32(np.ascontiguousarray(column).data, crc) if column.size else crc
    uris = [b"\0" if uri is None else b"\1" + uri.encode() for uri in batch.uris or [None] * len(batch)]
    crc = zlib.crc32(b"".join(len(uri).to_bytes(4, "little") + uri for uri in uris), crc)
    for name, values in sorted((batch.attributes or {}).items()):
        crc = zlib.crc32(json.dumps([name, values], default=microseconds_of).encode(), crc)
    return crc if batch.keys is None else zlib.crc32(json.dumps(batch.keys).encode(), crc)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
