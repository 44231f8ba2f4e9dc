"""FAISS's own indexes in a benchmark: over the codes by Hamming distance, and over the features.

Grids are few points along each index's one knob, so that a run of a million records ends; they are chosen to go from
fast and wrong to slow and right. Lists of the inverted files: about sqrt(n), trained on 64 records a list.

The binary indexes come alone, in order of Hamming distance, and with the exact re-rank of `methods`. Counterparts on a
card are listed where FAISS can see one: making one without ends the process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.methods import Data, Ids, Method, Search, rerank, reranked, written_bytes
from semcut.indexes import Encodings
from semcut.indexes.scoring.equations import hamming

Made = tuple[Any, dict[str, Any]]
"""An empty or filled index, and the object that holds each of its search parameters."""

_TRAINED_ON = 64
_TRAINED_PQ = 40  # FAISS warns below 39
_BLOCK = 64
_SEED = 1234  # FAISS's own default


class FaissStructure:
    """One of FAISS's indexes.

    Args:
        name: FAISS's name.
        make: builds it, trained and filled.
        grid: points of its search parameters.
        shortlists: sizes of the shortlist for the methods with a re-rank; empty for an index of features.
        everything: the whole ranking, if that is to be had.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Data], Made],
        *,
        grid: Sequence[dict[str, int]] = ({},),
        shortlists: Sequence[int] = (),
        everything: Callable[[Data, Encodings], Ids] | None = None,
    ) -> None:
        self.name, self._make = name, make
        self._grid, self._shortlists, self._everything = grid, shortlists, everything
        self._made: Made | None = None
        self._data: Data | None = None

    def build(self, data: Data) -> float:
        """Train and fill it."""
        start = time.perf_counter()
        self._made, self._data = self._make(data), data
        return time.perf_counter() - start

    def bytes(self) -> int:
        """Bytes of the file that FAISS would write."""
        assert self._made is not None
        index = self._made[0]
        return written_bytes(faiss.index_gpu_to_cpu(index) if self.name.startswith("Gpu") else index)

    def close(self) -> None:
        """Let go of the index."""
        self._made = self._data = None

    def methods(self) -> list[Method]:
        """One per point of the grid, and one more per shortlist."""
        return [
            method
            for point in self._grid
            for method in (self._method(point, None), *(self._method(point, size) for size in self._shortlists))
        ]

    def _method(self, point: dict[str, int], shortlist: int | None) -> Method:
        knobs = "".join(f", {name} {value}" for name, value in point.items())
        search: Search = self._search(point)
        if shortlist is None:
            whole = self._everything
            return Method(
                name=f"{self.name}{knobs}",
                family=self.name,
                parameters=dict(point),
                structure=self,
                search=search,
                everything=None if whole is None else lambda queries: whole(self._records(), queries),
            )
        return Method(
            name=f"{self.name}{knobs} + re-rank of {shortlist}",
            family=f"{self.name} + re-rank",
            parameters={**point, "shortlist": shortlist},
            structure=self,
            search=reranked(search, lambda: self._records().features, shortlist),
            reranks=True,
        )

    def _records(self) -> Data:
        assert self._data is not None
        return self._data

    def _search(self, point: dict[str, int]) -> Search:
        binary = "Binary" in self.name

        def search(queries: Encodings, k: int) -> Ids:
            assert self._made is not None
            index, holders = self._made
            for name, value in point.items():
                setattr(holders[name], name, value)
            ids: Ids = index.search(queries.codes if binary else queries.features, k)[1]
            return ids

        return search


def binary(*, quick: bool = False) -> list[FaissStructure]:
    """Indexes of codes, by Hamming distance."""
    sizes = (100,) if quick else (100, 500)
    probes, flips = ((4, 16), (1,)) if quick else ((1, 4, 16, 64), (0, 1, 2))
    efs = (64, 256) if quick else (16, 64, 128, 256)
    return [
        FaissStructure("IndexBinaryFlat", _binary_flat, shortlists=sizes, everything=by_hamming),
        FaissStructure("IndexBinaryIVF", _binary_ivf, grid=_grid(nprobe=probes), shortlists=(100,)),
        FaissStructure("IndexBinaryHNSW", _binary_hnsw, grid=_grid(efSearch=efs), shortlists=(100,)),
        FaissStructure("IndexBinaryHash", _binary_hash, grid=_grid(nflip=flips), shortlists=(100,)),
        FaissStructure("IndexBinaryMultiHash", _binary_multi_hash, grid=_grid(nflip=flips[:2]), shortlists=(100,)),
    ]


def flat_with_rerank() -> FaissStructure:
    """The plainest baseline: all codes, and the re-rank of 100."""
    return FaissStructure("IndexBinaryFlat", _binary_flat, shortlists=(100,))


def features(*, quick: bool = False) -> list[FaissStructure]:
    """Indexes of features, by Euclidean distance."""
    probes = (4, 16) if quick else (1, 4, 16, 64)
    efs = (16, 64) if quick else (8, 16, 32, 64, 128, 256)
    factors = (10,) if quick else (4, 10)
    refined = [{"nprobe": n, "k_factor": factor} for n in probes[1:] for factor in factors]
    return [
        FaissStructure("IndexFlatL2", _flat, everything=by_distance),
        FaissStructure("IndexIVFFlat", _ivf_flat, grid=_grid(nprobe=probes)),
        FaissStructure("IndexHNSWFlat", _hnsw_flat, grid=_grid(efSearch=efs)),
        FaissStructure("IndexIVFPQ + refine", _ivf_pq, grid=refined),
    ]


