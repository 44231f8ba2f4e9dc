"""What the right answers are. Two truths, never mixed: labels, and exact answers.

Labels say what a person would call right; they are a part of the data set. Exact answers are

    Euclidean    the k records nearest by feature, whatever their relevance: what FAISS's indexes approximate
    Eq. 2-4      the k best of the records with R > t, by distance or fused score: what semcut promises

The second kind is computed by `FaissIndex.search(shortlist=None)`, which the tests of the core hold against brute
force, and compared here once more, for some queries of every run, with the equations evaluated over every record. A
difference is an error that ends the run. With a low cutoff an exact answer looks at a good part of all records, so each
gets a limited time, and fewer queries have one.

Truth is kept beside the data set, in its directory, and used again by the next run with the same queries and k.
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.methods import Data
from semcut.indexes import Encodings, FaissIndex, SearchResult, SemcutError
from semcut.indexes.config import Ranking
from semcut.indexes.scoring.equations import distance, fused_score, is_relevant, relevance

Point = tuple[float, Ranking]
"""A cutoff and a ranking."""

CHECKED = 32
"""Queries of every run that are compared with brute force."""

_ROWS = 4096
_FIRST = 4


class WrongAnswerError(SemcutError):
    """An exact search did not give what the equations do: semcut has a defect."""


@dataclass(frozen=True, eq=False)
class Exact:
    """The k best by Eq. 2-4 of the first m queries, and how many records are relevant.

    Attributes:
        ids: (m, k) int64, -1 where fewer are relevant.
        distances: (m, k) float32, inf there.
        relevance: (m, k) float32, 0 there.
        scores: (m, k) float32, 0 there.
        relevant: (m,) int64.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    relevant: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact answers to the queries of a run.

    Attributes:
        ids: (nq, k) int64, nearest by feature.
        distances: (nq, k) float32, Euclidean.
        exact: by cutoff and ranking.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    exact: dict[Point, Exact]

    def save(self, path: Path) -> None:
        """Write it to a file, whole or not at all."""
        arrays: dict[str, Any] = {"ids": self.ids, "distances": self.distances}
        for (cutoff, ranking), exact in self.exact.items():
            arrays |= {f"{cutoff!r} {ranking} {name}": value for name, value in vars(exact).items()}
        scratch = path.with_name(f".{path.name}")
        with scratch.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(scratch, path)

    @staticmethod
    def load(path: Path) -> Truth | None:
        """Read it from a file; None if there is none, or not a whole one."""
        exact: dict[Point, dict[str, Any]] = {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                for key in arrays.files:
                    if " " in key:
                        cutoff, ranking, name = key.split(" ")
                        exact.setdefault((float(cutoff), _ranking(ranking)), {})[name] = arrays[key]
                return Truth(
                    arrays["ids"], arrays["distances"], {point: Exact(**columns) for point, columns in exact.items()}
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None


def find(
    index: FaissIndex,
    data: Data,
    queries: Encodings,
    points: Iterable[Point],
    *,
    k: int,
    seconds: float,
    path: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Truth:
    """Exact answers to all queries by feature, and to as many as the time allows for each cutoff and ranking.

    Args:
        index: to ask for answers by Eq. 2-4.
        data: the same records.
        queries: nq of them.
        points: cutoffs and rankings that are wanted.
        k: answers per query.
        seconds: for each point; at least `_FIRST` queries are answered.
        path: a file to take them from and keep them in.
        progress: told how many points, of how many, are done.

    Raises:
        WrongAnswerError: an answer is not what brute force gives.
    """
    wanted = list(points)
    truth = None if path is None else Truth.load(path)
    if truth is None or truth.ids.shape != (len(queries), k) or not set(wanted) <= set(truth.exact):
        ids, distances = nearest(data.features, queries.features, k)
        exact = {}
        for place, point in enumerate(wanted):
            if progress is not None:
                progress(place, len(wanted) + 1)
            exact[point] = answers(index, queries, *point, k=k, seconds=seconds)
        truth = Truth(ids, distances, exact)
        if path is not None:
            truth.save(path)
    if progress is not None:
        progress(len(wanted), len(wanted) + 1)
    check(index, queries, truth, k)
    return truth


def nearest(
    features: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k features nearest to each query: ids (nq, k) int64 and Euclidean distances (nq, k) float32.

    Squared distances that FAISS expands into products lose digits where they are small, so more than k are found and
    ordered by their exact distances.
    """
    wide = min(len(features), 2 * k + 20)
    _, found = faiss.knn(queries, features, wide)
    found = np.asarray(found, np.int64)
    exact = np.stack([distance(query[None], features[rows]) for query, rows in zip(queries, found, strict=True)])
    order = np.lexsort((found, exact))[:, :k]
    ids = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.inf, np.float32)
    ids[:, : order.shape[1]] = np.take_along_axis(found, order, 1)
    distances[:, : order.shape[1]] = np.take_along_axis(exact, order, 1)
    return ids, distances


def answers(index: FaissIndex, queries: Encodings, cutoff: float, ranking: Ranking, *, k: int, seconds: float) -> Exact:
    """Exact answers to the first queries, as many as the time allows."""
    parts: list[SearchResult] = []
    done, size, start = 0, _FIRST, time.perf_counter()
    while done < len(queries) and (not parts or time.perf_counter() - start < seconds):
        part = queries[done : done + size]
        parts.append(index.search(part, k=k, cutoff=cutoff, shortlist=None, ranking=ranking))
        done += len(part)
        rate = done / (time.perf_counter() - start)
        size = max(1, min(256, int(rate * seconds / 8)))
    result = SearchResult.concatenate(parts)
    return Exact(
        ids=result.ids,
        distances=result.distances,
        relevance=result.relevance,
        scores=result.scores,
        relevant=result.codes - result.cut_off,
    )


def check(index: FaissIndex, queries: Encodings, truth: Truth, k: int) -> None:
    """Compare the answers to some queries with the equations over every record.

    Raises:
        WrongAnswerError: naming what differs.
    """
    some = queries[:CHECKED]
    weights = index._similarity.weights(some.probabilities)
    best = {point: _Best(k, len(some)) for point in truth.exact}
    for batch in index.iterate(_ROWS):
        assert batch.ids is not None
        r = relevance(weights[:, None], batch.probabilities[None])
        d = distance(some.features[:, None], batch.features[None])
        for (cutoff, ranking), kept in best.items():
            cost = d if ranking == "distance" else -fused_score(r, d)
            kept.offer(batch.ids, np.where(is_relevant(r, cutoff), cost, np.inf))
    for (cutoff, ranking), kept in best.items():
        found = truth.exact[cutoff, ranking].ids[: len(some)]
        wrong = np.flatnonzero((found != kept.ids()[: len(found)]).any(axis=1))
        if len(wrong):
            query = int(wrong[0])
            raise WrongAnswerError(
                f"the exact answer to query {query} at cutoff {cutoff} by {ranking} is {kept.ids()[query].tolist()}, "
                f"but the search gave {found[query].tolist()}: delete the truth beside the data set if that was "
                "changed, and report this otherwise"
            )


class _Best:
    """The k ids of least cost offered so far for each query, ties by id."""

    def __init__(self, k: int, queries: int) -> None:
        self._ids = np.full((queries, k), -1, np.int64)
        self._cost = np.full((queries, k), np.inf, np.float32)

    def offer(self, ids: NDArray[np.int64], cost: NDArray[np.float32]) -> None:
        k = self._ids.shape[1]
        if cost.shape[1] > k:  # every id at or below the k-th cost, so that ties are not lost
            limit = np.partition(cost, k - 1, axis=1)[:, k - 1 : k]
            some = (cost <= np.minimum(limit, self._cost[:, -1:])).any(axis=0)
            ids, cost = ids[some], cost[:, some]
        every = np.concatenate([self._ids, np.broadcast_to(ids, cost.shape)], axis=1)
        costs = np.concatenate([self._cost, cost], axis=1)
        order = np.lexsort((every, costs))[:, :k]
        self._ids, self._cost = np.take_along_axis(every, order, 1), np.take_along_axis(costs, order, 1)

    def ids(self) -> NDArray[np.int64]:
        return np.where(np.isinf(self._cost), -1, self._ids)


def _ranking(name: str) -> Ranking:
    if name == "distance":
        return "distance"
    if name == "fused":
        return "fused"
    raise ValueError(name)
