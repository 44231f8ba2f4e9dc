"""Store and open a data set of a benchmark: an index of records, an index of queries, and the labels of both.

A data set is one directory, whether its encodings come from images or are generated:

    index/          a stored `FaissIndex` of the records; ids are 0 to n - 1
    queries/        a stored `FaissIndex` of the queries; ids are 0 to nq - 1
    labels.npz      labels by id: `records` (n,) int32 and `queries` (nq,) int32
    dataset.json    `About`: what the data set is and how it was made

`dataset.json` is written last, in one step: a directory that has this file holds a complete data set.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.connector.benchmark.datasets.array_files import read_arrays
from semcut.indexes import FaissIndex, SemcutError
from semcut.indexes.config import IndexConfig, Settings
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import replacing, write_json

_ABOUT, _LABELS, _INDEX, _QUERIES = "dataset.json", "labels.npz", "index", "queries"


class About(Settings):
    """The description of a data set.

    Attributes:
        name: name in tables and file names.
        source: where the encodings come from, in words.
        records: n.
        queries: nq.
        classes: C.
        bits: length of a code.
        dim: length of a feature.
        zipf: exponent of the class frequencies; 0 if they are equal or those of the source.
        seed: seed of all random choices in the data set; None if there were none.
    """

    name: str
    source: str
    records: int
    queries: int
    classes: int
    bits: int
    dim: int
    zipf: float = 0.0
    seed: int | None = None


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
            DataError: the directory holds no data set, or an unfinished or damaged one.
            NotAnIndexError, DamagedIndexError: one of the two indexes is missing or damaged.
        """
        try:
            about = About(**read_json(path / _ABOUT))  # type: ignore[arg-type]
            labels = read_arrays(path / _LABELS)
            records, queries = labels["records"], labels["queries"]
        except (OSError, ValueError, KeyError, TypeError, SemcutError):
            raise DataError(
                f"{path} holds no finished data set of a benchmark: delete it, and the next run creates it again"
            ) from None
        with ExitStack() as opened:
            both = [opened.enter_context(FaissIndex.open(path / name)) for name in (_INDEX, _QUERIES)]
            dataset = Dataset(path, about, both[0], both[1], records, queries)
            dataset._check_shapes()
            opened.pop_all()
        return dataset

    @property
    def index_path(self) -> Path:
        """The directory of the index of records."""
        return self.path / _INDEX

    def _check_shapes(self) -> None:
        """Raise `DataError` unless both indexes and both arrays of labels have the sizes that `about` states."""
        about = self.about
        expected = (about.classes, about.bits, about.dim)
        for name, index, labels, rows in (
            (_INDEX, self.index, self.record_labels, about.records),
            (_QUERIES, self.queries, self.query_labels, about.queries),
        ):
            if not len(index) == len(labels) == rows or shape(index) != expected:
                raise DataError(
                    f"{self.path / name} has {len(index)} records with {len(labels)} labels and (classes, bits, dim) = "
                    f"{shape(index)}, but {_ABOUT} states {rows} records and {expected}: delete {self.path}, and the "
                    "next run creates it again"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both indexes."""
        self.index.close()
        self.queries.close()


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
