"""Unpack a tar archive that may come from someone else: regular files and directories only, within stated limits.

An archive can hold links that lead out of the folder that it is unpacked into, devices, names such as `../x`, headers
of gigabytes, and a million times as many bytes as it has itself. Python's own filters have been bypassed by chains of
links (CVE-2025-4517), and some versions that semcut supports have no filters. So nothing is left
to `tarfile` but its constants and errors:

- Links, devices and FIFOs are left out, and named in a `SemcutWarning`. So no path leads through a link.
- A name is refused if it is absolute, has a part "..", or is too long or too deep.
- Every file is created new: nothing is ever replaced, also on a file system that takes two names for the same.
- Extended headers are bounded before they are read, and so are members, each file, and all bytes that are decompressed.

The archive is read once, as a stream: memory does not grow with it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from semcut.connector.data.extended_headers import ExtendedHeaders
from semcut.connector.data.unpacked_folders import UnpackedFolders, refused_name
from semcut.indexes.errors import DataError, SemcutWarning, shown

MAX_MEMBERS = 2_000_000
"""Largest number of files, directories and other members, and of their headers; ImageNet has 1.4 million files."""
MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 1 << 20
"""Largest sum of the extended headers of one member: names, times, attributes."""
MAX_DEPTH = 32
"""Largest number of folders above a file, so that every folder can be listed and deleted again."""
MAX_NAME_BYTES = 2048

MAX_RATIO, UNCHECKED_BYTES = 1_000, 1 << 30
"""Largest number of unpacked bytes for each byte of the archive, beyond the first GB; images hardly shrink at all."""

_BLOCK = tarfile.BLOCKSIZE
_COPY_BYTES = 1 << 20
_DISK_BLOCK = 4096
"""Bytes that even an empty file or directory takes on most disks."""
_LZMA_BYTES = 256 << 20
"""Memory that an .xz file may ask for; `xz -9` needs 65 MiB."""
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LEFT_OUT = {
    tarfile.SYMTYPE: "symbolic link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "FIFO",
}
_PAX_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class _Member:
    """A header: name, type, and length of the data that follows, which the reader of the member may read."""

    name: str
    kind: bytes
    size: int
    seconds: int  # time of change


def unpack(archive: IO[bytes], name: Path, target: Path) -> None:
    """Unpack an archive, compressed or not, into a new directory, which the caller deletes after an error.

    Args:
        archive: the archive, from its beginning.
        name: its name, for messages.
        target: the directory to create.

    Raises:
        DataError: it is no tar archive, is damaged, breaks a rule above, or does not fit on the disk.
        OSError: the target cannot be written.
    """
    target.mkdir()
    free = shutil.disk_usage(target).free
    left_out: Counter[str] = Counter()
    example = ""
    try:
        stream = _Stream(archive, free)
        folders = UnpackedFolders(target, lambda: stream.charge(_DISK_BLOCK))
        for count, member in enumerate(_members(stream)):
            if count + folders.made > MAX_MEMBERS:
                raise tarfile.ReadError(f"it has more than {MAX_MEMBERS:,} members")
            if member.kind in _FILES or member.kind == tarfile.DIRTYPE:
                *parents, last = parts = _parts(member.name)
                stream.charge(_DISK_BLOCK)
                if member.kind == tarfile.DIRTYPE:
                    folders.make(parts)
                else:
                    folders.make(parents)
                    _write_file(stream, member, target.joinpath(*parents, last))
            else:
                left_out[_LEFT_OUT.get(member.kind, "entry of an unknown type")] += 1
                example = example or member.name
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"cannot unpack {name}: {error}") from None
    if left_out:
        what = ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in left_out.items())
        warnings.warn(
            f"{name}: left out {what} (the first is {shown(example)}): only files and folders are unpacked",
            SemcutWarning,
            stacklevel=2,
        )


class _Stream:
    """The decompressed bytes of an archive, which raise `tarfile.ReadError` when more than `limit` are read.

    So do more than `MAX_RATIO` allows.
    """

    def __init__(self, archive: IO[bytes], limit: int) -> None:
        start = archive.read(6)
        self._most = UNCHECKED_BYTES + MAX_RATIO * archive.seek(0, os.SEEK_END)
        archive.seek(0)
        self._source: IO[bytes] | io.BufferedIOBase = archive
        if start.startswith(b"\x1f\x8b"):
            self._source = gzip.GzipFile(fileobj=archive)
        elif start.startswith(b"BZh"):
            self._source = bz2.BZ2File(archive)
        elif start.startswith((b"\xfd7zXZ", b"\x5d\x00\x00\x80")):
            self._source = io.BufferedReader(_Xz(archive))
        self._limit, self._charged = limit, 0
        self.position = 0

    def charge(self, count: int) -> None:
        """Count bytes that the archive takes on the disk, or would take."""
        self._charged += count
        if self._charged > self._limit:
            raise tarfile.ReadError(f"it unpacks to more than the {self._limit / 1e9:.1f} GB that are free")
        if self._charged > self._most:
            raise tarfile.ReadError(f"it unpacks to more than {MAX_RATIO:,} times its size; pack it uncompressed")

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes."""
        self.charge(count)
        try:
            found = self._source.read(count)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise tarfile.ReadError(f"it is damaged or cut off ({error})") from None
        if len(found) < count:
            raise tarfile.ReadError("it is cut off")
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


