"""Build FAISS's own indexes from the records of a data set.

A builder trains and fills an index. It returns the index, and for each search parameter the object that holds it. The
inverted files have about sqrt(n) lists, trained on 64 records per list.

Indexes that are not FAISS's are built in the same form, with `search(vectors, k)` that returns distances, or None, and
ids: see `argmax_lists`, `usearch_indexes` and `rabitq_indexes`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.structures import Data


class Built(NamedTuple):
    """A built index.

    Attributes:
        index: the index.
        holders: for the name of each search parameter, the object that has it as an attribute.
        reading: seconds of building in which records were read; they are not counted as building.
    """

    index: Any
    holders: dict[str, Any]
    reading: float = 0.0


_TRAINING_PER_LIST = 64
_TRAINING_PER_CENTROID = 40  # of a product quantiser; FAISS warns below 39
_SEED = 1234  # FAISS's own default


def binary_flat(data: Data) -> Built:
    """Build an `IndexBinaryFlat`."""
    index = faiss.IndexBinaryFlat(data.config.bits)
    index.add(data.codes)
    return Built(index, {})


def binary_ivf(data: Data) -> Built:
    """Build an `IndexBinaryIVF`."""
    lists = list_count(len(data))
    quantizer = faiss.IndexBinaryFlat(data.config.bits)
    index = faiss.IndexBinaryIVF(quantizer, data.config.bits, lists)
    index.cp.min_points_per_centroid = 1  # no warning about a small data set
    index.train(training_rows(data.codes, lists))
    index.add(data.codes)
    return Built(index, {"nprobe": index})


def binary_hnsw(data: Data) -> Built:
    """Build an `IndexBinaryHNSW`."""
    index = faiss.IndexBinaryHNSW(data.config.bits, 16)
    index.add(data.codes)
    return Built(index, {"efSearch": index.hnsw})


def binary_hash(data: Data) -> Built:
    """Build an `IndexBinaryHash`."""
    index = faiss.IndexBinaryHash(data.config.bits, _hash_bits(len(data)))
    index.add(data.codes)
    return Built(index, {"nflip": index})


def binary_multi_hash(data: Data) -> Built:
    """Build an `IndexBinaryMultiHash` of 4 hash maps."""
    bits = min(_hash_bits(len(data)), data.config.bits // 4)
    index = faiss.IndexBinaryMultiHash(data.config.bits, 4, bits)
    index.add(data.codes)
    return Built(index, {"nflip": index})


def flat(data: Data) -> Built:
    """Build an `IndexFlatL2`."""
    index = faiss.IndexFlatL2(data.config.dim)
    index.add(data.features)
    return Built(index, {})


def ivf_flat(data: Data) -> Built:
    """Build an `IndexIVFFlat`."""
    lists = list_count(len(data))
    quantizer = faiss.IndexFlatL2(data.config.dim)
    index = faiss.IndexIVFFlat(quantizer, data.config.dim, lists)
    index.cp.min_points_per_centroid = 1
    index.train(training_rows(data.features, lists))
    index.add(data.features)
    return Built(index, {"nprobe": index})


def hnsw_flat(data: Data) -> Built:
    """Build an `IndexHNSWFlat`."""
    index = faiss.IndexHNSWFlat(data.config.dim, 32)
    index.add(data.features)
    return Built(index, {"efSearch": index.hnsw})


def ivf_pq_refined(data: Data) -> Built:
    """Build an `IndexIVFPQ` inside an `IndexRefineFlat`, which re-ranks by exact distance."""
    dim, lists = data.config.dim, list_count(len(data))
    parts = next(count for count in (16, 8, 4, 2, 1) if dim % count == 0 and (dim // count >= 4 or count == 1))
    bits = 8 if len(data) >= 10_000 else 4
    quantizer = faiss.IndexFlatL2(dim)
    base = faiss.IndexIVFPQ(quantizer, dim, lists, parts, bits)
    base.cp.min_points_per_centroid = base.pq.cp.min_points_per_centroid = 1
    index = faiss.IndexRefineFlat(base)
    index.train(training_rows(data.features, lists, least=256 * _TRAINING_PER_CENTROID))
    index.add(data.features)
    return Built(index, {"nprobe": base, "k_factor": index})


def list_count(records: int) -> int:
    """Return the power of two nearest to sqrt(n)."""
    return 1 << max(0, round(math.log2(max(1, records)) / 2))


def _hash_bits(records: int) -> int:
    """Return the number of bits of a hash key that gives about one record per bucket if codes are spread evenly."""
    return max(8, min(24, round(math.log2(max(1, records)))))


def training_rows(rows: NDArray[Any], lists: int, least: int = 0) -> NDArray[Any]:
    """Draw the rows to train on from all rows."""
    wanted = max(lists * _TRAINING_PER_LIST, least)
    if len(rows) <= wanted:
        return rows
    return rows[np.sort(np.random.default_rng(_SEED).choice(len(rows), wanted, replace=False))]
