"""The members of archives of any format, and the limits that hold for all of them.

An archive is read as `Archive`, one class for each format, which yields a `Member` for each header; `archives` writes
the members to disk. `Budget` counts what the archive takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from semcut.indexes.errors import shown

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

DISK_BLOCK = 4096
"""Bytes that even an empty file or directory takes on most disks."""

FILE, FOLDER = "file", "folder"
"""Kinds of members that are unpacked; any other kind is left out, such as "symbolic link"."""


class RefusedArchiveError(Exception):
    """An archive is damaged or breaks a rule; the message completes the sentence "cannot unpack NAME: "."""


@dataclass(frozen=True)
class Member:
    """A header: name, kind, and length of the data that follows, which the reader of the member may read."""

    name: str
    kind: str
    size: int
    seconds: int  # time of change


class Archive(Protocol):
    """An archive, which is read once. All methods raise `RefusedArchiveError` at what is damaged or beyond a limit."""

    def members(self) -> Iterator[Member]:
        """Yield the members in order; the data of each can be read before the next is asked for."""
        ...

    def read(self, count: int) -> bytes:
        """Read exactly `count` bytes of the data of the latest member."""
        ...


class Budget:
    """Counts what an archive takes, and raises `RefusedArchiveError` when that is more than is allowed.

    Args:
        archive_bytes: size of the archive.
        free: bytes that are free on the disk.
    """

    def __init__(self, archive_bytes: int, free: int) -> None:
        self._most, self._free = UNCHECKED_BYTES + MAX_RATIO * archive_bytes, free
        self._charged = 0

    def charge(self, count: int) -> None:
        """Count bytes that the archive takes on the disk, or would take."""
        self._charged += count
        if self._charged > self._free:
            raise RefusedArchiveError(f"it unpacks to more than the {self._free / 1e9:.1f} GB that are free")
        if self._charged > self._most:
            raise RefusedArchiveError(f"it unpacks to more than {MAX_RATIO:,} times its size; pack it uncompressed")


def require_members(count: int, what: str = "members") -> None:
    """Raise `RefusedArchiveError` if an archive has too many members."""
    if count > MAX_MEMBERS:
        raise RefusedArchiveError(f"it has more than {MAX_MEMBERS:,} {what}")


def require_size(name: str, size: int) -> None:
    """Raise `RefusedArchiveError` if a file is too large."""
    if size > MAX_FILE_BYTES:
        raise RefusedArchiveError(f"{shown(name)} has {size:,} bytes, expected at most {MAX_FILE_BYTES:,}")


def parts_of(name: str) -> list[str]:
    """Split the name of a member into the names of folders and file; at least [""], for the top folder itself."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise RefusedArchiveError(f"{shown(name)} would be written outside of the folder")
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES or len(parts) > MAX_DEPTH + 1:
        raise RefusedArchiveError(
            f"the name {shown(name)} is too long: expected at most {MAX_NAME_BYTES:,} bytes and {MAX_DEPTH} folders"
        )
    return parts or [""]
