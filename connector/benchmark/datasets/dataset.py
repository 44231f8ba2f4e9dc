"""A data set of a benchmark: an index to copy records from, queries, and the label of each of them.

On the disk it is one directory, whether its encodings are real or fitted:

    index/          a stored `FaissIndex`; ids are 0 to n - 1
    queries/        another, of the queries
    labels.npz      records (n,) int32 and queries (nq,) int32, by id
    dataset.json    `About`: what it is and how it was made

`dataset.json` is written last and in one step: a directory with it holds a whole data set.
"""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from semcut.indexes import FaissIndex, SemcutError
from semcut.indexes.config import Settings
from semcut.indexes.errors import DataError

_ABOUT, _LABELS, _INDEX, _QUERIES = "dataset.json", "labels.npz", "index", "queries"


class About(Settings):
    """What a data set is.

    Attributes:
        name: for tables and file names.
        source: what the encodings are, in words.
        records: n.
        queries: nq.
        classes: C.
        bits: length of a code.
        dim: length of a feature.
        zipf: exponent of the frequencies of classes, 0 where they are those of the source or equal.
        seed: of what is random in it; None if nothing is.
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
    """A data set, opened. A context manager that closes it.

    Attributes:
        about: what it is.
        index: the records.
        queries: an index of the queries.
        record_labels: (n,) int32 by id.
        query_labels: (nq,) int32 by id.
    """

    about: About
    index: FaissIndex
    queries: FaissIndex
    record_labels: NDArray[np.int32]
    query_labels: NDArray[np.int32]

    @staticmethod
    def open(path: Path) -> Dataset:
        """Open the data set in a directory.

        Raises:
            DataError: it is not one, or was not finished.
            NotAnIndexError, DamagedIndexError: one of its indexes is not what it was.
        """
        try:
            about = About(**json_of(path / _ABOUT))
            with (path / _LABELS).open("rb") as file, np.load(file, allow_pickle=False) as labels:
                records, queries = labels["records"], labels["queries"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, SemcutError):
            raise DataError(
                f"{path} holds no finished data set of a benchmark: delete it, and it is made again"
            ) from None
        with ExitStack() as opened:
            both = [opened.enter_context(FaissIndex.open(path / name)) for name in (_INDEX, _QUERIES)]
            dataset = Dataset(about, both[0], both[1], records, queries)
            dataset._check(path)
            opened.pop_all()
        return dataset

    def _check(self, path: Path) -> None:
        """That all parts are of one size and shape."""
        about = self.about
        told = (about.classes, about.bits, about.dim)
        for name, index, labels, rows in (
            (_INDEX, self.index, self.record_labels, about.records),
            (_QUERIES, self.queries, self.query_labels, about.queries),
        ):
            if not len(index) == len(labels) == rows or shape(index) != told:
                raise DataError(
                    f"{path / name} has {len(index)} records with {len(labels)} labels and (classes, bits, dim) = "
                    f"{shape(index)}, but {_ABOUT} says {rows} and {told}: delete {path}, and it is made again"
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
    """Classes, bits and feature length of an index."""
    return index.config.classes, index.config.bits, index.config.dim


def json_of(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("no object")
    return content


def begin(path: Path) -> tuple[Path, Path]:
    """Make a new directory for a data set; where its two indexes go, records first.

    Raises:
        DataError: there is something at the path.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise DataError(
                f"{path} is not empty, perhaps an unfinished data set: delete it, or give another directory"
            )
    except OSError as error:
        raise DataError(f"cannot make the directory {path}: {error.strerror}") from None
    return path / _INDEX, path / _QUERIES


def finish(path: Path, about: About, record_labels: NDArray[np.int32], query_labels: NDArray[np.int32]) -> None:
    """Write what makes a directory that holds both indexes a data set. The last file is what counts as done."""
    np.savez(path / _LABELS, records=record_labels.astype(np.int32), queries=query_labels.astype(np.int32))
    scratch = path / f"{_ABOUT}.new"
    scratch.write_text(about.model_dump_json(indent=2) + "\n")
    os.replace(scratch, path / _ABOUT)
