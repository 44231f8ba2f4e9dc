"""Compare five rankings at several cutoffs on the same encodings, as in the paper's Fig. 4.

    hamming      by Hamming distance of codes; figures are the mean over all orders of records at the same distance
    euclidean    by Euclidean distance of features
    shortlist    first the records nearest by code, sorted by distance of features; then the others, sorted by code
    relevance    by R alone, Eq. 1
    fused        by R (1 - d), Eq. 4

Each ranking has the records with R above the cutoff t, Eq. 2. A right record with R at or below t counts as missed.
Ties at the end of a shortlist are broken by the rule of `tie_order`. Ties in the other rankings are rare and are broken
by the order of mixed ids.

All pairs of a query and a record are compared, without an index; an index gives the same results. The share of records
that an index would scan is computed from the cells that it would build.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import MAX_CLASSES
from semcut.connector.evaluation.hash_code_quality import hamming_all_pairs, ks_given, totals_given
from semcut.connector.evaluation.metrics import tied_average_precision
from semcut.indexes import Encodings, IndexConfig
from semcut.indexes.argument_checks import callback_given, instance_given, integer_given
from semcut.indexes.array_checks import array_of, integers_given
from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.progress import Progress, silent
from semcut.indexes.pruning.cell_table import edges_of
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scoring.equations import Similarity, is_relevant
from semcut.indexes.search.tie_order import LEVELS, levels, mixed
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST
from semcut.indexes.stored_values import stored_values

RankingName = Literal["hamming", "euclidean", "shortlist", "relevance", "fused"]
RANKING_NAMES: tuple[RankingName, ...] = get_args(RankingName)
CUTOFFS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)

_PAIRS = 1 << 24
"""Pairs of a query and a record that are in memory, for all threads together."""

_QUERIES_PER_BLOCK = 256


@dataclass(frozen=True)
class RankingFigures:
    """The figures of one ranking at one cutoff, mean over queries.

    Attributes:
        ranking, cutoff: the ranking and the cutoff t.
        map_all: mAP@all.
        map_k: mAP@k.
        precision_k: precision@k.
        relevant: share of the records with R above the cutoff.
        scanned: share of the records in cells that are not pruned.
    """

    ranking: RankingName
    cutoff: float
    map_all: float
    map_k: float
    precision_k: float
    relevant: float
    scanned: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """The figures of all rankings at all cutoffs, query by query.

    Attributes:
        cutoffs: the values of t, ascending.
        ks: the values of k.
        at_all: (rankings, t, nq) float64; AP@all. Rankings are in the order of `RANKING_NAMES`.
        at_k, precision: (rankings, t, nq, ks) float64; AP@k and precision@k.
        relevant, scanned: (t, nq) float64; shares of the records, see `RankingFigures`.
    """

    cutoffs: tuple[float, ...]
    ks: tuple[int, ...]
    at_all: NDArray[np.float64]
    at_k: NDArray[np.float64]
    precision: NDArray[np.float64]
    relevant: NDArray[np.float64]
    scanned: NDArray[np.float64]

    @staticmethod
    def unfilled(cutoffs: tuple[float, ...], ks: tuple[int, ...], queries: int) -> Comparison:
        """Allocate the arrays for this number of queries; the caller fills all of them."""
        shape = (len(RANKING_NAMES), len(cutoffs), queries)
        return Comparison(
            cutoffs,
            ks,
            at_all=np.empty(shape),
            at_k=np.empty((*shape, len(ks))),
            precision=np.empty((*shape, len(ks))),
            relevant=np.empty(shape[1:]),
            scanned=np.empty(shape[1:]),
        )

    def figures(self, k: int) -> list[RankingFigures]:
        """Compute the means over queries, for one k of `ks`.

        Raises:
            InvalidParameterError: the comparison was not made for this k.
        """
        if integer_given("k", k, 1) not in self.ks:
            raise InvalidParameterError(f"k = {k}, expected one of {', '.join(map(str, self.ks))}")
        place = self.ks.index(k)
        return [
            RankingFigures(
                name,
                t,
                map_all=float(self.at_all[i, j].mean()),
                map_k=float(self.at_k[i, j, :, place].mean()),
                precision_k=float(self.precision[i, j, :, place].mean()),
                relevant=float(self.relevant[j].mean()),
                scanned=float(self.scanned[j].mean()),
            )
            for i, name in enumerate(RANKING_NAMES)
            for j, t in enumerate(self.cutoffs)
        ]


def compare(
    records: Encodings,
    labels: NDArray[np.int64],
    queries: Encodings,
    query_labels: NDArray[np.int64],
    config: IndexConfig,
    *,
    ks: Sequence[int],
    shortlist: int = DEFAULT_SHORTLIST,
    cutoffs: Sequence[float] = CUTOFFS,
    progress: Progress | None = None,
) -> Comparison:
    """Measure all rankings at all cutoffs.

    Args:
        records: n records with L2-normalised features; what an index would store of them is compared. If they have no
            ids, their positions are used as ids.
        labels: (n,) int64, -1 for unknown.
        queries: nq queries.
        query_labels: (nq,) int64.
        config: configuration of an index of the records.
        ks: the values of k for precision@k and for AP@k, which divides by min(k, number of right records).
        shortlist: number of records that the ranking "shortlist" orders by distance of features.
        cutoffs: the values of t.
        progress: called with the number of queries that were compared.

    Raises:
        DataError: a query has no record of its class.
        InvalidEncodingsError: the encodings do not fit the configuration.
        InvalidParameterError: another argument is of another type, or out of range.
    """
    instance_given("config", config, IndexConfig)
    config.check(records)
    config.check(queries)
    labels = integers_given("labels", labels, -1, MAX_CLASSES - 1, (len(records),))
    query_labels = integers_given("query_labels", query_labels, 0, MAX_CLASSES - 1, (len(queries),))
    shortlist = integer_given("shortlist", shortlist, 1)
    chosen = tuple(sorted(array_of("cutoffs", cutoffs, "fiu", (None,), -1, 1).tolist()))
    callback_given("progress", progress)
    report = progress or silent
    total = totals_given(labels, query_labels)
    found = Comparison.unfilled(chosen, ks_given(ks), len(queries))
    pairs = _AllPairs(stored_values(config, records), labels, config, shortlist)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    step = max(1, min(_PAIRS // threads // max(1, len(records)), _QUERIES_PER_BLOCK))

    def measure(start: int) -> int:
        block = slice(start, start + step)
        part = queries[block]
        pairs.measure(part, query_labels[block], total[block], found, start)
        return len(part)

    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for count in pool.map(measure, range(0, len(queries), step)):
            done += count
            report(done, len(queries))
    return found


class _AllPairs:
    """The records of a comparison, prepared for comparing blocks of queries with all records.

    Threads share one object: `measure` changes only the figures of its own queries.
    """

    def __init__(self, records: Encodings, labels: NDArray[np.int64], config: IndexConfig, shortlist: int) -> None:
        ids = np.arange(len(records)) if records.ids is None else records.ids
        order = np.argsort(mixed(ids))  # in this order of records, a tie broken by position is broken by mixed id
        records, self._labels = records[order], labels[order]
        self._cells, _ = Cells.empty(config).extended(records.probabilities)
        self._dominant, self._edges = records.probabilities.argmax(axis=1), edges_of(records.probabilities)
        self._similarity = Similarity(config)
        self._probabilities, self._features = (
            a.T.astype(np.float64) for a in (records.probabilities, records.features)
        )
        self._squares = (self._features**2).sum(axis=0)
        self._codes, self._shortlist = records.codes, shortlist

    def measure(
        self,
        queries: Encodings,
        query_labels: NDArray[np.int64],
        total: NDArray[np.int64],
        found: Comparison,
        start: int,
    ) -> None:
        """Compare a block of queries with all records and enter the figures.

        Args:
            queries: the block.
            query_labels, total: the label of each query, and the number of records with this label.
            found: the figures of all queries.
            start: position of the block's first query in `found`.
        """
        weights = self._similarity.weights(queries.probabilities)
        relevance = (weights @ self._probabilities).astype(np.float32)
        features = queries.features.astype(np.float64)
        squared = np.vecdot(features, features)[:, None] + self._squares - 2 * (features @ self._features)
        distances = np.sqrt(np.maximum(squared, 0)).astype(np.float32)
        hamming = hamming_all_pairs(queries.codes, self._codes)
        level = levels(weights, weights[:, self._dominant], self._edges[None])
        tie_rank = hamming * np.int16(LEVELS) - level.astype(np.int16)
        for place, t in enumerate(found.cutoffs):
            scanned = self._cells.prune(weights, t).codes / len(self._codes)
            found.scanned[place, start : start + len(queries)] = scanned
        every, right = np.zeros((2, len(queries), len(found.cutoffs), 8 * self._codes.shape[1] + 1), np.int64)
        for i, query in enumerate(range(start, start + len(queries))):
            same = self._labels == query_labels[i]
            for place, t in enumerate(found.cutoffs):
                kept = is_relevant(relevance[i], t)
                found.relevant[place, query] = kept.mean()
                every[i, place] = np.bincount(hamming[i][kept], minlength=every.shape[2])
                right[i, place] = np.bincount(hamming[i][kept & same], minlength=every.shape[2])
            orders = _orders_without_ties(relevance[i], distances[i], tie_rank[i], found.cutoffs, self._shortlist)
            for name, order_at_cutoff in orders:
                for place, rows in enumerate(order_at_cutoff):
                    at = (RANKING_NAMES.index(name), place, query)
                    _enter_list(found, at, np.flatnonzero(same[rows]), total[i])
        _enter_groups(found, every, right, total, start)


def _orders_without_ties(
    relevance: NDArray[np.float32],
    distances: NDArray[np.float32],
    tie_rank: NDArray[np.int16],
    cutoffs: Sequence[float],
    shortlist: int,
) -> list[tuple[RankingName, list[NDArray[np.int64]]]]:
    """Rank the relevant records of one query by every ranking but "hamming", at every cutoff, best record first."""
    score = relevance * (1 - np.minimum(distances / 2, 1))
    orders: dict[RankingName, NDArray[np.int64]] = {
        "euclidean": _argsort(distances),
        "relevance": _argsort(-relevance),
        "fused": _argsort(-score),
        "shortlist": np.argsort(tie_rank, kind="stable"),
    }
    found = []
    for name, order in orders.items():
        at_cutoff = []
        for t in cutoffs:
            order = order[is_relevant(relevance[order], t)]  # cutoffs ascend, so `order` only shrinks
            ranked = order
            if name == "shortlist":
                first = order[:shortlist]
                nearest = first[np.argsort(distances[first], kind="stable")]
                ranked = np.concatenate([nearest, order[shortlist:]])
            at_cutoff.append(ranked)
        found.append((name, at_cutoff))
    return found


def _argsort(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Compute a stable argsort, in a sixth of the time of `numpy.argsort`.

    Integers with the value in the high bits and the position in the low bits are sorted with vector instructions.
    """
    bits = (values + np.float32(0)).view(np.int32)  # adding 0 turns -0, whose bits differ from those of 0, into 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers, negative floats descend: flip all bits but the sign
    return np.sort((bits.astype(np.int64) << 32) | np.arange(len(values))) & 0xFFFFFFFF


