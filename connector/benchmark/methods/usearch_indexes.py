"""Search the graphs of usearch: of features as float16 or int8, and of codes by Hamming distance.

A graph is built with usearch's own defaults. Features are scaled to the whole range of int8 first, as usearch itself
uses a part of it for features of many dimensions. By inner product, the order is that of the distance only for features
of length 1. Results of codes also get the exact re-rank of FAISS's binary indexes. usearch is optional (extra
`rivals`): it is loaded when an index is built.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.faiss_builders import Built
from semcut.connector.benchmark.methods.faiss_methods import FaissStructure, points
from semcut.connector.benchmark.methods.structures import Data, Ids
from semcut.indexes import Encodings
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST

_PREFIX = "usearch"
_RECORDS_PER_BATCH = 100_000


class _Graph:
    """A graph of usearch, with the search of FAISS's indexes.

    Args:
        graph: an empty `usearch.index.Index`.
        scale: factor of features before they are rounded to int8. None: vectors are passed as they are.

    Attributes:
        expansion: usearch's `expansion_search`, what FAISS calls efSearch.
    """

    def __init__(self, graph: Any, scale: float | None = None) -> None:
        self.graph, self.expansion, self._scale = graph, 64, scale
        self._threads = faiss.omp_get_max_threads()

    def add(self, vectors: NDArray[Any]) -> None:
        for start in range(0, len(vectors), _RECORDS_PER_BATCH):
            part = vectors[start : start + _RECORDS_PER_BATCH]
            self.graph.add(np.arange(start, start + len(part)), self._scaled(part), threads=self._threads)

    def search(self, vectors: NDArray[Any], k: int) -> tuple[None, Ids]:
        """Return the ids (nq, k) of the best records, -1 for none."""
        self.graph.expansion_search = self.expansion
        found = self.graph.search(self._scaled(vectors), k, threads=min(self._threads, len(vectors)))
        keys = found.keys.astype(np.int64)
        if len(vectors) == 1:  # usearch returns the results of one query without their axis, and without padding
            ids = np.full((1, k), -1, np.int64)
            ids[0, : keys.size] = keys.ravel()
            return None, ids
        return None, np.where(np.arange(k) < found.counts[:, None], keys, -1)

    def bytes(self) -> int:
        return int(self.graph.serialized_length)

    def _scaled(self, vectors: NDArray[Any]) -> NDArray[Any]:
        if self._scale is None:
            return vectors
        return np.clip(np.rint(vectors * np.float32(self._scale)), -127, 127).astype(np.int8)


def usearch_indexes(*, quick: bool = False) -> list[FaissStructure]:
    """Return the graphs of usearch, whether it is installed or not."""
    grid = points(expansion=(16, 64) if quick else (16, 32, 64, 128, 256))
    count = _Graph.bytes
    of_features = [
        FaissStructure(f"{_PREFIX} {kind} {metric}", _build_features(kind, metric), grid=grid, count_bytes=count)
        for metric in ("l2sq", "ip")
        for kind in ("f16", "i8")
    ]
    of_codes = FaissStructure(
        f"{_PREFIX} b1 hamming",
        _build_codes,
        grid=grid,
        shortlists=(DEFAULT_SHORTLIST,),
        vectors=_codes,
        count_bytes=count,
    )
    return [*of_features, of_codes]


def _build_features(kind: str, metric: str) -> Any:
    def build(data: Data) -> Built:
        from usearch.index import Index

        most = max(float(data.features.max(initial=0)), -float(data.features.min(initial=0))) or 1.0
        graph = _Graph(Index(ndim=data.config.dim, metric=metric, dtype=kind), 127 / most if kind == "i8" else None)
        graph.add(data.features)
        return Built(graph, {"expansion": graph})

    return build


def _build_codes(data: Data) -> Built:
    from usearch.index import Index

    graph = _Graph(Index(ndim=data.config.bits, metric="hamming", dtype="b1"))
    graph.add(data.codes)
    return Built(graph, {"expansion": graph})


def _codes(queries: Encodings) -> NDArray[np.uint8]:
    return queries.codes
