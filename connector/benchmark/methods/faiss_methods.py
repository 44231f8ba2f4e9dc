"""Search FAISS's own indexes: those of the codes by Hamming distance, those of the features by Euclidean distance.

A grid has few values of each search parameter of an index, so that a run with a million records ends in reasonable
time; the points of the grid go from fast and inaccurate to slow and accurate. Each binary index is searched alone, in
order of Hamming distance, and with the re-rank of `exact_rerank`. A graph is also built over features joined with
probabilities (`joined_graph`), so that it sees what semcut sees. GPU indexes are listed only if FAISS finds a GPU:
creating one without a GPU ends the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods import faiss_builders, joined_graph
from semcut.connector.benchmark.methods.exact_rerank import rerank, with_rerank
from semcut.connector.benchmark.methods.faiss_builders import Built
from semcut.connector.benchmark.methods.structures import Data, Ids, Method, Search
from semcut.indexes import Encodings
from semcut.indexes.scoring.equations import hamming
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST

JOINED = "IndexHNSWFlat joined"
PROJECTED = f"{JOINED}, projected"
_QUERIES_PER_BLOCK = 64
_SHORTLISTS = (DEFAULT_SHORTLIST,)


class FaissStructure:
    """One of FAISS's indexes, or an index that is searched in the same way.

    Args:
        name: FAISS's name of the index.
        make: trains and fills the index.
        grid: points of its search parameters.
        shortlists: sizes of the shortlists of methods with a re-rank; empty for an index of features.
        rank_all: ranks all records exactly; None for an index that does not compare all of them.
        vectors: what the index gets of a batch of queries. None: the codes of a binary index, the features of another.
        count_bytes: counts the bytes that an index takes on the disk.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Data], Built],
        *,
        grid: Sequence[dict[str, int]] = ({},),
        shortlists: Sequence[int] = (),
        rank_all: Callable[[Data, Encodings], Ids] | None = None,
        vectors: Callable[[Encodings], Any] | None = None,
        count_bytes: Callable[[Any], int] | None = None,
    ) -> None:
        self.name, self._make = name, make
        self._grid, self._shortlists, self._rank_all = grid, shortlists, rank_all
        self._vectors, self._count_bytes = vectors or (_codes if "Binary" in name else _features), count_bytes
        self._built: Built | None = None
        self._data: Data | None = None

    def build(self, data: Data) -> float:
        """Train and fill the index, and return how many seconds that took."""
        start = time.perf_counter()
        self._built, self._data = self._make(data), data
        return time.perf_counter() - start - self._built.reading

    def bytes(self) -> int:
        """Return the bytes of the file that FAISS, or the library of the index, would write."""
        assert self._built is not None
        index = self._built.index
        if self._count_bytes is not None:
            return self._count_bytes(index)
        return written_bytes(faiss.index_gpu_to_cpu(index) if self.name.startswith("Gpu") else index)

    def close(self) -> None:
        """Release the index."""
        self._built = self._data = None

    def methods(self) -> list[Method]:
        """List one method per point of the grid, and for each point one more per shortlist."""
        return [
            method
            for point in self._grid
            for method in (self._method(point, None), *(self._method(point, size) for size in self._shortlists))
        ]

    def _method(self, point: dict[str, int], shortlist: int | None) -> Method:
        settings = "".join(f", {name} {value}" for name, value in point.items())
        search: Search = self._search(point)
        if shortlist is not None:
            search = with_rerank(search, lambda: self._records().features, shortlist)

        def search_ids(queries: Encodings, k: int) -> Ids:
            return self._records().ids_of(search(queries, k))

        if shortlist is None:
            rank_all = self._rank_all
            return Method(
                name=f"{self.name}{settings}",
                family=self.name,
                parameters={**point},
                structure=self,
                search=search_ids,
                rank_all=None if rank_all is None else lambda queries: rank_all(self._records(), queries),
            )
        return Method(
            name=f"{self.name}{settings} + re-rank of {shortlist}",
            family=f"{self.name} + re-rank",
            parameters={**point, "shortlist": shortlist},
            structure=self,
            search=search_ids,
            reranks=True,
        )

    def _records(self) -> Data:
        assert self._data is not None
        return self._data

    def _search(self, point: dict[str, int]) -> Search:
        def search(queries: Encodings, k: int) -> Ids:
            assert self._built is not None
            index, holders, _ = self._built
            for name, value in point.items():
                setattr(holders[name], name, value)
            ids: Ids = index.search(self._vectors(queries), k)[1]
            return ids

        return search