def _enter_list(found: Comparison, at: tuple[int, int, int], places: NDArray[np.int64], total: int) -> None:
    """Enter the figures of a list without ties; `places` are those of the right records, ascending from 0."""
    precision = np.arange(1, len(places) + 1) / (places + 1)
    found.at_all[at] = precision.sum() / total
    for nth, k in enumerate(found.ks):
        among_first_k = int(np.searchsorted(places, k))
        found.at_k[(*at, nth)] = precision[:among_first_k].sum() / min(k, total)
        found.precision[(*at, nth)] = among_first_k / k


def _enter_groups(
    found: Comparison, every: NDArray[np.int64], right: NDArray[np.int64], total: NDArray[np.int64], start: int
) -> None:
    """Enter the figures of the ranking by Hamming distance, as means over all orders of records at the same distance.

    Args:
        found: the figures of all queries.
        every, right: (queries, t, bits + 1); numbers of records and of right records at each distance.
        total: (queries,) number of right records.
        start: position of the first query in `found`.
    """
    block, ranking = slice(start, start + len(total)), RANKING_NAMES.index("hamming")
    for place in range(len(found.cutoffs)):
        hits, groups = right[:, place], every[:, place]
        found.at_all[ranking, place, block] = tied_average_precision(hits, groups, total)
        before = np.cumsum(groups, axis=1) - groups
        for nth, k in enumerate(found.ks):
            at_k = tied_average_precision(hits, groups, np.minimum(k, total), k)
            found.at_k[ranking, place, block, nth] = at_k
            expected = hits * np.clip(k - before, 0, groups) / np.maximum(groups, 1)
            found.precision[ranking, place, block, nth] = expected.sum(axis=1) / k
