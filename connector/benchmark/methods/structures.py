"""Define what a benchmark compares: structures, which are built once, and methods, which search them.

A structure is an index of semcut or of FAISS. A method is a structure with fixed search parameters (a cutoff, an
nprobe, an efSearch) and, for some, an exact re-rank of its results. The methods of one structure search the same built
index.

Every method returns ids (nq, k) int64, best first, padded with -1. Records have the ids 0 to n - 1. Other indexes than
semcut's number the records in the order of `Data`, which is that of the ids; only the rows of a mapped `Data` are in
another order, and `Data.ids_of` returns their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semcut.indexes import Encodings, FaissIndex, IndexConfig

Ids = NDArray[np.int64]
Search = Callable[[Encodings, int], Ids]
"""A function from nq queries and k to ids (nq, k)."""
StepCounts = dict[str, NDArray[np.int64]]
"""For the name of each step of a search, one number per query: (nq,) int64."""
Parameters = dict[str, int | float | str | None]

_BATCH = 50_000


@dataclass(frozen=True, eq=False)
class Data:
    """The records of a data set, in the form that structures are built from.

    Attributes:
        path: the directory of the stored index.
        index: the stored index.
        config: its shape.
        codes: (n, bits / 8) uint8; in memory by id, or by row as stored.
        features: (n, D) float32; in memory by id, or memory-mapped by row.
        ids: (n,) int64, the id of each row. None: codes and features are by id.
    """

    path: Path
    index: FaissIndex
    config: IndexConfig
    codes: NDArray[np.uint8]
    features: NDArray[np.float32]
    ids: NDArray[np.int64] | None = None

    @staticmethod
    def of(index: FaissIndex, path: Path, *, mapped: bool = False) -> Data:
        """Read the records of a stored index whose ids are 0 to n - 1. An index stores them in another order.

        Args:
            index: an open index.
            path: its directory.
            mapped: memory-map the features instead of copying them, for data that memory cannot hold twice.
        """
        config, columns = index.config, index.snapshot.columns
        if mapped and config.stored_features == "float32":
            return Data(path, index, config, columns.codes, columns.raw()["features"], columns.ids)
        codes = np.empty((len(index), config.bits // 8), np.uint8)
        features = np.empty((len(index), config.dim), np.float32)
        for start in range(0, len(index), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(index)))
            ids = columns.ids[rows]
            codes[ids] = columns.codes[rows]
            matrix, at = columns.features(rows)
            features[ids] = matrix[at]
            columns.release_pages()
        return Data(path, index, config, codes, features)

    def __len__(self) -> int:
        return len(self.codes)

    def ids_of(self, rows: Ids) -> Ids:
        """Return the ids of rows of `codes` and `features`, -1 for -1."""
        return rows if self.ids is None else np.where(rows < 0, -1, self.ids[rows])

    def batches(self, size: int = _BATCH) -> Iterator[Encodings]:
        """Iterate over all records in order of their ids, in batches of at most this size."""
        return self.index.iterate(size)


class Structure(Protocol):
    """An index that is built from the records and searched.

    Attributes:
        name: name in tables.
    """

    name: str

    def build(self, data: Data) -> float:
        """Build the index, and return how many seconds that took, without the time to read the records."""
        ...

    def bytes(self) -> int:
        """Return the bytes that the index takes on the disk, without the features that a re-rank reads."""
        ...

    def methods(self) -> list[Method]:
        """List the methods that search the index."""
        ...

    def close(self) -> None:
        """Release the memory of the index."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Method:
    """One way to search a structure.

    Attributes:
        name: unique in a run; the file of raw results is named after it.
        family: the same for methods that differ only in their parameters; one curve of a plot.
        parameters: the parameters of the search, by name.
        structure: the index that is searched.
        search: returns the ids (nq, k) of the k best records for each query.
        reranks: whether a re-rank reads features too; their bytes then count as bytes of the method.
        rank_all: returns the ranking of all n records, (nq, n) ids; None if the method does not rank all of them.
        count_steps: returns what each step of a search processed; None for all methods but those of semcut.
    """

    name: str
    family: str
    parameters: Parameters
    structure: Structure
    search: Search
    reranks: bool = False
    rank_all: Callable[[Encodings], Ids] | None = None
    count_steps: Callable[[Encodings, int], StepCounts] | None = None