def on_gpu(*, quick: bool = False) -> list[FaissStructure]:
    """Counterparts on the first card; empty where FAISS sees none."""
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
        return []
    resources = faiss.StandardGpuResources()  # expensive: one for all

    def moved(make: Callable[[Data], Made]) -> Callable[[Data], Made]:
        def on_card(data: Data) -> Made:
            index = faiss.index_cpu_to_gpu(resources, 0, make(data)[0])
            return index, {"nprobe": index}

        return on_card

    def flat(data: Data) -> Made:
        cpu, _ = _binary_flat(data)
        return faiss.GpuIndexBinaryFlat(resources, cpu), {}

    probes = (4, 16) if quick else (1, 4, 16, 64)
    return [
        FaissStructure("GpuIndexBinaryFlat", flat, shortlists=(100,)),
        FaissStructure("GpuIndexFlatL2", moved(_flat)),
        FaissStructure("GpuIndexIVFFlat", moved(_ivf_flat), grid=_grid(nprobe=probes)),
    ]


def by_hamming(data: Data, queries: Encodings) -> Ids:
    """(nq, n): all records by Hamming distance, ties by id."""
    return np.concatenate([np.argsort(hamming(code, data.codes), kind="stable")[None] for code in queries.codes])


def by_distance(data: Data, queries: Encodings) -> Ids:
    """(nq, n): all records by Euclidean distance, ties by id."""
    rows = np.arange(len(data))
    parts = [queries.features[start : start + _BLOCK] for start in range(0, len(queries), _BLOCK)]
    return np.concatenate([rerank(part, data.features, np.tile(rows, (len(part), 1)), len(data)) for part in parts])


def _grid(**knob: Sequence[int]) -> list[dict[str, int]]:
    return [{name: value} for name, values in knob.items() for value in values]


def _lists(records: int) -> int:
    """A power of two near sqrt(n)."""
    return 1 << max(0, round(math.log2(max(1, records)) / 2))


def _sample(rows: NDArray[Any], lists: int, least: int = 0) -> NDArray[Any]:
    """Rows to train on, spread over all."""
    wanted = max(lists * _TRAINED_ON, least)
    if len(rows) <= wanted:
        return rows
    return rows[np.sort(np.random.default_rng(_SEED).choice(len(rows), wanted, replace=False))]


def _binary_flat(data: Data) -> Made:
    index = faiss.IndexBinaryFlat(data.config.bits)
    index.add(data.codes)
    return index, {}


def _binary_ivf(data: Data) -> Made:
    lists = _lists(len(data))
    quantizer = faiss.IndexBinaryFlat(data.config.bits)
    index = faiss.IndexBinaryIVF(quantizer, data.config.bits, lists)
    index.cp.min_points_per_centroid = 1  # a small data set is no reason for a warning
    index.train(_sample(data.codes, lists))
    index.add(data.codes)
    return index, {"nprobe": index}


def _binary_hnsw(data: Data) -> Made:
    index = faiss.IndexBinaryHNSW(data.config.bits, 16)
    index.add(data.codes)
    return index, {"efSearch": index.hnsw}


def _binary_hash(data: Data) -> Made:
    index = faiss.IndexBinaryHash(data.config.bits, _hash_bits(len(data)))
    index.add(data.codes)
    return index, {"nflip": index}


def _binary_multi_hash(data: Data) -> Made:
    bits = min(_hash_bits(len(data)), data.config.bits // 4)
    index = faiss.IndexBinaryMultiHash(data.config.bits, 4, bits)
    index.add(data.codes)
    return index, {"nflip": index}


def _hash_bits(records: int) -> int:
    """Bits of a key for about one record a bucket, were the codes spread evenly."""
    return max(8, min(24, round(math.log2(max(1, records)))))


def _flat(data: Data) -> Made:
    index = faiss.IndexFlatL2(data.config.dim)
    index.add(data.features)
    return index, {}


def _ivf_flat(data: Data) -> Made:
    lists = _lists(len(data))
    quantizer = faiss.IndexFlatL2(data.config.dim)
    index = faiss.IndexIVFFlat(quantizer, data.config.dim, lists)
    index.cp.min_points_per_centroid = 1
    index.train(_sample(data.features, lists))
    index.add(data.features)
    return index, {"nprobe": index}


def _hnsw_flat(data: Data) -> Made:
    index = faiss.IndexHNSWFlat(data.config.dim, 32)
    index.add(data.features)
    return index, {"efSearch": index.hnsw}


def _ivf_pq(data: Data) -> Made:
    dim, lists = data.config.dim, _lists(len(data))
    parts = next(count for count in (16, 8, 4, 2, 1) if dim % count == 0 and (dim // count >= 4 or count == 1))
    bits = 8 if len(data) >= 10_000 else 4
    quantizer = faiss.IndexFlatL2(dim)
    base = faiss.IndexIVFPQ(quantizer, dim, lists, parts, bits)
    base.cp.min_points_per_centroid = base.pq.cp.min_points_per_centroid = 1
    index = faiss.IndexRefineFlat(base)
    index.train(_sample(data.features, lists, least=256 * _TRAINED_PQ))
    index.add(data.features)
    return index, {"nprobe": base, "k_factor": index}
