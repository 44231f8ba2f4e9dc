"""Store and open a data set of a benchmark: an index of records, an index of queries, and the labels of both.

A data set is one directory, whether its encodings come from images or are generated:

    index/          a stored `FaissIndex` of the records; ids are 0 to n - 1
    queries/        a stored `FaissIndex` of the queries; ids are 0 to nq - 1
    labels.npz      labels by id: `records` (n,) int32 and `queries` (nq,) int32
    dataset.json    `About`: what the data set is and how it was made

`dataset.json` is written last, in one step: a directory that has this file holds a complete data set.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import Self

from semcut.connector.benchmark.datasets.array_files import Array, read_arrays
from semcut.connector.benchmark.datasets.run_folders import require_directory
from semcut.indexes import FaissIndex, SemcutError
from semcut.indexes.config import MAX_CLASSES, IndexConfig, Settings
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import replacing, write_json

Text = Annotated[str, Field(max_length=200)]
"""A name, or a short text: longer ones would make a report slow to draw and useless to read."""
Count = Annotated[int, Field(ge=0, le=1 << 48)]
"""A number of things, or of bytes."""

_ABOUT, _LABELS, _INDEX, _QUERIES = "dataset.json", "labels.npz", "index", "queries"


class About(Settings):
    """The description of a data set.

    Attributes:
        name: name in tables, at most 200 characters.
        source: where the encodings come from, in words, at most 500 characters.
        records: n.
        queries: nq.
        classes: C.
        bits: length of a code.
        dim: length of a feature.
        zipf: exponent of the class frequencies; 0 if they are equal or those of the source.
        seed: seed of all random choices in the data set; None if there were none.
        origin: the indexes that it was made of, or was fitted to, see `data_origin`; None if that is not known.
    """

    name: Text
    source: str = Field(max_length=500)
    records: int = Field(ge=1, le=1 << 48)
    queries: int = Field(ge=1, le=1 << 48)
    classes: int = Field(ge=2, le=MAX_CLASSES)
    bits: int = Field(ge=1, le=1024)
    dim: int = Field(ge=1, le=65_536)
    zipf: float = Field(default=0.0, ge=0, le=1e6)
    seed: Count | None = None
    origin: Text | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """An open data set. It is a context manager that closes both indexes.

    Attributes:
        path: its directory.
        about: its description.
        index: the records.
        queries: an index of the queries.
        record_labels: (n,) int32 by id.
        query_labels: (nq,) int32 by id.
    """

    path: Path
    about: About
    index: FaissIndex
    queries: FaissIndex
    record_labels: NDArray[np.int32]
    query_labels: NDArray[np.int32]

    @staticmethod
    def open(path: Path) -> Dataset:
        """Open the data set in a directory.

        Raises:
            DataError: the directory holds no data set, or an unfinished or damaged one, or one with links.
            NotAnIndexError, DamagedIndexError: one of the two indexes is missing or damaged.
        """
        about = _about(path)
        with ExitStack() as opened:
            for name in (_INDEX, _QUERIES):
                require_directory(path / name)
            index, queries = (opened.enter_context(FaissIndex.open(path / name)) for name in (_INDEX, _QUERIES))
            _check_index(path, _INDEX, index, about, about.records)
            _check_index(path, _QUERIES, queries, about, about.queries)
            dataset = Dataset(path, about, index, queries, *_read_labels(path, about))
            opened.pop_all()
        return dataset

    @property
    def index_path(self) -> Path:
        """The directory of the index of records."""
        return self.path / _INDEX

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both indexes."""
        self.index.close()
        self.queries.close()


def _about(path: Path) -> About:
    try:
        return About(**read_json(path / _ABOUT))  # type: ignore[arg-type]
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (OSError, ValueError, TypeError, SemcutError) as error:
        raise _damaged(path, _ABOUT, error) from None


def _check_index(path: Path, name: str, index: FaissIndex, about: About, rows: int) -> None:
    """Raise `DataError` unless an index has the size that `about` states, and ids from 0."""
    expected = (about.classes, about.bits, about.dim)
    if len(index) != rows or shape(index) != expected:
        raise DataError(
            f"{path / name} has {len(index)} records and (classes, bits, dim) = {shape(index)}, but {_ABOUT} states "
            f"{rows} records and {expected}: delete {path}, and the next run creates it again"
        )
    ids = index.ids()
    if ids[0] != 0 or (np.diff(ids) != 1).any():
        raise DataError(
            f"{path / name} has other ids than 0 to {rows - 1}: delete {path}, and the next run creates it again"
        )


def _read_labels(path: Path, about: About) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Read the labels of records and queries, as many as both indexes have."""
    expected = {"records": Array("i4", (about.records,)), "queries": Array("i4", (about.queries,))}
    try:
        labels = read_arrays(path / _LABELS, expected.get, expected, 4 * (about.records + about.queries))
    except (OSError, ValueError) as error:
        raise _damaged(path, _LABELS, error) from None
    for name, found in labels.items():
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= about.classes:
            raise DataError(
                f"{path / _LABELS} has labels of {name} from {low} to {high}, expected 0 to {about.classes - 1}: "
                f"delete {path}, and the next run creates it again"
            )
    return labels["records"], labels["queries"]


def _unfinished(path: Path) -> DataError:
    return DataError(f"{path} holds no finished data set of a benchmark: delete it, and the next run creates it again")


def _damaged(path: Path, name: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)[:200]
    return DataError(f"{path / name} cannot be read ({reason}): delete {path}, and the next run creates it again")


def is_finished(path: Path) -> bool:
    """Return whether a directory has the file that marks a data set as complete, readable or not."""
    return os.path.lexists(path / _ABOUT)


def shape(index: FaissIndex) -> tuple[int, int, int]:
    """Return the number of classes, the bits of a code and the feature length of an index."""
    return index.config.classes, index.config.bits, index.config.dim


def start_dataset(path: Path) -> tuple[Path, Path]:
    """Create the directory of a new data set and return the paths of its two indexes: records, then queries.

    Raises:
        DataError: the path is in use, or the directory cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise DataError(
                f"{path} is not empty, perhaps an unfinished data set: delete it, or give another directory"
            )
    except OSError as error:
        raise DataError(f"cannot create the directory {path}: {error.strerror}") from None
    return path / _INDEX, path / _QUERIES


def config_of_queries(config: IndexConfig) -> IndexConfig:
    """Return the configuration of an index of queries, which keeps all that a network says of an image."""
    return config.model_copy(update={"stored_probabilities": config.classes, "stored_features": "float32"})


def finish_dataset(path: Path, about: About, record_labels: NDArray[np.int32], query_labels: NDArray[np.int32]) -> None:
    """Complete a directory that holds both indexes: write the labels, then the description that marks it complete."""
    with replacing(path / _LABELS) as scratch, scratch.open("wb") as file:
        np.savez(file, records=record_labels.astype(np.int32), queries=query_labels.astype(np.int32))
    write_json(path / _ABOUT, about.model_dump())
