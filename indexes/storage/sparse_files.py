"""Refuse column files that are almost nothing but holes, before memory and time are spent on them.

A file can have holes of any size: the disk does not store them, and they are read as zeros. So an index of terabytes
can arrive in an archive of a megabyte. semcut writes no holes, but a tool that copies an index may turn zeros into
holes. So all columns are judged together, and only an index that is nearly all holes is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.regular_files import data_bytes
from semcut.indexes.storage.column_files import Column, Extent

_ANY_BYTES, _MOST_HOLES = 1 << 28, 64


def require_stored(files: Mapping[str, Column], extents: Mapping[str, Extent]) -> None:
    """Raise `DamagedIndexError` if less than 1/64 of the rows of all columns is stored, and they exceed 256 MiB.

    A file system that compresses, or that allocates later, counts fewer blocks than a file has data: so a small number
    of blocks is only a reason to look for holes. One that knows no holes says that all is data.
    """
    expected = {name: extents[name].rows * file.spec.row_bytes for name, file in files.items()}
    if sum(expected.values()) <= _ANY_BYTES:
        return
    found = {name: os.fstat(file.descriptor) for name, file in files.items()}
    sizes = {name: min(expected[name], found[name].st_size) for name in files}  # what is missing is another error
    total, data = sum(sizes.values()), 0
    if total <= _ANY_BYTES or _MOST_HOLES * sum(512 * file.st_blocks for file in found.values()) >= total:
        return
    for name, file in files.items():
        data += data_bytes(file.descriptor, sizes[name])
        if _MOST_HOLES * data >= total:
            return
    folder = next(iter(files.values())).path.parent
    raise DamagedIndexError(
        f"the files of {folder} hold {data:,} of {total:,} bytes, the rest are holes: do not use this index, or "
        "restore it from a backup; if its records are zeros, copy its files with `cp --sparse=never`"
    )
