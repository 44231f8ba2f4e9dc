"""The arrays of an index at one point in time, memory-mapped from its column files.

Cells and removed rows are in memory (`kept_column`). Ids and codes are compared with their checksums when the arrays
are opened, and a block of any other column when one of its rows is read. Features and probabilities that are small
together are read through the mapping of their files. If they are large, a few rows are read from the file instead,
since the system would map megabytes around each row; many rows are read through the mapping, and `release_pages`
returns the memory.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.vocabulary import Vocabulary
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError, SemcutError
from semcut.indexes.scoring.packed_rows import PackedRows
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.cut_files import cuts, mapping_of, raise_interrupt, require_frames
from semcut.indexes.storage.kept_column import KEPT
from semcut.indexes.storage.memory_column import MemoryColumn
from semcut.indexes.storage.stored_attributes import read_attributes, read_vocabulary
from semcut.indexes.storage.stored_texts import read_keys, read_texts
from semcut.indexes.stored_values import decoded_features, read_from_index

_T = TypeVar("_T")

_MAPPED_BYTES = 1 << 27  # features and probabilities of at most this size stay mapped after a search
_FEW_ROWS = 1024  # up to this number of rows, reading them from the file is faster than mapping them
_LARGE = ("probabilities", "features")
_COMPARED = ("ids", "codes", "cells", "removed")  # when the columns are opened
_SEARCHED = ("ids", "probabilities", "features")

ColumnFiles = dict[str, Column] | dict[str, MemoryColumn]
"""The columns of an index by name: stored in files, or in memory."""


class Columns:
    """The rows of an index at one point in time: read-only, memory-mapped. Rows that are added later do not appear.

    Args:
        files: the columns, which become `sources`.
        extents: the valid part of each column.

    Attributes:
        sources: the columns whose rows these arrays are.

    Raises:
        DamagedIndexError: a file is too short, or does not match its checksums.
    """

    def __init__(self, files: ColumnFiles, extents: dict[str, Extent]) -> None:
        self.sources = files
        self.extents = extents
        self._arrays = {name: file.view(extents[name].rows) for name, file in files.items()}
        found = {name: mapping_of(array) for name, array in self._arrays.items()}
        self._mappings = {name: mapping for name, mapping in found.items() if mapping is not None}
        self._stays_mapped = not self.files() or sum(self._arrays[name].nbytes for name in _LARGE) <= _MAPPED_BYTES
        self._mapped_before = 0 if self._stays_mapped else _mapped_bytes()
        self._looked_at = -np.inf
        mapped = {name: file for name, file in self.files().items() if name not in KEPT}
        self._sizes = {name: (file.descriptor, self._arrays[name].nbytes) for name, file in mapped.items()}
        self._searched = [self._sizes[name] for name in _SEARCHED if name in self._sizes]
        for name in _COMPARED:
            self.sources[name].check(extents[name])
        self.require_uncut()

    def __len__(self) -> int:
        return len(self._arrays["ids"])

    @property
    def ids(self) -> NDArray[np.int64]:
        """(rows,) int64."""
        return self._present("ids")

    @property
    def codes(self) -> NDArray[np.uint8]:
        """(rows, bits / 8) uint8."""
        return self._present("codes")

    @property
    def cells(self) -> NDArray[np.int32]:
        """(rows,) int32, position of the cell of each record."""
        return self._present("cells")

    @property
    def removed(self) -> NDArray[np.int64]:
        """(removed,) int64, rows of removed records."""
        return self._present("removed")

    def _present(self, name: str) -> NDArray[Any]:
        self.require_whole(name)
        return self._arrays[name]

    @property
    def cut(self) -> bool:
        """Whether another program has cut a file while its rows were read, so that these arrays cannot be used."""
        return bool(cuts) and any(mapping.cut for mapping in self._mappings.values())

    def require_searchable(self) -> None:
        """Call `require_whole` for the columns that a search reads, but in a few microseconds if all is well.

        The index must be open, and stay so during the call.
        """
        try:
            for descriptor, size in self._searched:
                if os.lseek(descriptor, 0, os.SEEK_END) < size:  # a third of the time of fstat; no offset is ever used
                    break
            else:
                if not cuts:
                    return
        except OSError:
            pass
        self.require_whole(*_SEARCHED)
        self.require_uncut()

    def require_whole(self, *names: str) -> None:
        """Raise `DamagedIndexError` if a file of these columns has become too short for its rows.

        Other programs may have cut the files: they are looked at here, before a read, and by `reading` afterwards.
        """
        for name in names:
            known = self._sizes.get(name)
            if known is None:  # its rows are in memory
                continue
            descriptor, size = known
            try:
                # Faster than fstat; unlike lseek it is harmless if the file was closed, and its number is another's.
                if (not size or os.pread(descriptor, 1, size - 1)) and not cuts:
                    continue
            except OSError:
                pass
            self.files()[name].require(self.extents[name].rows)
            self._require_uncut(name)

    def require_uncut(self) -> None:
        """Raise `DamagedIndexError` if a file was cut: what was read since the files were looked at may be wrong."""
        if self.cut:
            for name in self._mappings:
                self._require_uncut(name)

    def _require_uncut(self, name: str) -> None:
        mapping = self._mappings.get(name)
        if mapping is not None and mapping.cut:
            raise_interrupt()
            path = self.files()[name].path
            raise DamagedIndexError(
                f"{path} could not be read: another program has cut it while the index was open, or the disk fails. "
                "Restore the index with `semcut restore`, then refresh it or open it again"
            )

    def reading(self, call: Callable[[], _T]) -> _T:
        """Call a function that reads these columns, and return its result if it can be trusted.

        Raises:
            DamagedIndexError: a file was cut meanwhile; or the function failed, and ids, codes, cells or removed rows
                are not those that were compared when the columns were opened.
            RecursionError: too few calls can still be nested, see `require_frames`.
        """
        require_frames()
        try:
            result = call()
        except Exception as error:
            self.require_unchanged(error)
            raise
        self.require_uncut()
        return result

    def require_unchanged(self, error: Exception) -> None:
        """Look whether an error has arisen because another program has changed the files.

        Raises:
            DamagedIndexError: a file was cut, or ids, codes, cells or removed rows are not those that were compared
                when the columns were opened.
        """
        self.require_uncut()
        for name in () if isinstance(error, SemcutError) else _COMPARED:
            file, extent = self.sources[name], self.extents[name]
            if isinstance(file, Column) and any(file.fault(extent, block) for block in range(len(extent.crcs))):
                raise DamagedIndexError(
                    f"{file.path} was changed by another program while the index was open: restore the index with "
                    "`semcut restore`, then open it again"
                )

    def probabilities(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read the probabilities of rows.

        Args:
            rows: (any shape) row numbers, -1 for no row.

        Returns:
            An (M, C) float32 matrix, and for each of `rows` its row in this matrix, -1 for no row.

        Raises:
            DamagedIndexError: a row does not match its checksum, or cannot be read.
        """
        found, places = self.stored_probabilities(rows)
        if not isinstance(found, PackedRows):
            return found, places
        wanted, places = _distinct(places)
        return found.taken(wanted).dense(), places

    def stored_probabilities(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32] | PackedRows, NDArray[np.int64]]:
        """Read the probabilities of rows: as `probabilities` does, but rows of few probabilities stay packed."""
        found, places = self.rows_of("probabilities", rows)
        classes = self.sources["probabilities"].spec.values
        return PackedRows(found, classes) if classes else found, places

    def features(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Read the features of rows: as `probabilities` does, but with an (M, D) float32 matrix."""
        found, places = self.rows_of("features", rows)
        spec = self.sources["features"].spec
        if not spec.values:
            return found, places
        wanted, places = _distinct(places)
        return decoded_features(found[wanted], spec.step), places

    def rows_of(self, name: str, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Read probabilities or features as they are stored: as `probabilities` does, in the form of their column."""
        array, file = self.checked(name, rows), self.sources[name]
        if rows.ndim == 1 and len(rows) and isinstance(file, Column):
            first, span = int(rows[0]), int(rows[-1] - rows[0]) + 1
            if first >= 0 and len(rows) <= span < 2 * len(rows) and (rows[1:] > rows[:-1]).all():
                # Where whole stretches are copied or verified, a file that shrinks meanwhile must be an error only.
                return file.stretch(first, span), rows - first
        present = rows >= 0
        if self._stays_mapped or rows.size > _FEW_ROWS or not isinstance(file, Column):
            return array, rows
        places = np.full(rows.shape, -1, np.int64)
        places[present] = np.arange(np.count_nonzero(present))
        return file.gather(rows[present]), places

    def compared(self, *names: str) -> tuple[int, list[NDArray[np.bool_]]]:
        """Return the rows per block, and for each of these columns which blocks were compared with their checksums."""
        return self.sources[names[0]].block, [self.sources[name].compared for name in names]

    def release_pages(self, min_interval: float = 0) -> None:
        """Release what searches have mapped, if it has become much; look at most each `min_interval` seconds.

        A look takes a tenth of a short search; mapping pages again, up to half of a large batch.
        """
        now = time.monotonic()
        if self._stays_mapped or now < self._looked_at + min_interval:
            return
        self._looked_at = now
        if _mapped_bytes() - self._mapped_before > _MAPPED_BYTES:
            self.release(*_SEARCHED)
            self._mapped_before = _mapped_bytes()

    def release(self, *names: str) -> None:
        """Release the memory-mapped pages of these columns; what is read again is mapped again."""
        for name in names:
            if name in self._mappings:
                self._mappings[name].madvise(mmap.MADV_DONTNEED)

    def uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        """Read the uris of the records in (n,) rows, None for a record without a uri.

        Raises:
            DamagedIndexError: the stored bytes do not match their checksums, or are not uris.
        """
        return self.reading(lambda: read_texts(self, "uri", rows))

    def keys(self, rows: NDArray[np.int64]) -> list[str] | None:
        """Read the keys of the records in (n,) rows, as `read_keys`."""
        return self.reading(lambda: read_keys(self, rows))

    def attributes(self, rows: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Read the attributes of the records in (n,) rows, by name; errors as for `read_attributes`."""
        return self.reading(lambda: read_attributes(self, rows) or {})

    def records(self, rows: NDArray[np.int64]) -> Encodings:
        """Read all columns of the records in (n,) rows.

        Raises:
            DamagedIndexError: a row does not match its checksum, cannot be read, or has impossible values.
        """
        with read_from_index():
            return self.reading(lambda: self._records(rows))

    def _records(self, rows: NDArray[np.int64]) -> Encodings:
        uris = read_texts(self, "uri", rows)
        probabilities, probability_places = self.probabilities(rows)
        features, feature_places = self.features(rows)
        self.release_pages()
        return Encodings(
            probabilities=probabilities[probability_places],
            codes=self.codes[rows],
            features=features[feature_places],
            ids=self.ids[rows],
            uris=uris if any(uri is not None for uri in uris) else None,
            attributes=read_attributes(self, rows),
            keys=read_keys(self, rows),
            any_mass=True,
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The values of categories.

        Raises:
            DamagedIndexError: they are not as semcut writes them.
        """
        return read_vocabulary(self)

    def raw(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of all columns; their rows were not necessarily compared with their checksums."""
        return self._arrays

    def files(self) -> dict[str, Column]:
        """Return the column files; empty for an index in memory."""
        return {name: file for name, file in self.sources.items() if isinstance(file, Column)}

    def checked(self, name: str, rows: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Return the array of a column after some of its rows, or all, were compared with their checksums.

        Raises:
            DamagedIndexError: a row does not match.
        """
        array = self._present(name)
        self.sources[name].check(self.extents[name], rows)
        return array


def _distinct(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the different places, and the position of each place among them; -1 stays -1, for any shape."""
    present = places >= 0
    wanted, of_places = np.unique(places[present], return_inverse=True)
    found = np.full(places.shape, -1, np.int64)
    found[present] = of_places
    return wanted, found


def _mapped_bytes() -> int:
    """Return the number of bytes of mapped files that this process has in memory."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(200).split()[2]) * mmap.PAGESIZE
    except OSError:  # no descriptor is free, or the system is not Linux: no pages are released then
        return 0
