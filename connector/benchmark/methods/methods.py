"""What is compared: a structure is built once, and each method is one way to search it.

A structure is an index of semcut's or of FAISS's; a method is a structure with fixed search parameters (a cutoff, an
nprobe, an efSearch) and, perhaps, a re-rank behind it. Methods of one structure share what it built.

Every method gives ids (nq, k) int64, best first, padded with -1. Records have the ids 0 to n - 1 and are added in that
order, so FAISS's own numbers are the ids.

The re-rank that FAISS's binary indexes get is the same for all of them and as fast as this machine allows: distances of
the shortlist in C++, features read in place, then the k smallest by one integer key that holds distance and id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.scoring.rounding import squared_distances

Ids = NDArray[np.int64]
Search = Callable[[Encodings, int], Ids]
Steps = dict[str, NDArray[np.int64]]

_BATCH = 50_000


@dataclass(frozen=True, eq=False)
class Data:
    """The records of a data set, as structures are built from them.

    Attributes:
        path: the directory of the stored index.
        index: the stored index.
        config: its shape.
        codes: (n, bits / 8) uint8, in memory, by id.
        features: (n, D) float32, by id: in memory, or mapped.
    """

    path: Path
    index: FaissIndex
    config: IndexConfig
    codes: NDArray[np.uint8]
    features: NDArray[np.float32]

    @staticmethod
    def of(index: FaissIndex, *, mapped: bool = False) -> Data:
        """The records of a stored index whose ids are 0 to n - 1, in order.

        Args:
            index: where they are.
            mapped: leave the features where they are stored, for data that memory cannot hold twice.
        """
        config = index.config
        columns, path = index._state.columns, index._store.path
        assert path is not None
        if mapped:
            return Data(path, index, config, columns.codes, columns.raw()["features"])
        codes = np.empty((len(index), config.bits // 8), np.uint8)
        features = np.empty((len(index), config.dim), np.float32)
        for start in range(0, len(index), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(index)))
            codes[rows] = columns.codes[rows]
            matrix, at = columns.features(rows)
            features[rows] = matrix[at]
            columns.release_pages()
        return Data(path, index, config, codes, features)

    def __len__(self) -> int:
        return len(self.codes)

    def batches(self) -> Iterator[Encodings]:
        """All records in order of their ids."""
        return self.index.iterate(_BATCH)


class Structure(Protocol):
    """Something that is built from the records and searched.

    Attributes:
        name: for tables.
    """

    name: str

    def build(self, data: Data) -> float:
        """Build it, and say how many seconds that took, the reading of the records left out."""
        ...

    def bytes(self) -> int:
        """Bytes that it takes on the disk, the features that a re-rank reads not included."""
        ...

    def methods(self) -> list[Method]:
        """The ways to search it."""
        ...

    def close(self) -> None:
        """Let go of its memory."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Method:
    """One way to search a structure.

    Attributes:
        name: unique in a run; also names its file of raw results.
        family: methods that differ in their parameters alone; a curve of a plot.
        parameters: what they are.
        structure: what is searched.
        search: ids (nq, k) of the k best for each query.
        reranks: whether features are read too, and count as a part of its bytes.
        everything: the whole ranking, (nq, n) ids, of a method whose ranking is of all records; None elsewhere.
        steps: what a search did, one number per query and step; semcut alone can say.
    """

    name: str
    family: str
    parameters: dict[str, Any]
    structure: Structure
    search: Search
    reranks: bool = False
    everything: Callable[[Encodings], Ids] | None = None
    steps: Callable[[Encodings, int], Steps] | None = field(default=None)


def rerank(queries: NDArray[np.float32], features: NDArray[np.float32], rows: Ids, k: int) -> Ids:
    """The k rows nearest to each query by Euclidean distance, ties by row.

    Args:
        queries: (nq, D) float32.
        features: (n, D) float32, n < 2^32.
        rows: (nq, m) int64 candidates, -1 for none.
        k: how many to give.

    Returns:
        (nq, k) int64, -1 at the end of a row that has fewer.
    """
    squared = squared_distances(queries, features, rows)
    # float32 numbers that are not negative are in the order of their bits
    keys = squared.view(np.uint32).astype(np.uint64) << np.uint64(32) | rows.view(np.uint64) & np.uint64(0xFFFFFFFF)
    if keys.shape[1] > k:
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys = np.sort(keys, axis=1)
    best = np.full((len(rows), k), -1, np.int64)
    found = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    best[:, : keys.shape[1]] = np.where(keys >> np.uint64(32) >= _INFINITE, -1, found)
    return best


_INFINITE = np.float32(np.inf).view(np.uint32).astype(np.uint64)


def reranked(search: Search, features: Callable[[], NDArray[np.float32]], shortlist: int) -> Search:
    """A search whose first `shortlist` results are ordered by exact distance."""

    def both(queries: Encodings, k: int) -> Ids:
        return rerank(queries.features, features(), search(queries, shortlist), k)

    return both


def written_bytes(index: Any) -> int:
    """Bytes of a FAISS index as FAISS writes it to a file; nothing is written."""
    total = 0

    def count(part: bytes) -> int:
        nonlocal total
        total += len(part)
        return len(part)

    writer = getattr(faiss, "PyCallbackIOWriter")(count)  # noqa: B009  # the stubs of FAISS leave it out
    (faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index)(index, writer)
    return total
