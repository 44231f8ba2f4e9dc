"""The arrays of an index at one point in time, out of its column files, and how much of them is in memory.

Ids, codes and cells are compared with their checksums when the arrays are made, the others row by row when they are
asked for. Small features and probabilities are used through the mapping of their files. Of large ones a few rows are
read from the file instead, since the system maps megabytes around each row that is touched; many rows are used through
the mapping, which `relax` gives back.
"""

from __future__ import annotations

import mmap
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.storage.column_files import Column, Extent, MemoryColumn

_MAPPED = 1 << 27  # bytes of features and probabilities that may stay mapped after a search
_FEW = 1024  # rows up to which reading them from the file beats mapping them
_LARGE = ("probabilities", "features")


class Columns:
    """The rows of an index at one point in time: read-only, memory-mapped. Rows that are added later do not show.

    Args:
        files: the columns.
        extents: what counts of each.

    Raises:
        DamagedIndexError: a file is too short, or does not match its checksums.
    """

    def __init__(self, files: dict[str, Column] | dict[str, MemoryColumn], extents: dict[str, Extent]) -> None:
        self._files: dict[str, Column | MemoryColumn] = dict(files)
        self.extents = extents
        self._views = {name: file.view(extents[name].rows) for name, file in files.items()}
        self._small = not self.files() or sum(self._views[name].nbytes for name in _LARGE) <= _MAPPED
        self._mapped = 0 if self._small else _mapped_bytes()
        self._relaxed = -np.inf
        for name in ("ids", "codes", "cells", "removed"):
            self._files[name].check(extents[name])
        self.ids: NDArray[np.int64] = self._views["ids"]
        self.codes: NDArray[np.uint8] = self._views["codes"]
        self.cells: NDArray[np.int32] = self._views["cells"]
        self.removed: NDArray[np.int64] = self._views["removed"]

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Probabilities of rows (any shape, -1 for none): an (M, C) matrix, and where in it each of them is."""
        return self._rows_of("probabilities", rows)

    def features(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features of rows (any shape, -1 for none): an (M, D) matrix, and where in it each of them is."""
        return self._rows_of("features", rows)

    def _rows_of(self, name: str, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        view, file = self._checked(name, rows), self._files[name]
        if self._small or rows.size > _FEW or not isinstance(file, Column):
            return view, rows
        present = rows >= 0
        at = np.full(rows.shape, -1, np.int64)
        at[present] = np.arange(np.count_nonzero(present))
        return file.gather(rows[present]), at

    def compared(self, *names: str) -> tuple[int, list[NDArray[np.bool_]]]:
        """Rows per block, and for some columns which blocks have been compared with their checksums, as of now."""
        files = [self._files[name] for name in names]
        return files[0].block, [file.compared for file in files]

    def release_pages(self, rest: float = 0) -> None:
        """Let go of memory that mapped files take, if it has become much; they are mapped again when they are used.

        Args:
            rest: seconds since the last time before which to do nothing: mapping again can cost half as much as the
                search of a large batch, and should not come with each.
        """
        now = time.monotonic()
        if self._small or now < self._relaxed + rest:
            return
        if _mapped_bytes() - self._mapped > _MAPPED:
            self._relaxed = now
            for name in _LARGE:
                mapping = _mapping(self._views[name])
                if mapping is not None:
                    mapping.madvise(mmap.MADV_DONTNEED)
            self._mapped = _mapped_bytes()

    def uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        """The uri of each row, None where it has none.

        Raises:
            DamagedIndexError: what is there is not uris.
        """
        ends = self._checked("uri_ends", np.concatenate([rows, rows - 1]))
        stops = ends[rows]
        starts = np.where(rows > 0, ends[rows - 1], 0) if len(rows) else stops
        blocks = self._files["uri_bytes"].spec.block
        text = self._views["uri_bytes"]
        if len(rows) and (starts.min() < 0 or (stops < starts).any() or stops.max() > len(text)):
            raise DamagedIndexError("the uri_ends of the index are damaged: restore it from a backup")
        filled = stops > starts
        first, last = starts[filled] // blocks, (stops[filled] - 1) // blocks
        between = [np.arange(a, b) for a, b in zip(*(x[last > first + 1] for x in (first, last)), strict=True)]
        self._files["uri_bytes"].check(self.extents["uri_bytes"], np.concatenate([first, last, *between]) * blocks)
        try:
            return [
                text[start : stop - 1].tobytes().decode() if stop > start else None
                for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
            ]
        except UnicodeDecodeError:
            raise DamagedIndexError("the uri_bytes of the index are damaged: restore it from a backup") from None

    def records(self, rows: NDArray[np.int64]) -> Encodings:
        """The records in these (n,) rows, whole."""
        uris = self.uris(rows)
        probabilities, place = self.probabilities(rows)
        features, at = self.features(rows)
        self.release_pages()
        return Encodings(
            probabilities=probabilities[place],
            codes=self.codes[rows],
            features=features[at],
            ids=self.ids[rows],
            uris=uris if any(uri is not None for uri in uris) else None,
        )

    def raw(self) -> dict[str, NDArray[Any]]:
        """All columns as they are, not compared with their checksums."""
        return self._views

    def files(self) -> dict[str, Column]:
        """The files, none in memory."""
        return {name: file for name, file in self._files.items() if isinstance(file, Column)}

    def _checked(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        self._files[name].check(self.extents[name], rows)
        return self._views[name]


def column_values(encodings: Encodings, cells: NDArray[np.int32], uri_start: int) -> dict[str, NDArray[Any]]:
    """A batch as rows of every column but `removed`, its uris behind `uri_start` bytes that are there already."""
    texts = [b"" if uri is None else uri.encode() + b"\0" for uri in encodings.uris or ()]
    lengths = [len(text) for text in texts] if texts else np.zeros(len(encodings), np.int64)
    assert encodings.ids is not None
    return {
        "ids": encodings.ids,
        "codes": encodings.codes,
        "probabilities": encodings.probabilities,
        "features": encodings.features,
        "cells": cells,
        "uri_ends": uri_start + np.cumsum(lengths, dtype=np.int64),
        "uri_bytes": np.frombuffer(b"".join(texts), np.uint8),
    }


def _mapping(view: NDArray[Any]) -> mmap.mmap | None:
    """What a view of a column file maps."""
    base: object = view
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, mmap.mmap) else None


def _mapped_bytes() -> int:
    """Bytes of mapped files that this process has in memory."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(200).split()[2]) * mmap.PAGESIZE
    except OSError:  # no descriptor left, or no such system: mappings are then kept
        return 0
