"""Read a tar archive, compressed or not, as a stream: memory does not grow with it.

Nothing is left to `tarfile` but its constants. Extended headers are bounded before they are read, and so are members,
each file, and all bytes that are decompressed.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from semcut.connector.data.archive_members import (
    FILE,
    FOLDER,
    MAX_HEADER_BYTES,
    Budget,
    Member,
    RefusedArchiveError,
    require_members,
    require_size,
)
from semcut.connector.data.extended_headers import ExtendedHeaders
from semcut.indexes.errors import shown

_BLOCK = tarfile.BLOCKSIZE
_COPY_BYTES = 1 << 20
_LZMA_BYTES = 256 << 20
"""Memory that an .xz file may ask for; `xz -9` needs 65 MiB."""
_LEFT_OUT = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "FIFO",
}
_KINDS = {
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE), FILE),
    tarfile.DIRTYPE: FOLDER,
    **_LEFT_OUT,
}
_PAX_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class _Header:
    """A header of 512 bytes: name, type, length of the data that follows, and time of change."""

    name: str
    kind: bytes
    size: int
    seconds: int


class TarArchive:
    """A tar archive, which is read from its beginning; see `archive_members.Archive`.

    Args:
        archive: the file.
        budget: counts the decompressed bytes.
    """

    def __init__(self, archive: IO[bytes], budget: Budget) -> None:
        start = archive.read(6)
        archive.seek(0)
        self._source: IO[bytes] | io.BufferedIOBase = archive
        if start.startswith(b"\x1f\x8b"):
            self._source = gzip.GzipFile(fileobj=archive)
        elif start.startswith(b"BZh"):
            self._source = bz2.BZ2File(archive)
        elif start.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
            self._source = io.BufferedReader(_Xz(archive))
        self._budget = budget
        self.position = 0

    def members(self) -> Iterator[Member]:
        """Yield the members in order; what is not read of the data of one is skipped."""
        return _members(self)

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        self._budget.charge(count)
        try:
            found = self._source.read(count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise RefusedArchiveError(f"it is damaged or cut off ({error})") from None
        if len(found) < count:
            raise RefusedArchiveError("it is cut off")
        self.position += count
        return found

    def skip_to(self, position: int) -> None:
        """Read up to a position."""
        while self.position < position:
            self.read(min(_COPY_BYTES, position - self.position))


class _Xz(io.RawIOBase):
    """Decompress .xz and .lzma with bounded memory, which `lzma.LZMAFile` cannot."""

    def __init__(self, archive: IO[bytes]) -> None:
        self._archive = archive
        self._decompressor = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a part of the buffer; 0 at the end."""
        while True:
            content = b""
            if self._decompressor.eof:  # another stream may follow, after bytes of zero
                content = self._decompressor.unused_data.lstrip(b"\0") or self._archive.read(io.DEFAULT_BUFFER_SIZE)
                self._decompressor = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
                if not content:
                    return 0
            elif self._decompressor.needs_input:
                content = self._archive.read(io.DEFAULT_BUFFER_SIZE)
                if not content:
                    raise EOFError("the compressed data ends early")
            found = self._decompressor.decompress(content, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)


def _members(stream: TarArchive) -> Iterator[Member]:
    """Read headers one after the other, with the extended headers applied; what is not read of the data is skipped."""
    long_name: str | None = None
    pax: dict[str, bytes] = {}
    extended = headers = 0
    extended_headers = ExtendedHeaders()
    while True:
        first = stream.position == 0
        headers += 1
        require_members(headers - 1, "members and extended headers")  # without the empty one at the end
        try:
            block = stream.read(_BLOCK)
            if not any(block):
                return
            header = _header(block)
        except RefusedArchiveError as error:
            if first:
                raise RefusedArchiveError(f"it is neither a folder nor a tar or zip archive ({error})") from None
            raise RefusedArchiveError(str(error)) from None
        kind, size = header.kind, header.size
        if size < 0:
            raise RefusedArchiveError(f"the size of {shown(header.name)} is negative")
        if kind in _PAX_HEADERS or kind in _LONG_NAMES:
            extended += size
            if extended > MAX_HEADER_BYTES:
                raise RefusedArchiveError(f"a header has {extended:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
            extended_headers.charge(size)
            content = stream.read(size)
            stream.skip_to(_padded(stream.position))
            if kind == tarfile.GNUTYPE_LONGNAME:
                long_name = _text(content.partition(b"\0")[0])
            elif kind in _PAX_HEADERS:
                records = extended_headers.pax_records(content)
                if kind != tarfile.XGLTYPE:
                    pax = records
                elif records.keys() & {"path", "size"}:
                    raise RefusedArchiveError("a header gives all members the same name or size")
            continue
        if kind == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
            raise RefusedArchiveError(f"{shown(header.name)} is a sparse file: pack it without --sparse")
        name = _text(pax["path"]) if "path" in pax else long_name if long_name is not None else header.name
        if "size" in pax:
            if not pax["size"].isdigit() or len(pax["size"]) > 19:
                raise RefusedArchiveError(f"the size of {shown(name)} is not a number")
            size = int(pax["size"])
        if kind == tarfile.AREGTYPE and name.endswith("/"):  # as old programs write a directory
            kind = tarfile.DIRTYPE
        if kind in _LEFT_OUT or kind == tarfile.DIRTYPE:
            size = 0  # no data follows, whatever the header says
        require_size(name, size)
        end = stream.position + size
        yield Member(name, _KINDS.get(kind, "entry of an unknown type"), size, header.seconds)
        stream.skip_to(_padded(end))
        long_name, pax, extended = None, {}, 0


def _header(block: bytes) -> _Header:
    """Read a header as POSIX and GNU tar write it; only the fields that are used, because there can be millions."""
    given = _number(block[148:156])
    rest = 256 - sum(block[148:156])  # the sum counts its own field as eight spaces
    if given != sum(block) + rest:
        signed = memoryview(block).cast("b")  # as some old programs sum
        if given != sum(signed) - sum(signed[148:156]) + 256:
            raise RefusedArchiveError("bad checksum")
    kind = block[156:157]
    name = _text(block[:100].partition(b"\0")[0])
    if kind == tarfile.AREGTYPE and name.endswith("/"):  # as old programs write a directory
        kind = tarfile.DIRTYPE
    if block[345] and kind not in tarfile.GNU_TYPES:
        name = f"{_text(block[345:500].partition(bytes(1))[0])}/{name}"
    return _Header(name, kind, _number(block[124:136]), _number(block[136:148]))


def _number(field: bytes) -> int:
    """Read a number: octal digits, or big-endian after a byte 128, or 255 if it is negative."""
    if field[0] in (0o200, 0o377):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0o377 else 0)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise RefusedArchiveError("a header is damaged") from None


def _padded(position: int) -> int:
    return -(-position // _BLOCK) * _BLOCK


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
