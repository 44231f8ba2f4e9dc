"""Rankings compared on the same encodings: the paper's Fig. 4, with what each cutoff leaves to scan.

    hamming      Hamming distance of codes; ties count as the mean over their orders
    euclidean    distance of features
    shortlist    the nearest by code (ties by position), those by distance of features, then the others by code
    relevance    R alone, Eq. 1
    fused        R (1 - d), Eq. 4

each of the records with R above a cutoff t, Eq. 2. A right record behind the cutoff counts as missed. Ties of the other
rankings are as good as none, and go by position.

Everything is computed from all pairs of a query and a record, without an index: what an index answers is the same, and
the share of codes that it scans is asked of the cells that it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from connector.metrics import tied_average_precision
from indexes import Encodings, IndexConfig
from indexes.partitions import Cells
from indexes.relevance import Similarity, is_relevant

RankingName = Literal["hamming", "euclidean", "shortlist", "relevance", "fused"]
NAMES: tuple[RankingName, ...] = get_args(RankingName)
CUTOFFS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)

_PAIRS = 1 << 23


@dataclass(frozen=True)
class Figures:
    """One ranking at one cutoff, mean over queries.

    Attributes:
        ranking, cutoff: which.
        map_all: mAP@all.
        map_k: mAP@k.
        precision_k: precision@k.
        relevant: share of the records with R above the cutoff.
        scanned: share of the records in cells that pruning leaves.
    """

    ranking: RankingName
    cutoff: float
    map_all: float
    map_k: float
    precision_k: float
    relevant: float
    scanned: float


def compare(
    records: Encodings,
    labels: NDArray[np.int64],
    queries: Encodings,
    query_labels: NDArray[np.int64],
    config: IndexConfig,
    *,
    k: int,
    shortlist: int = 100,
    cutoffs: Sequence[float] = CUTOFFS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Figures]:
    """All rankings at all cutoffs.

    Args:
        records: n of them, with features that are L2-normalised.
        labels: (n,) int64.
        queries: nq of them.
        query_labels: (nq,) int64; each has a right record.
        config: of the index that they would be in.
        k: places of mAP@k and precision@k; AP@k divides by min(k, right records).
        shortlist: of the ranking of that name.
        cutoffs: t.
        progress: told how many queries, of how many, are done.
    """
    right_of = np.bincount(labels[labels >= 0], minlength=int(query_labels.max()) + 1)[query_labels]
    sums = {(name, t): np.zeros(3) for name in NAMES for t in cutoffs}
    relevant, scanned = np.zeros(len(cutoffs)), np.zeros(len(cutoffs))
    cells, _ = Cells.empty(config).extended(records.probabilities)
    similarity = Similarity(config)
    step = max(1, _PAIRS // max(1, len(records)))
    for start in range(0, len(queries), step):
        part, total = queries[start : start + step], right_of[start : start + step]
        weights = similarity.weights(part.probabilities)
        r = (weights @ records.probabilities.T.astype(np.float64)).astype(np.float32)
        apart = _hamming(part.codes, records.codes)
        squared = 2 - 2 * (part.features.astype(np.float64) @ records.features.T.astype(np.float64))
        d = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
        same = labels[None] == query_labels[start : start + step, None]
        orders = {
            "euclidean": np.argsort(d, axis=1, kind="stable"),
            "relevance": np.argsort(-r, axis=1, kind="stable"),
            "fused": np.argsort(-r * (1 - np.minimum(d / 2, 1)), axis=1, kind="stable"),
        }
        for place, t in enumerate(cutoffs):
            kept = is_relevant(r, t)
            relevant[place] += kept.mean(axis=1).sum()
            scanned[place] += cells.prune(weights, t).codes.sum() / len(records)
            sums["hamming", t] += _of_groups(apart, kept, same, total, k, 8 * records.codes.shape[1] + 1)
            for name, order in (*orders.items(), ("shortlist", _shortlisted(apart, d, kept, shortlist))):
                sums[name, t] += _of_order(order, kept, same, total, k)  # type: ignore[index]
        if progress is not None:
            progress(min(start + step, len(queries)), len(queries))
    count, found = len(queries), []
    for name in NAMES:
        for place, t in enumerate(cutoffs):
            map_all, map_k, precision_k = (sums[name, t] / count).tolist()
            found.append(Figures(name, t, map_all, map_k, precision_k, relevant[place] / count, scanned[place] / count))
    return found


def _hamming(queries: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(nq, n) distances of all pairs."""
    apart = np.zeros((len(queries), len(codes)), np.int16)
    for byte in range(codes.shape[1]):
        apart += np.bitwise_count(queries[:, byte, None] ^ codes[None, :, byte])
    return apart


def _shortlisted(
    apart: NDArray[np.int16], d: NDArray[np.float32], kept: NDArray[np.bool_], size: int
) -> NDArray[np.int64]:
    """(nq, n) order: the relevant records nearest by code, by distance of features, then the others by code."""
    order = np.argsort(np.where(kept, apart, np.iinfo(np.int16).max), axis=1, kind="stable")
    first = order[:, :size]
    left_out = ~np.take_along_axis(kept, first, 1)
    cost = np.where(left_out, np.inf, np.take_along_axis(d, first, 1))
    order[:, :size] = np.take_along_axis(first, np.argsort(cost, axis=1, kind="stable"), 1)
    return order


def _of_order(
    order: NDArray[np.int64], kept: NDArray[np.bool_], same: NDArray[np.bool_], total: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """Sums over queries of AP@all, AP@k and precision@k of an order of all records, of which only the kept ones are
    there."""
    there = np.take_along_axis(kept, order, 1)
    right = np.take_along_axis(same, order, 1) & there
    places = np.cumsum(there, axis=1)
    precision = np.where(right, np.cumsum(right, axis=1) / np.maximum(places, 1), 0)
    early = places <= k
    return np.array(
        [
            (precision.sum(axis=1) / total).sum(),
            (np.where(early, precision, 0).sum(axis=1) / np.minimum(k, total)).sum(),
            ((right & early).sum(axis=1) / k).sum(),
        ]
    )


def _of_groups(
    apart: NDArray[np.int16],
    kept: NDArray[np.bool_],
    same: NDArray[np.bool_],
    total: NDArray[np.int64],
    k: int,
    width: int,
) -> NDArray[np.float64]:
    """The same of groups of records at one distance."""
    at = np.arange(len(apart))[:, None] * width + apart
    shape = (len(apart), width)
    every = np.bincount(at[kept], minlength=at.shape[0] * width).reshape(shape)
    right = np.bincount(at[kept & same], minlength=at.shape[0] * width).reshape(shape)
    before = np.cumsum(every, axis=1) - every
    seen = right * np.clip(k - before, 0, every) / np.maximum(every, 1)
    return np.array(
        [
            tied_average_precision(right, every, total).sum(),
            tied_average_precision(right, every, np.minimum(k, total), k).sum(),
            (seen.sum(axis=1) / k).sum(),
        ]
    )
