"""`Journal`: a file that lists which batches of a migration are in the target, so that a copy can be resumed.

The file has one JSON object per line. The first line is the header: the names of source and target, and the version and
number of records of the source. Every other line describes one batch that the target has acknowledged: its last id, its
number of records, and the CRC-32 of their content. A line is on the disk before the next batch is written. A last line
that a crash cut off is ignored, and its batch is copied again.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import SemcutError, StorageError
from semcut.indexes.regular_files import open_descriptor, read_bytes
from semcut.indexes.storage.atomic_write import replacing

FORMAT_VERSION = 1
_MAX_BYTES = 256 << 20
"""The largest journal: 3 million batches."""


class SourceChangedError(SemcutError):
    """The source was changed during its migration or since then, so the target is no copy of it."""


class Journal:
    """The journal of one migration.

    Args:
        path: the file, which need not exist.

    Attributes:
        path: as given.
        header: the first line; None if no migration has begun.
        batches: the other lines: "last", "records" and "crc" of every batch.

    Raises:
        StorageError: the file cannot be read, or is no journal of this version of semcut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: dict[str, Any] | None = None
        self.batches: list[dict[str, int]] = []
        self._size = 0  # bytes of whole lines
        try:
            content = read_bytes(path, _MAX_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the journal {path} cannot be read: {error.strerror or error}") from None
        whole = content[: content.rfind(b"\n") + 1]
        self._size = len(whole)
        known = not whole
        with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):
            lines = [json.loads(line) for line in whole.splitlines()]
            if lines:
                self.header = dict(lines[0])
                self.batches = [{name: int(line[name]) for name in ("last", "records", "crc")} for line in lines[1:]]
                known = self.header["format"] == FORMAT_VERSION
        if not known:
            raise StorageError(f"{path} is no journal of a migration by this version of semcut: move it away")

    @property
    def copied(self) -> int:
        """The number of records that have been copied."""
        return sum(batch["records"] for batch in self.batches)

    @property
    def last_id(self) -> int:
        """The largest id that has been copied, -1 if there is none."""
        return self.batches[-1]["last"] if self.batches else -1

    def begin(self, header: dict[str, Any]) -> None:
        """Start the journal of a new migration. It replaces a file at the same path.

        Raises:
            StorageError: the disk refuses.
        """
        self.header, self.batches = {"format": FORMAT_VERSION, **header}, []
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
        entry = {"last": int(batch.ids[-1]), "records": len(batch), "crc": checksum(batch)}
        line = _line(entry)
        with self._writing(), os.fdopen(open_descriptor(self.path, os.O_RDWR), "r+b") as file:
            file.truncate(self._size)  # remove a line that a crash cut off
            file.seek(self._size)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(line)
        self.batches.append(entry)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Convert an OSError in the block to a StorageError that names the journal."""
        try:
            yield
        except OSError as error:
            raise StorageError(f"the journal {self.path} cannot be written: {error.strerror or error}") from None


def checksum(batch: Encodings) -> int:
    """Return the CRC-32 of the whole content of a batch: ids, codes, probabilities, features and uris."""
    assert batch.ids is not None
    crc = 0
    for column in (batch.ids, batch.codes, batch.probabilities, batch.features):
        crc = zlib.crc32(np.ascontiguousarray(column).data, crc) if column.size else crc
    uris = [b"\0" if uri is None else b"\1" + uri.encode() for uri in batch.uris or [None] * len(batch)]
    return zlib.crc32(b"".join(len(uri).to_bytes(4, "little") + uri for uri in uris), crc)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