def _members(stream: _Stream) -> Iterator[_Member]:
    """Read headers one after the other, with the extended headers applied; what is not read of the data is skipped."""
    long_name: str | None = None
    pax: dict[str, bytes] = {}
    extended = headers = 0
    extended_headers = ExtendedHeaders()
    while True:
        first = stream.position == 0
        headers += 1
        if headers > MAX_MEMBERS + 1:  # with the empty one at the end
            raise tarfile.ReadError(f"it has more than {MAX_MEMBERS:,} members and extended headers")
        try:
            block = stream.read(_BLOCK)
            if not any(block):
                return
            header = _header(block)
        except tarfile.TarError as error:
            if first:
                raise tarfile.ReadError(f"it is neither a folder nor a tar archive ({error})") from None
            raise tarfile.ReadError(str(error)) from None
        kind, size = header.kind, header.size
        if size < 0:
            raise tarfile.ReadError(f"the size of {shown(header.name)} is negative")
        if kind in _PAX_HEADERS or kind in _LONG_NAMES:
            extended += size
            if extended > MAX_HEADER_BYTES:
                raise tarfile.ReadError(f"a header has {extended:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
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
                    raise tarfile.ReadError("a header gives all members the same name or size")
            continue
        if kind == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
            raise tarfile.ReadError(f"{shown(header.name)} is a sparse file: pack it without --sparse")
        name = _text(pax["path"]) if "path" in pax else long_name if long_name is not None else header.name
        if "size" in pax:
            if not pax["size"].isdigit() or len(pax["size"]) > 19:
                raise tarfile.ReadError(f"the size of {shown(name)} is not a number")
            size = int(pax["size"])
        if kind == tarfile.AREGTYPE and name.endswith("/"):  # as old programs write a directory
            kind = tarfile.DIRTYPE
        if kind in _LEFT_OUT or kind == tarfile.DIRTYPE:
            size = 0  # no data follows, whatever the header says
        if size > MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{shown(name)} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        end = stream.position + size
        yield _Member(name, kind, size, header.seconds)
        stream.skip_to(_padded(end))
        long_name, pax, extended = None, {}, 0


def _header(block: bytes) -> _Member:
    """Read a header as POSIX and GNU tar write it; only the fields that are used, because there can be millions."""
    given = _number(block[148:156])
    rest = 256 - sum(block[148:156])  # the sum counts its own field as eight spaces
    if given != sum(block) + rest:
        signed = memoryview(block).cast("b")  # as some old programs sum
        if given != sum(signed) - sum(signed[148:156]) + 256:
            raise tarfile.ReadError("bad checksum")
    kind = block[156:157]
    name = _text(block[:100].partition(b"\0")[0])
    if kind == tarfile.AREGTYPE and name.endswith("/"):  # as old programs write a directory
        kind = tarfile.DIRTYPE
    if block[345] and kind not in tarfile.GNU_TYPES:
        name = f"{_text(block[345:500].partition(bytes(1))[0])}/{name}"
    return _Member(name, kind, _number(block[124:136]), _number(block[136:148]))


def _number(field: bytes) -> int:
    """Read a number: octal digits, or big-endian after a byte 128, or 255 if it is negative."""
    if field[0] in (0o200, 0o377):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0o377 else 0)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise tarfile.ReadError("a header is damaged") from None


def _padded(position: int) -> int:
    return -(-position // _BLOCK) * _BLOCK


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _parts(name: str) -> list[str]:
    """Split the name of a member into the names of folders and file; at least [""], for the top folder itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise tarfile.ReadError(f"{shown(name)} would be written outside of the folder")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES or len(parts) > MAX_DEPTH + 1:
        raise tarfile.ReadError(
            f"the name {shown(name)} is too long: expected at most {MAX_NAME_BYTES:,} bytes and {MAX_DEPTH} folders"
        )
    return parts or [""]


def _write_file(stream: _Stream, member: _Member, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise tarfile.ReadError(f"it holds {shown(member.name)} twice") from None
    except OSError as error:
        raise refused_name(member.name, error) from None
    with os.fdopen(descriptor, "wb") as file:
        left = member.size
        while left:
            block = stream.read(min(_COPY_BYTES, left))
            file.write(block)
            left -= len(block)
        file.flush()
        if 0 <= member.seconds < 1 << 33:
            os.utime(file.fileno(), (member.seconds, member.seconds))
