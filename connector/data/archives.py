"""Unpack an archive that may come from someone else: regular files and directories only, within stated limits.

An archive can hold links that lead out of the folder that it is unpacked into, devices, names such as `../x`, headers
of gigabytes, and a million times as many bytes as it has itself. Python's own filters have been bypassed by chains of
links (CVE-2025-4517), and some versions that semcut supports have no filters. So nothing is left
to libraries but the reading of headers and content, by `tar_archives` and `zip_archives`:

- Links, devices and FIFOs are left out, and named in a `SemcutWarning`. So no path leads through a link.
- A name is refused if it is absolute, has a part "..", or is too long or too deep.
- Every file is created new: nothing is ever replaced, also on a file system that takes two names for the same.
- Headers are bounded before they are read, and so are members, each file, and all bytes that are decompressed.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import IO

from semcut.connector.data.archive_members import (
    DISK_BLOCK,
    FILE,
    FOLDER,
    Archive,
    Budget,
    Member,
    RefusedArchiveError,
    parts_of,
    require_members,
)
from semcut.connector.data.tar_archives import TarArchive
from semcut.connector.data.unpacked_folders import UnpackedFolders, new_file
from semcut.connector.data.zip_archives import STARTS, ZipFiles
from semcut.indexes.errors import DataError, SemcutWarning, shown

_COPY_BYTES = 1 << 20


def unpack(archive: IO[bytes], name: Path, target: Path) -> None:
    """Unpack a tar or zip archive into a new directory, which the caller deletes after an error.

    Args:
        archive: the archive, from its beginning; a tar archive may be compressed by gzip, bzip2 or xz.
        name: its name, for messages.
        target: the directory to create.

    Raises:
        DataError: it is no archive, is damaged, breaks a rule above, or does not fit on the disk.
        OSError: the target cannot be written.
    """
    target.mkdir()
    left_out: Counter[str] = Counter()
    example = ""
    try:
        budget = Budget(archive.seek(0, os.SEEK_END), shutil.disk_usage(target).free)
        archive.seek(0)
        is_zip = archive.read(4) in STARTS
        archive.seek(0)
        source: Archive = ZipFiles(archive, budget) if is_zip else TarArchive(archive, budget)
        folders = UnpackedFolders(target, lambda: budget.charge(DISK_BLOCK))
        for count, member in enumerate(source.members()):
            require_members(count + folders.made)
            if member.kind in (FILE, FOLDER):
                *parents, last = parts = parts_of(member.name)
                budget.charge(DISK_BLOCK)
                if member.kind == FOLDER:
                    folders.make(parts)
                else:
                    folders.make(parents)
                    _write_file(source, member, target.joinpath(*parents, last))
            else:
                left_out[member.kind] += 1
                example = example or member.name
    except (RefusedArchiveError, ValueError) as error:
        raise DataError(f"cannot unpack {name}: {error}") from None
    if left_out:
        what = ", ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in left_out.items())
        warnings.warn(
            f"{name}: left out {what} (the first is {shown(example)}): only files and folders are unpacked",
            SemcutWarning,
            stacklevel=2,
        )


def _write_file(source: Archive, member: Member, path: Path) -> None:
    with new_file(path, member.name) as file:
        left = member.size
        while left:
            block = source.read(min(_COPY_BYTES, left))
            file.write(block)
            left -= len(block)
        file.flush()
        if 0 <= member.seconds < 1 << 33:
            os.utime(file.fileno(), (member.seconds, member.seconds))
