"""Build a graph that sees classes: a FAISS graph of features joined with the roots of probabilities.

The vector of a record is [feature, sqrt(p)]. Both parts have length 1 if the feature has, so they have equal weight.
The squared Euclidean distance of two vectors is that of the features plus twice (1 - Bhattacharyya coefficient) of the
probabilities: near vectors are similar images of similar classes. A search joins the vectors of its queries, as part of
its time.

With many classes nearly all of a vector is probabilities, and a search is slow. The projected graph has the roots
multiplied by a fixed random matrix, to at most `WIDTH` numbers, which keeps distances nearly (Johnson-Lindenstrauss).
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.faiss_builders import Built
from semcut.connector.benchmark.methods.structures import Data
from semcut.indexes import Encodings

WIDTH = 128
"""Numbers to which the roots of probabilities are projected."""
_LINKS, _EF_CONSTRUCTION = 16, 80
_RECORDS_PER_BATCH = 10_000  # a million vectors of 1000 classes are 4.5 GB: few more are joined at a time
_SEED = 5


def join(records: Encodings, width: int | None = None) -> NDArray[np.float32]:
    """Join the features of n records with the roots of their probabilities.

    Args:
        records: n records or queries of C classes, with features of length D.
        width: greatest number of columns for the roots; more are projected. None: no projection.

    Returns:
        (n, D + C) or (n, D + width) float32.
    """
    classes, dim = records.probabilities.shape[1], records.features.shape[1]
    projected = width is not None and classes > width
    joined = np.empty((len(records), dim + (width if projected and width is not None else classes)), np.float32)
    joined[:, :dim] = records.features
    if projected:
        joined[:, dim:] = _projection(classes, width).apply(np.sqrt(records.probabilities))
    else:
        np.sqrt(records.probabilities, out=joined[:, dim:])
    return joined


def build(data: Data, width: int | None = None) -> Built:
    """Build an `IndexHNSWFlat` of joined vectors, which holds the vectors once: they are never all outside it.

    Args:
        data: the records.
        width: see `join`.
    """
    classes, dim, reading = data.config.classes, data.config.dim, 0.0
    length = dim + (classes if width is None else min(width, classes))
    index = faiss.IndexHNSWFlat(length, _LINKS)
    index.hnsw.efConstruction = _EF_CONSTRUCTION
    storage: Any = faiss.downcast_index(index.storage)
    stored = storage.codes
    stored.resize(len(data) * length * 4)  # a vector in C++ keeps its memory, so that batches do not double it
    stored.resize(0)
    batches, start = data.batches(_RECORDS_PER_BATCH), time.perf_counter()
    for batch in batches:
        reading += time.perf_counter() - start
        index.add(join(batch, width))
        start = time.perf_counter()
    return Built(index, {"efSearch": index.hnsw}, reading + time.perf_counter() - start)


@lru_cache(maxsize=2)
def _projection(classes: int, width: int) -> Any:
    """Return FAISS's linear transform by a random matrix that keeps squared lengths in expectation.

    A product of FAISS uses FAISS's threads; numpy's threads would slow the search that follows.
    """
    matrix = np.random.default_rng(_SEED).standard_normal((width, classes)) / np.sqrt(width)
    transform = faiss.LinearTransform(classes, width, False)
    faiss.copy_array_to_vector(matrix.astype(np.float32).ravel(), transform.A)
    transform.is_trained = True
    return transform
