"""Read a zip archive, with Python's `zipfile`, in bounded memory.

`zipfile` reads the whole directory of an archive at once, makes an object for each record, and takes time for each of
its extra fields. So the bytes of the directory, its records and their extra fields are counted before that.

- Files are stored, or compressed by deflate, of which no more is decompressed than is asked for; `zipfile` bounds no
  other method.
- A link or a device is recognised by its mode of Unix. A file that needs a password is an error.
- A name without the mark of UTF-8 is read as UTF-8 if it is that, as macOS writes names; otherwise as code page 437.
  Backslashes of DOS and Windows separate folders.
"""

from __future__ import annotations

import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from semcut.connector.data.archive_members import (
    FILE,
    FOLDER,
    Budget,
    Member,
    RefusedArchiveError,
    require_members,
    require_size,
)
from semcut.connector.data.extended_headers import BYTES_EACH, TOTAL_BYTES
from semcut.indexes.errors import shown
from semcut.indexes.regular_files import BoundedReads

STARTS = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of an archive with and without members."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_REFUSED = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz"}
_ENCRYPTED = 0x1 | 0x40
_DOS = 0
_RECORD, _RECORD_START = struct.Struct("<28x3H12x"), b"PK\x01\x02"
"""A record of the directory: lengths of the name, the extra fields and the comment, which follow it."""
_KINDS = {
    0: FILE,
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "FIFO",
}


class ZipFiles:
    """A zip archive; see `archive_members.Archive`.

    Args:
        archive: the file.
        budget: counts the decompressed bytes.
    """

    def __init__(self, archive: IO[bytes], budget: Budget) -> None:
        self._archive, self._budget = archive, budget
        self._zip: zipfile.ZipFile
        self._latest = zipfile.ZipInfo()
        self._content: IO[bytes] | None = None

    def members(self) -> Iterator[Member]:
        """Yield the members in the order of the directory."""
        with _named_errors():
            self._zip = zipfile.ZipFile(_Directory(self._archive, TOTAL_BYTES))
        with self._zip:
            for record in self._zip.infolist():
                self._latest, self._content = record, None
                yield _member(record)
                if self._content is not None:
                    self._content.close()

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes of the latest member; the last ones only if the checksum of all is right."""
        self._budget.charge(count)
        with _named_errors():
            if self._content is None:
                self._content = self._zip.open(self._latest)
            found = self._content.read(count)
        if len(found) < count:
            raise RefusedArchiveError(f"{shown(self._latest.filename)} is cut off")
        return found


class _Directory(BoundedReads):
    """A file, of whose directory the records and their extra fields are counted when it is read."""

    def read(self, size: int = -1) -> bytes:
        """Read as `BoundedReads` does; `RefusedArchiveError` for a directory that takes too much memory or time."""
        try:
            found = super().read(size)
        except ValueError as error:
            raise RefusedArchiveError(f"{error}; pack it as a tar archive") from None
        position = records = 0
        while found.startswith(_RECORD_START, position) and position + _RECORD.size <= len(found):
            name, extra, comment = _RECORD.unpack_from(found, position)
            records += 1
            require_members(records)
            if extra > BYTES_EACH:
                raise RefusedArchiveError(
                    f"a member has {extra:,} bytes of extra fields, expected at most {BYTES_EACH:,}; pack it without "
                    "them (zip -X)"
                )
            position += _RECORD.size + name + extra + comment
        return found


@contextmanager
def _named_errors() -> Iterator[None]:
    """Raise `RefusedArchiveError` for what `zipfile` raises for an archive that is damaged, or that it cannot read."""
    try:
        yield
    except UnicodeDecodeError as error:
        name = error.object.decode("utf-8", "surrogateescape")
        raise RefusedArchiveError(
            f"the name {shown(name)} is not valid text: rename the file, and pack it again"
        ) from None
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError) as error:
        raise RefusedArchiveError(f"it is damaged or cut off ({error})") from None
    except (NotImplementedError, RuntimeError) as error:
        raise RefusedArchiveError(f"it cannot be read ({error}); pack it with an ordinary program") from None


def _member(record: zipfile.ZipInfo) -> Member:
    """Return the header that a record of the directory describes."""
    name = _name(record)
    kind = _KINDS.get(stat.S_IFMT(record.external_attr >> 16), "entry of an unknown type")
    if kind == FILE and name.endswith("/"):
        kind = FOLDER
    if kind != FILE:
        return Member(name, kind, 0, -1)
    if record.flag_bits & _ENCRYPTED:
        raise RefusedArchiveError(f"{shown(name)} is encrypted: pack it without a password")
    if record.compress_type not in _METHODS:
        method = _REFUSED.get(record.compress_type, f"method {record.compress_type}")
        raise RefusedArchiveError(f"{shown(name)} is compressed by {method}: pack it with deflate, or uncompressed")
    require_size(name, record.file_size)
    try:
        seconds = int(time.mktime((*record.date_time, 0, 0, -1)))
    except (ValueError, OverflowError):
        seconds = -1
    return Member(name, kind, record.file_size, seconds)


def _name(record: zipfile.ZipInfo) -> str:
    """Return the name of a member, with "/" between folders, and with a byte of zero, at which `zipfile` cuts it."""
    name = record.orig_filename if "\0" in record.orig_filename else record.filename
    if not record.flag_bits & 0x800 and name == record.orig_filename:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/") if record.create_system == _DOS else name
