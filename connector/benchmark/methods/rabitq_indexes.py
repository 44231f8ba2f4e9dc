"""Search the indexes of rabitqlib: features in quantised form, in inverted lists or in graphs.

    IVF 4 bits      lists, as many as FAISS's; estimates of distances from 4 bits per dimension
    IVF raw         the same lists; one bit per dimension chooses the features that are compared exactly
    HNSW 8 bits     a graph; estimates of distances from 8 bits per dimension
    SymphonyQG      a graph; one bit per dimension chooses the features that are compared exactly

Lists and parameters are those of the library's documentation; FAISS trains the lists. Features of fewer than 64
dimensions, which the library refuses, get zeros at their ends. rabitqlib is optional (extra `rivals`): it is loaded
when an index is built.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.faiss_builders import Built, list_count, training_rows
from semcut.connector.benchmark.methods.faiss_methods import FaissStructure, points
from semcut.connector.benchmark.methods.structures import Data, Ids
from semcut.indexes.errors import DataError

_PREFIX = "rabitqlib"
_LEAST_DIM = 64
_GRAPH_CENTROIDS = 16
_LINKS, _EF_CONSTRUCTION = 16, 200
_DEGREE = 32


class _Quantised:
    """An index of rabitqlib, with the search of FAISS's indexes.

    Args:
        index: a built index.
        effort: name of its search parameter, "nprobe" or "ef".
        records: n.
        scratch: a directory for a file that is written to count its bytes.

    Attributes:
        nprobe, ef: the effort of a search; an index uses one of them.
    """

    def __init__(self, index: Any, effort: str, records: int, scratch: Path) -> None:
        self.index, self._effort, self._records, self._scratch = index, effort, records, scratch
        self.nprobe = self.ef = 1
        self._threads = faiss.omp_get_max_threads()

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[None, Ids]:
        """Return the ids (nq, k) of the best records, -1 for none."""
        most = min(k, self._records)  # the library refuses more
        effort = self.nprobe if self._effort == "nprobe" else max(self.ef, most)
        threads = min(self._threads, len(vectors))
        found = self.index.search(_padded(vectors), most, effort, num_threads=threads)[0]
        ids = np.full((len(vectors), k), -1, np.int64)
        ids[:, :most] = np.where(found < self._records, found.astype(np.int64), -1)  # 2^32 - 1 for none
        return None, ids

    def bytes(self) -> int:
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix=".build-") as place:
            path = Path(place) / "index"
            self.index.save(str(path))
            return path.stat().st_size


def rabitq_indexes(*, quick: bool = False) -> list[FaissStructure]:
    """Return the indexes of rabitqlib, whether it is installed or not."""
    probes = points(nprobe=(4, 16) if quick else (1, 4, 16, 64))
    efs = points(ef=(16, 64) if quick else (16, 32, 64, 128, 256))
    return [
        FaissStructure(f"{_PREFIX} {name}", make, grid=grid, count_bytes=_Quantised.bytes)
        for name, make, grid in (
            ("IVF 4 bits", _lists(4), probes),
            ("IVF raw", _lists(32), probes),
            ("HNSW 8 bits", _graph, efs),
            ("SymphonyQG", _symphony, efs),
        )
    ]


def _lists(bits: int) -> Callable[[Data], Built]:
    def build(data: Data) -> Built:
        from rabitqlib import IvfIndex

        features = _padded(data.features)
        centroids, assigned = _clusters(features, list_count(len(features)))
        index = IvfIndex(features.shape[1], len(features), len(centroids), bits, "l2")
        index.build(features, centroids, assigned, num_threads=faiss.omp_get_max_threads())
        return _built(index, "nprobe", data)

    return build


def _graph(data: Data) -> Built:
    from rabitqlib import HnswIndex

    features = _padded(data.features)
    centroids, assigned = _clusters(features, min(_GRAPH_CENTROIDS, len(features)))
    index = HnswIndex(features.shape[1], len(features), _LINKS, _EF_CONSTRUCTION, 8, "l2")
    index.build(features, centroids, assigned, num_threads=faiss.omp_get_max_threads())
    return _built(index, "ef", data)


def _symphony(data: Data) -> Built:
    from rabitqlib import SymqgIndex

    features = _padded(data.features)
    if len(features) <= _DEGREE:
        raise DataError(
            f"{_PREFIX} SymphonyQG needs more than {_DEGREE} records, and {data.path} has {len(features)}: choose "
            "other methods with --methods"
        )
    index = SymqgIndex(features.shape[1], _DEGREE, "l2")
    index.build(features, _EF_CONSTRUCTION, num_threads=faiss.omp_get_max_threads())
    return _built(index, "ef", data)


def _built(index: Any, effort: str, data: Data) -> Built:
    searched = _Quantised(index, effort, len(data), data.path.parent)
    return Built(searched, {effort: searched})


def _clusters(features: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Train centroids (count, D), and assign each of n features to the nearest, (n,)."""
    means: Any = faiss.Kmeans(features.shape[1], count, min_points_per_centroid=1)
    means.train(training_rows(features, count))
    return means.centroids, means.index.search(features, 1)[1][:, 0].astype(np.uint32)


def _padded(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Append zeros up to the least number of dimensions; distances stay the same."""
    missing = _LEAST_DIM - features.shape[1]
    return np.ascontiguousarray(features) if missing <= 0 else np.pad(features, ((0, 0), (0, missing)))
