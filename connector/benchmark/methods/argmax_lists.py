"""Search lists by argmax class: the simplest use of probabilities, a rival of a few lines.

A record is in the list of its dominant class, and a query scans the lists of its 1 or 3 likeliest classes exactly, by
Euclidean distance of features. The features of a list are contiguous: they are the lists of an `IndexIVFFlat`.

Three ways to scan give the same answers, and the fastest is chosen:

- one query: a product of each list and the query in numpy, whose threads share one list;
- a batch with few queries per list: FAISS's inverted lists, in order of the lists, so that lists stay in the cache;
- a batch with more: one matrix product of a list and all of its queries, with FAISS's selection, lists in parallel.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.faiss_builders import Built
from semcut.connector.benchmark.methods.faiss_methods import FaissStructure, points, written_bytes
from semcut.connector.benchmark.methods.structures import Data, Ids
from semcut.indexes import Encodings

_FEW = 2
"""Queries per list, on average, up to which FAISS's inverted lists are faster than matrix products."""


class ArgmaxLists:
    """Features in lists by argmax class.

    Args:
        features: (n, D) float32.
        dominant: (n,) int64, the class of each record.
        classes: number of classes.

    Attributes:
        lists: number of likeliest classes that a query scans.
    """

    def __init__(self, features: NDArray[np.float32], dominant: NDArray[np.int64], classes: int) -> None:
        dim, rows = features.shape[1], np.arange(len(features))
        self.lists = 1
        centroids = faiss.IndexFlatL2(dim)
        centroids.add(np.zeros((classes, dim), np.float32))  # counted, and never searched
        self.index: Any = faiss.IndexIVFFlat(centroids, dim, classes)
        self.index.is_trained = True
        self.index.add_core(len(features), *(faiss.swig_ptr(one) for one in (features, rows, dominant)))
        inverted: Any = self.index.invlists
        self._features, self._ids, self._squares = [], [], []
        for number in range(classes):
            size = inverted.list_size(number)
            empty = np.empty(0, np.uint8)
            codes = faiss.rev_swig_ptr(inverted.get_codes(number), size * 4 * dim) if size else empty
            part = codes.view(np.float32).reshape(size, dim)
            ids = faiss.rev_swig_ptr(inverted.get_ids(number), size) if size else np.empty(0, np.int64)
            self._features.append(part)
            self._ids.append(ids)
            self._squares.append(np.einsum("ij,ij->i", part, part))
        self._threads = faiss.omp_get_max_threads()
        self._pool = ThreadPoolExecutor(self._threads, initializer=faiss.omp_set_num_threads, initargs=(1,))

    def search(self, queries: Encodings, k: int) -> tuple[None, Ids]:
        """Return the ids (nq, k) of the nearest features in the lists of each query, -1 for none."""
        lists = min(self.lists, queries.probabilities.shape[1])
        if lists == 1:
            chosen = queries.probabilities.argmax(axis=1)[:, None]
        else:
            chosen = queries.probabilities.argpartition(-lists, axis=1)[:, -lists:]
        if len(queries) == 1:
            return None, self._search_one(queries.features[0], chosen[0], k)
        if chosen.size <= _FEW * len(np.unique(chosen)):
            return None, self._search_few(queries.features, chosen, k)
        return None, self._search_many(queries.features, chosen, k)

    def _search_one(self, query: NDArray[np.float32], chosen: NDArray[np.int64], k: int) -> Ids:
        distances, ids = [], []
        for number in chosen:
            squared = self._features[number] @ query
            squared *= -2
            squared += self._squares[number]  # the same constant, |query|^2, is left out of all
            best: Any = slice(None) if len(squared) <= k else squared.argpartition(k)[:k]
            distances.append(squared[best])
            ids.append(self._ids[number][best])
        found = np.concatenate(ids)[np.concatenate(distances).argsort()[:k]]
        result = np.full((1, k), -1, np.int64)
        result[0, : len(found)] = found
        return result

    def _search_few(self, queries: NDArray[np.float32], chosen: NDArray[np.int64], k: int) -> Ids:
        order = chosen[:, 0].argsort(kind="stable")
        self.index.nprobe = chosen.shape[1]
        ids: Ids = np.empty((len(queries), k), np.int64)
        ids[order] = self.index.search_preassigned(
            queries[order], k, chosen[order], np.zeros(chosen.shape, np.float32)
        )[1]
        return ids

    def _search_many(self, queries: NDArray[np.float32], chosen: NDArray[np.int64], k: int) -> Ids:
        width, pairs = chosen.shape[1], chosen.ravel()
        order = pairs.argsort(kind="stable")  # pairs of a query and a list, by list
        rows = queries[order // width]
        numbers, starts = np.unique(pairs[order], return_index=True)
        distances = np.full((len(order), k), np.inf, np.float32)
        ids = np.full((len(order), k), -1, np.int64)
        scans = list(zip(numbers.tolist(), starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True))

        def scan(part: list[tuple[int, int, int]]) -> None:
            for number, start, end in part:
                self._scan(number, rows[start:end], distances[start:end], ids[start:end])

        step = max(1, len(scans) // (4 * self._threads))
        for _ in self._pool.map(scan, [scans[at : at + step] for at in range(0, len(scans), step)]):
            pass
        back = order.argsort()
        found: Ids = ids[back].reshape(len(queries), width * k)
        if width > 1:
            nearest = distances[back].reshape(found.shape).argsort(axis=1)[:, :k]
            found = np.take_along_axis(found, nearest, 1)
        return found

    def _scan(self, number: int, rows: NDArray[np.float32], distances: NDArray[np.float32], ids: Ids) -> None:
        """Write the best of one list for the rows, in place."""
        features, k = self._features[number], ids.shape[1]
        if not len(features):
            return
        arrays = [faiss.swig_ptr(one) for one in (distances, ids, self._squares[number])]
        sizes = rows.shape[1], len(rows), len(features), k
        faiss.knn_L2sqr(faiss.swig_ptr(rows), faiss.swig_ptr(features), *sizes, *arrays)
        np.copyto(ids, np.where(ids < 0, -1, self._ids[number][ids]))
        distances[ids < 0] = np.inf


def argmax_lists() -> FaissStructure:
    """Return the lists by argmax class: a query scans the lists of its 1 and of its 3 likeliest classes."""
    return FaissStructure(
        "lists by argmax class",
        _build,
        grid=points(lists=(1, 3)),
        vectors=lambda queries: queries,
        count_bytes=lambda lists: written_bytes(lists.index),
    )


def _build(data: Data) -> Built:
    dominant, reading = np.empty(len(data), np.int64), 0.0
    batches, start, row = data.batches(), time.perf_counter(), 0
    for batch in batches:
        reading += time.perf_counter() - start
        dominant[row : row + len(batch)] = batch.probabilities.argmax(axis=1)
        row += len(batch)
        start = time.perf_counter()
    reading += time.perf_counter() - start
    lists = ArgmaxLists(np.ascontiguousarray(data.features), dominant, data.config.classes)
    return Built(lists, {"lists": lists}, reading)
