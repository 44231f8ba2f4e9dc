"""Find the exact answers that are the reference for the results of all methods.

A benchmark has two truths and never mixes them: labels and exact answers. Labels are part of the data set and state
what a person would call right. Exact answers are

    Euclidean    the k records nearest by feature, of any relevance: what FAISS's indexes approximate
    Eq. 2-4      the k best of the records with R > t, by distance or by fused score: what semcut promises

The answers by Eq. 2-4 come from `FaissIndex.search(shortlist=None)`. The tests of the index compare that search with
brute force; `check` compares it again in every run, for some queries, with the equations evaluated over every record. A
difference is an error that ends the run. With a low cutoff an exact answer examines a large part of all records, so the
time for each cutoff and ranking is limited, and only some queries get an answer.

Exact answers are found again in every run, since those of another run are right only if that run was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.array_files import Array
from semcut.connector.benchmark.measure import raw_results
from semcut.connector.benchmark.methods.semcut_methods import MAX_CUTOFF
from semcut.connector.benchmark.methods.structures import Data
from semcut.indexes import Encodings, FaissIndex, SearchResult, SemcutError
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scoring.equations import distance, fused_score, is_relevant, relevance
from semcut.indexes.search_params import Ranking

Point = tuple[float, Ranking]
"""A cutoff and a ranking."""

CHECKED = 32
"""Number of queries of every run whose answers are compared with brute force."""

MOST_POINTS = 50
"""The most pairs of a cutoff and a ranking in a file of answers; the largest grid has fewer than half of them."""

_ROWS = 4096  # records per step of the brute force
_FIRST = 4  # queries of the first search; its time decides how many queries the next search has


class WrongAnswerError(SemcutError):
    """The answer of an exact search differs from the equations: semcut has a bug."""


@dataclass(frozen=True, eq=False)
class Exact:
    """The k best records by Eq. 2-4 for each of the first m queries.

    Attributes:
        ids: (m, k) int64, -1 in empty slots, where fewer than k records are relevant.
        distances: (m, k) float32, inf in empty slots.
        relevance: (m, k) float32, 0 in empty slots.
        scores: (m, k) float32, 0 in empty slots.
        relevant: (m,) int64, number of relevant records.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    relevant: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Truth:
    """The exact answers to the queries of a run.

    Attributes:
        ids: (nq, k) int64, the records nearest by feature.
        distances: (nq, k) float32, their Euclidean distances.
        exact: the answers by Eq. 2-4, by cutoff and ranking.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]
    exact: dict[Point, Exact]

    def save(self, path: Path) -> None:
        """Write the answers to a file, in one step."""
        arrays: dict[str, Any] = {"ids": self.ids, "distances": self.distances}
        for (cutoff, ranking), exact in self.exact.items():
            arrays |= {f"{cutoff!r} {ranking} {name}": value for name, value in vars(exact).items()}
        raw_results.save_arrays(path, arrays)

    @staticmethod
    def load(path: Path, queries: int, k: int) -> Truth:
        """Read the answers to nq queries, k for each, from a file.

        Raises:
            DataError: the file is missing, damaged or of other queries.
        """
        rows = (1, queries)
        columns = {
            "ids": Array("i8", (rows, k)),
            "distances": Array("f4", (rows, k)),
            "relevance": Array("f4", (rows, k)),
            "scores": Array("f4", (rows, k)),
            "relevant": Array("i8", (rows,)),
        }
        nearest = {"ids": Array("i8", (queries, k)), "distances": Array("f4", (queries, k))}

        def expected(name: str) -> Array | None:
            return columns.get(name.rpartition(" ")[2]) if " " in name else nearest.get(name)

        arrays = raw_results.load_arrays(path, expected, nearest, answer_bytes(queries, k))
        exact: dict[Point, dict[str, Any]] = {}
        try:
            for key in arrays:
                if " " in key:
                    cutoff, ranking, name = key.split(" ")
                    exact.setdefault((_cutoff(cutoff), _ranking(ranking)), {})[name] = arrays[key]
            points = {point: Exact(**found) for point, found in exact.items()}
        except (ValueError, TypeError):
            raise DataError(f"{path} has exact answers that semcut does not write: {raw_results.REPEAT}") from None
        for one in points.values():
            raw_results.require_same_length(path, vars(one))
        return Truth(arrays["ids"], arrays["distances"], points)


def answer_bytes(queries: int, k: int) -> int:
    """Return the most bytes of a file of exact answers to queries, k for each, at all cutoffs and rankings."""
    return (1 << 20) + MOST_POINTS * queries * (20 * k + 8)


def find_truth(
    index: FaissIndex,
    data: Data,
    queries: Encodings,
    points: Iterable[Point],
    *,
    k: int,
    seconds: float,
    progress: Progress = silent,
) -> Truth:
    """Find the exact answers to all queries by feature, and for each point to as many queries as the time allows.

    Args:
        index: index that answers by Eq. 2-4.
        data: the same records.
        queries: nq queries.
        points: cutoffs and rankings to answer by.
        k: answers per query.
        seconds: time for each point; at least `_FIRST` queries are answered.
        progress: callback that gets the number of points that are done.

    Raises:
        WrongAnswerError: an answer differs from brute force.
    """
    wanted = list(points)
    rows, distances = nearest(data.features, queries.features, k)
    exact = {}
    for place, point in enumerate(wanted):
        progress(place, len(wanted) + 1, "exact answers")
        exact[point] = answers(index, queries, *point, k=k, seconds=seconds)
    truth = Truth(data.ids_of(rows), distances, exact)
    progress(len(wanted), len(wanted) + 1, "exact answers")
    check(index, queries, truth, k)
    return truth


def nearest(
    features: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k features nearest to each query.

    FAISS expands squared distances into products, which lose digits if the distance is small. So this function finds
    more than k features and orders them by their exact distances.

    Returns:
        rows (nq, k) int64 and Euclidean distances (nq, k) float32.
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
    """Find exact answers by Eq. 2-4 to the first queries, as many as the time allows."""
    parts: list[SearchResult] = []
    done, size, start = 0, _FIRST, time.perf_counter()
    while done < len(queries) and (not parts or time.perf_counter() - start < seconds):
        part = queries[done : done + size]
        parts.append(index.search(part, k=k, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False))
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
    """Compare the answers to the first queries with the equations evaluated over every record.

    Raises:
        WrongAnswerError: an answer differs; the message names the query.
    """
    checked = queries[:CHECKED]
    weights = index.similarity.weights(checked.probabilities)
    best = {point: _BestSoFar(k, len(checked)) for point in truth.exact}
    for batch in index.iterate(_ROWS):
        r = relevance(weights[:, None], batch.probabilities[None])
        d = distance(checked.features[:, None], batch.features[None])
        for (cutoff, ranking), kept in best.items():
            cost = d if ranking == "distance" else -fused_score(r, d)
            kept.offer(batch.ids, np.where(is_relevant(r, cutoff), cost, np.inf))
    for (cutoff, ranking), kept in best.items():
        found = truth.exact[cutoff, ranking].ids[: len(checked)]
        wrong = np.flatnonzero((found != kept.ids()[: len(found)]).any(axis=1))
        if len(wrong):
            query = int(wrong[0])
            raise WrongAnswerError(
                f"the exact answer to query {query} at cutoff {cutoff} by {ranking} is {kept.ids()[query].tolist()}, "
                f"but the search gave {found[query].tolist()}: report this"
            )


class _BestSoFar:
    """The k ids of least cost among all ids that were offered for each query, ties by id."""

    def __init__(self, k: int, queries: int) -> None:
        self._ids = np.full((queries, k), -1, np.int64)
        self._cost = np.full((queries, k), np.inf, np.float32)

    def offer(self, ids: NDArray[np.int64], cost: NDArray[np.float32]) -> None:
        k = self._ids.shape[1]
        if cost.shape[1] > k:  # keep every id with at most the k-th cost, so that no tie is lost
            limit = np.partition(cost, k - 1, axis=1)[:, k - 1 : k]
            kept = (cost <= np.minimum(limit, self._cost[:, -1:])).any(axis=0)
            ids, cost = ids[kept], cost[:, kept]
        every = np.concatenate([self._ids, np.broadcast_to(ids, cost.shape)], axis=1)
        costs = np.concatenate([self._cost, cost], axis=1)
        order = np.lexsort((every, costs))[:, :k]
        self._ids, self._cost = np.take_along_axis(every, order, 1), np.take_along_axis(costs, order, 1)

    def ids(self) -> NDArray[np.int64]:
        return np.where(np.isinf(self._cost), -1, self._ids)


def _cutoff(text: str) -> float:
    value = float(text)
    if not 0 <= value <= MAX_CUTOFF:
        raise ValueError(text)
    return value


def _ranking(name: str) -> Ranking:
    if name == "distance":
        return "distance"
    if name == "fused":
        return "fused"
    raise ValueError(name)
