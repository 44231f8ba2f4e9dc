"""Compare rankings at several cutoffs for queries that are judged one by one, as the paper's Fig. 4 does by class.

    hamming      by Hamming distance of codes; figures are the mean over all orders of records at the same distance
    distance     by Euclidean distance of features
    fused        by R (1 - d), Eq. 4; only where features have length 1
    relevance    by R alone, Eq. 1

Each ranking has all records with R above the cutoff t, Eq. 2, and no other. A relevant record with R at or below t
counts as missed. Junk is taken out of an answer before it is judged. No ranking has a shortlist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from semcut.connector.evaluation.hash_code_quality import hamming_all_pairs
from semcut.connector.evaluation.judged_search import Figures, Levels, judged_search_given, search_figures
from semcut.connector.evaluation.metrics import tied_average_precision
from semcut.connector.evaluation.rankings import CUTOFFS
from semcut.indexes import Encodings, SemanticIndex
from semcut.indexes.argument_checks import callback_given, flag_given
from semcut.indexes.array_checks import array_of
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scoring.equations import is_relevant
from semcut.indexes.search_params import Ranking, SearchParams

JudgedRanking = Literal["hamming", "distance", "fused", "relevance"]
JUDGED_RANKINGS: tuple[JudgedRanking, ...] = get_args(JudgedRanking)

_PAIRS = 1 << 22
"""Pairs of a query and a record that are in memory."""


@dataclass(frozen=True, eq=False)
class JudgedCurves:
    """The figures of all rankings at all cutoffs.

    Attributes:
        cutoffs: the values of t, ascending.
        at_all: by level and ranking, (t, nq) float64; AP@all, nan for a query without a relevant record at this level.
        relevant, scanned: (t,) float64; share of the records with R above t, and of those in cells that a search with
            this cutoff does not prune, mean over queries.
    """

    cutoffs: tuple[float, ...]
    at_all: dict[str, dict[JudgedRanking, Figures]]
    relevant: Figures
    scanned: Figures


def compare_rankings(
    index: SemanticIndex,
    queries: Encodings,
    levels: Levels,
    *,
    trapezoid: bool,
    cutoffs: Sequence[float] = CUTOFFS,
    progress: Progress | None = None,
) -> JudgedCurves:
    """Measure all rankings at all cutoffs.

    Args:
        index: the index.
        queries: nq queries.
        levels: by the name of each level, the judged records of the nq queries.
        trapezoid: whether to compute average precision by the trapezoid rule.
        cutoffs: the values of t.
        progress: called with the number of rankings at a cutoff that were measured.

    Raises:
        DataError: the index has no records.
        InvalidEncodingsError: the queries are not of the index.
        InvalidParameterError: an argument is of another type, or the levels are not of the queries.
    """
    judged_search_given(index, queries, levels)
    trapezoid = flag_given("trapezoid", trapezoid)
    chosen = tuple(sorted(array_of("cutoffs", cutoffs, "fiu", (None,), -1, 1).tolist()))
    callback_given("progress", progress)
    report = progress or silent
    names: list[Ranking] = ["distance", "relevance"]
    if index.stats().normalised and queries.normalised():
        names.insert(1, "fused")
    total, records = len(chosen) * len(names) + 1, len(index)
    found: dict[str, dict[JudgedRanking, Figures]] = {level: {} for level in levels}
    scanned = np.empty(len(chosen))
    hamming, relevant = _by_code(index, queries, levels, chosen, trapezoid)
    for level in levels:
        found[level]["hamming"] = hamming[level]
        for name in names:
            found[level][name] = np.empty((len(chosen), len(queries)))
    done = 1
    for place, t in enumerate(chosen):
        first = index.search(queries, k=1, cutoff=t, shortlist=1, fill=False)
        scanned[place] = first.codes.mean() / records
        for name in names:
            report(done, total, name)
            params = SearchParams(k=1, cutoff=t, shortlist=None, ranking=name, fill=False)
            figures = search_figures(index, queries, levels, params, trapezoid=trapezoid)
            for level in levels:
                found[level][name][place] = figures.at_all[level]
            done += 1
    report(total, total)
    return JudgedCurves(chosen, found, relevant, scanned)


def _by_code(
    index: SemanticIndex, queries: Encodings, levels: Levels, cutoffs: Sequence[float], trapezoid: bool
) -> tuple[dict[str, Figures], Figures]:
    """Rank by Hamming distance; return AP@all by level, (t, nq), and the (t,) share of records above each cutoff."""
    records = Encodings.concatenate(list(index.iterate()))
    assert records.ids is not None
    ids: NDArray[np.int64] = records.ids
    probabilities = records.probabilities.T.astype(np.float64)
    weights, groups = index.similarity.weights(queries.probabilities), 8 * records.codes.shape[1] + 1
    found = {level: np.full((len(cutoffs), len(queries)), np.nan) for level in levels}
    relevant = np.empty((len(cutoffs), len(queries)))
    step = max(1, _PAIRS // len(ids))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        distances = hamming_all_pairs(queries.codes[block], records.codes)
        above = (weights[block] @ probabilities).astype(np.float32)
        for row, query in enumerate(range(start, start + len(distances))):
            kept = [is_relevant(above[row], t) for t in cutoffs]
            relevant[:, query] = [one.mean() for one in kept]
            for level, judged in levels.items():
                if not len(judged[query].relevant):
                    continue
                right, counted = np.isin(ids, judged[query].relevant), ~np.isin(ids, judged[query].junk)
                every, hits = (
                    np.array([np.bincount(distances[row][one & among], minlength=groups) for one in kept])
                    for among in (counted, counted & right)
                )
                total = np.full(len(cutoffs), len(judged[query].relevant))
                found[level][:, query] = tied_average_precision(hits, every, total, trapezoid=trapezoid)
    return found, relevant.mean(axis=1)
