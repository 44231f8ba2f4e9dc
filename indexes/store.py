"""The records of an index, stored in a directory or in memory: column files plus a catalogue.

A directory holds `catalogue.sqlite` and one file per column (see `columns` and `catalogue`). A batch is added in three
steps, all of them inside one SQLite transaction that holds the catalogue's write lock:

1. its rows are written to every column file, after the committed rows;
2. every column file is synced to the disk;
3. the transaction commits the new row count, the changed cells and the uris.

A crash before the third step leaves the index as it was before: the rows beyond the committed count are never read, and
the next batch is written over them. A crash after it leaves the batch whole. The lock dies with its process; a second
writer gets an error, and so does a writer whose view of the index is out of date.

An index in memory takes the same path, with columns and an SQLite database in memory.
"""

from __future__ import annotations

import os
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexes import columns as column_files
from indexes.catalogue import Catalogue
from indexes.columns import NAMES, Column, Columns, MemoryColumn
from indexes.encodings import Encodings
from indexes.errors import IndexExistsError, NotAnIndexError, StorageError
from indexes.params import IndexConfig
from indexes.partitions import Cells

CATALOGUE = "catalogue.sqlite"


class Store:
    """Columns and catalogue of one index; `create` or `open` it. Not for several threads at once.

    Attributes:
        normalised: whether every feature has length 1.
        cells: the cells, as of the last commit.
    """

    def __init__(
        self, path: Path | None, catalogue: Catalogue, config: IndexConfig, files: dict[str, Column | MemoryColumn]
    ) -> None:
        self.path = path
        self.config = config
        self._catalogue = catalogue
        self._files = files
        self._rows, self.normalised, self.cells = catalogue.snapshot(config)

    @staticmethod
    def create(path: Path | None, config: IndexConfig) -> Store:
        """Make an empty store: in a directory that is new or empty, or in memory.

        Raises:
            IndexExistsError: there is something at the path.
            StorageError: the directory cannot be made.
        """
        if path is not None:
            try:
                path.mkdir(parents=True, exist_ok=True)
                occupied = any(path.iterdir())
            except (FileExistsError, NotADirectoryError):
                occupied = True
            except OSError as error:
                raise StorageError(f"cannot make the directory {path}: {error.strerror}") from None
            if occupied:
                raise IndexExistsError(
                    f"{path} exists already and is not an empty directory: open the index there, or choose another path"
                )
        with ExitStack() as on_error:
            files = _open_files(path, config, on_error, create=True)
            catalogue = Catalogue.create(None if path is None else path / CATALOGUE, config)
            on_error.callback(catalogue.close)
            if path is not None:
                _sync_directory(path)
            store = Store(path, catalogue, config, files)
            on_error.pop_all()
        return store

    @staticmethod
    def open(path: Path) -> Store:
        """Open the store in a directory, as it was at the last commit.

        Raises:
            NotAnIndexError, FormatVersionError, DamagedIndexError: saying what is there instead.
        """
        if not path.is_dir():
            raise NotAnIndexError(f"{path} is not a directory: give the directory of an index")
        if not (path / CATALOGUE).is_file():
            raise NotAnIndexError(f"{path} is not a semcut index: it has no {CATALOGUE}")
        with ExitStack() as on_error:
            catalogue = Catalogue(path / CATALOGUE)
            on_error.callback(catalogue.close)
            config = catalogue.config()
            store = Store(path, catalogue, config, _open_files(path, config, on_error, create=False))
            on_error.pop_all()
        return store

    def __len__(self) -> int:
        return self._rows

    def columns(self) -> Columns:
        """The committed rows.

        Raises:
            DamagedIndexError: a column file is too short for them.
        """
        return Columns(**{name: file.view(self._rows) for name, file in self._files.items()})

    def uris(self, rows: NDArray[np.int64]) -> list[str | None]:
        """The uri of each row, None where it has none."""
        return self._catalogue.uris(rows)

    def column_bytes(self) -> dict[str, int]:
        """Bytes of the committed rows, per column."""
        return {name: self._rows * file.row_bytes for name, file in self._files.items()}

    def append(self, encodings: Encodings, numbers: NDArray[np.int32], cells: Cells) -> None:
        """Add a batch: when this returns it is committed, when it raises nothing has changed.

        Args:
            encodings: the batch, with ids.
            numbers: (n,) cell of each record.
            cells: the cells after the batch.
        """
        assert encodings.ids is not None
        values: dict[str, NDArray[Any]] = {
            "ids": encodings.ids,
            "codes": encodings.codes,
            "probabilities": encodings.probabilities,
            "features": encodings.features,
            "cells": numbers,
        }

        def write() -> dict[str, int]:
            for name, file in self._files.items():
                file.append(self._rows, values[name])
            for file in self._files.values():
                file.sync()
            if self.path is None:
                return dict.fromkeys(NAMES, 0)
            return {name: zlib.crc32(np.ascontiguousarray(values[name]).data) for name in NAMES}

        normalised = self.normalised and encodings.normalised()
        self._catalogue.commit(
            before=self._rows,
            write=write,
            rows=len(encodings),
            cells=cells,
            touched=np.unique(numbers).astype(np.int64),
            normalised=normalised,
            uris=encodings.uris,
        )
        self._rows += len(encodings)
        self.normalised, self.cells = normalised, cells

    def close(self) -> None:
        """Close every file. Views of the columns stay valid."""
        self._catalogue.close()
        for file in self._files.values():
            file.close()


def _open_files(
    path: Path | None, config: IndexConfig, on_error: ExitStack, *, create: bool
) -> dict[str, Column | MemoryColumn]:
    writable = create or (path is not None and os.access(path, os.W_OK))
    files: dict[str, Column | MemoryColumn] = {}
    for name, (dtype, shape) in column_files.shapes(config).items():
        if path is None:
            files[name] = MemoryColumn(dtype, shape)
        else:
            files[name] = Column(path / name, dtype, shape, create=create, writable=writable)
        on_error.callback(files[name].close)
    return files


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