def code_indexes(*, quick: bool = False) -> list[FaissStructure]:
    """Return the indexes of codes, searched by Hamming distance."""
    sizes = _SHORTLISTS if quick else (*_SHORTLISTS, 500)
    probes, flips = ((4, 16), (1,)) if quick else ((1, 4, 16, 64), (0, 1, 2))
    efs = (64, 256) if quick else (16, 64, 128, 256)
    build = faiss_builders
    return [
        FaissStructure("IndexBinaryFlat", build.binary_flat, shortlists=sizes, rank_all=rank_by_hamming),
        FaissStructure("IndexBinaryIVF", build.binary_ivf, grid=points(nprobe=probes), shortlists=_SHORTLISTS),
        FaissStructure("IndexBinaryHNSW", build.binary_hnsw, grid=points(efSearch=efs), shortlists=_SHORTLISTS),
        FaissStructure("IndexBinaryHash", build.binary_hash, grid=points(nflip=flips), shortlists=_SHORTLISTS),
        FaissStructure(
            "IndexBinaryMultiHash", build.binary_multi_hash, grid=points(nflip=flips[:2]), shortlists=_SHORTLISTS
        ),
    ]


def flat_with_rerank() -> FaissStructure:
    """Return the simplest baseline: a scan of all codes, with and without a re-rank of the default shortlist."""
    return FaissStructure("IndexBinaryFlat", faiss_builders.binary_flat, shortlists=_SHORTLISTS)


def feature_indexes(*, quick: bool = False) -> list[FaissStructure]:
    """Return the indexes of features, searched by Euclidean distance."""
    probes = (4, 16) if quick else (1, 4, 16, 64)
    efs = (16, 64) if quick else (8, 16, 32, 64, 128, 256)
    factors = (10,) if quick else (4, 10)
    refined = [{"nprobe": n, "k_factor": factor} for n in probes[1:] for factor in factors]
    return [
        FaissStructure("IndexFlatL2", faiss_builders.flat, rank_all=rank_by_distance),
        FaissStructure("IndexIVFFlat", faiss_builders.ivf_flat, grid=points(nprobe=probes)),
        FaissStructure("IndexHNSWFlat", faiss_builders.hnsw_flat, grid=points(efSearch=efs)),
        FaissStructure("IndexIVFPQ + refine", faiss_builders.ivf_pq_refined, grid=refined),
    ]


def gpu_indexes(*, quick: bool = False) -> list[FaissStructure]:
    """Return the indexes of FAISS on the first GPU; none if FAISS finds no GPU."""
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        return []
    resources = faiss.StandardGpuResources()  # expensive: all indexes share it

    def on_gpu(make: Callable[[Data], Built]) -> Callable[[Data], Built]:
        def make_on_gpu(data: Data) -> Built:
            index = faiss.index_cpu_to_gpu(resources, 0, make(data).index)
            return Built(index, {"nprobe": index})

        return make_on_gpu

    def binary_flat(data: Data) -> Built:
        return Built(faiss.GpuIndexBinaryFlat(resources, faiss_builders.binary_flat(data).index), {})

    probes = (4, 16) if quick else (1, 4, 16, 64)
    return [
        FaissStructure("GpuIndexBinaryFlat", binary_flat, shortlists=_SHORTLISTS),
        FaissStructure("GpuIndexFlatL2", on_gpu(faiss_builders.flat)),
        FaissStructure("GpuIndexIVFFlat", on_gpu(faiss_builders.ivf_flat), grid=points(nprobe=probes)),
    ]


def graphs_with_classes() -> list[FaissStructure]:
    """Return the graphs of features joined with the roots of probabilities: all roots, and projected ones."""
    return [
        FaissStructure(
            name,
            partial(joined_graph.build, width=width),
            grid=points(efSearch=(8, 16, 64, 256)),
            vectors=partial(joined_graph.join, width=width),
        )
        for name, width in ((JOINED, None), (PROJECTED, joined_graph.WIDTH))
    ]


def rank_by_hamming(data: Data, queries: Encodings) -> Ids:
    """Rank all records by Hamming distance, ties by id: (nq, n) int64."""
    return np.concatenate([np.argsort(hamming(code, data.codes), kind="stable")[None] for code in queries.codes])


def rank_by_distance(data: Data, queries: Encodings) -> Ids:
    """Rank all records by Euclidean distance, ties by id: (nq, n) int64."""
    rows, step = np.arange(len(data)), _QUERIES_PER_BLOCK
    parts = [queries.features[start : start + step] for start in range(0, len(queries), step)]
    return np.concatenate([rerank(part, data.features, np.tile(rows, (len(part), 1)), len(data)) for part in parts])


def written_bytes(index: Any) -> int:
    """Count the bytes of the file that FAISS would write an index to, without writing the file."""
    total = 0

    def count(part: bytes) -> int:
        nonlocal total
        total += len(part)
        return len(part)

    writer = getattr(faiss, "PyCallbackIOWriter")(count)  # noqa: B009  # the stubs of FAISS leave it out
    (faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index)(index, writer)
    return total


def points(**parameter: Sequence[int]) -> list[dict[str, int]]:
    """Return the points of a grid of one parameter."""
    return [{name: value} for name, values in parameter.items() for value in values]


def _codes(queries: Encodings) -> NDArray[np.uint8]:
    return queries.codes


def _features(queries: Encodings) -> NDArray[np.float32]:
    return queries.features
