"""Read the arrays of an .npz file of a benchmark: a regular file, within limits, without pickled objects.

An .npz file is a zip archive, so a small file can claim to hold arrays of any size. What it claims is compared with a
limit before anything is decompressed; no array gets more bytes than its entry in the archive claims.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.regular_files import open_binary

_MAX_BYTES = 4 << 30
"""The largest file, and the largest sum of its arrays: labels of a thousand million records."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is too large.
        ValueError: the file is damaged, or its arrays are too large.
    """
    with open_binary(path, max_bytes=_MAX_BYTES) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                claimed = sum(entry.file_size for entry in archive.infolist())
            if claimed > _MAX_BYTES:
                raise ValueError(f"its arrays have {claimed:,} bytes, expected at most {_MAX_BYTES:,}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # a damaged archive raises many kinds of errors from zipfile, zlib and numpy
            raise ValueError(str(error) or type(error).__name__) from None
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise ValueError("it holds something that is not an array")
    return found
