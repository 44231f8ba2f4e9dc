"""Compute recall, average precision, speed and losses from raw results.

Conventions:
- recall@k counts ties, as ann-benchmarks does: a result is right if it is at most as far as the k-th exact answer, with
  a small tolerance for rounding. A record that is returned twice counts once. The sum is divided by the number of exact
  answers, at most k.
- recall of Eq. 2-4 also demands that the record is relevant, R > t, and compares scores if the ranking is fused.
- average precision and precision are those of `connector.evaluation`; queries without a right record are left out.
- a latency is the time of one call, with a batch of any size; queries/s is the size of a batch over its median latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure.ground_truth import Exact
from semcut.connector.benchmark.report.figures import BatchFigures, Losses
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes.scoring.equations import fused_score, is_relevant

EPSILON = 1e-5
"""Tolerance within which a record counts as a tie of the k-th exact answer, relative and absolute."""


class Quality(NamedTuple):
    """Quality by labels; None if no query has a right record.

    Attributes:
        map: mAP@k.
        precision: precision@k.
    """

    map: float | None
    precision: float | None


def recall(ids: NDArray[np.int64], costs: NDArray[np.float32], exact_costs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute recall@k of every query, counting ties.

    Args:
        ids: (nq, m) int64 results, -1 for none.
        costs: (nq, m) float32, distances or negated scores; inf for a result that does not count.
        exact_costs: (nq, k) float32 of the exact answers, ascending; inf in places without an answer.

    Returns:
        (nq,) float64; NaN for a query without an exact answer.
    """
    k = exact_costs.shape[1]
    present = np.isfinite(exact_costs)
    answers = np.count_nonzero(present, axis=1)
    last = np.where(present, exact_costs, -np.inf).max(axis=1, initial=-np.inf)
    tolerance = EPSILON * (1 + np.abs(np.where(np.isfinite(last), last, 0)))
    right = (ids >= 0) & np.isfinite(costs) & (costs <= (last + tolerance)[:, None])
    order = np.argsort(ids, axis=1, kind="stable")
    sorted_ids = np.take_along_axis(ids, order, 1)
    repeated = np.zeros(ids.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], sorted_ids[:, 1:] == sorted_ids[:, :-1], 1)
    found = np.minimum(np.count_nonzero((right & ~repeated)[:, :k], axis=1), answers)
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = found / np.where(answers > 0, answers, np.nan)
    return shares


def recall_of_equations(
    ids: NDArray[np.int64],
    distances: NDArray[np.float32],
    relevances: NDArray[np.float32],
    exact: Exact,
    cutoff: float,
    ranking: str,
) -> NDArray[np.float64]:
    """Compute recall@k of the exact answers by Eq. 2-4, for the queries that have such answers.

    Args:
        ids, distances, relevances: (nq, k) of the results.
        exact: answers to the first m queries.
        cutoff: t of Eq. 2.
        ranking: the ranking of both.

    Returns:
        (min(nq, m),) float64.
    """
    answered = min(len(ids), len(exact.ids))
    found, d, r = ids[:answered], distances[:answered], relevances[:answered]
    if ranking == "distance":
        cost, best = d, exact.distances[:answered]
    else:
        cost = np.where(np.isfinite(d), -fused_score(r, np.where(np.isfinite(d), d, 0)), np.inf)
        best = np.where(exact.ids[:answered] >= 0, -exact.scores[:answered], np.inf)
    return recall(found, np.where(is_relevant(r, cutoff), cost, np.inf), best)


def losses(ids: NDArray[np.int64], best: Exact, exact: Exact, cutoff: float, pruned: NDArray[np.bool_]) -> Losses:
    """Compute at which step of a search the k best of all records are lost.

    Args:
        ids: (nq, k) results of a search.
        best: exact answers at cutoff 0 by the same ranking.
        exact: exact answers at the search's cutoff.
        cutoff: t of the search.
        pruned: (m, k) bool; which of `best` lie in cells that the search skips.
    """
    answered = min(len(ids), len(best.ids), len(exact.ids), len(pruned))
    wanted = best.ids[:answered] >= 0
    relevant = is_relevant(best.relevance[:answered], cutoff)
    found = (best.ids[:answered, :, None] == ids[:answered, None, :]).any(axis=2)
    lost = pruned[:answered] & relevant & ~found
    total = max(1, int(np.count_nonzero(wanted)))
    return Losses(
        cutoff=int(np.count_nonzero(wanted & ~relevant)) / total,
        pruning=int(np.count_nonzero(wanted & lost)) / total,
        shortlist=int(np.count_nonzero(wanted & relevant & ~found & ~lost)) / total,
        found=int(np.count_nonzero(wanted & relevant & found)) / total,
    )


def quality(labels: NDArray[np.int32], query_labels: NDArray[np.int32], per_label: NDArray[np.int64]) -> Quality:
    """Compute mAP@k and precision@k.

    Args:
        labels: (nq, k) int32 of the results, -1 for none.
        query_labels: (nq,) int32.
        per_label: (labels,) int64, number of records of each label.
    """
    k = labels.shape[1]
    total = per_label[query_labels]
    chosen = total > 0
    right = (labels == query_labels[:, None])[chosen]
    if not len(right):
        return Quality(None, None)
    return Quality(
        map=float(average_precision(right, np.minimum(k, total[chosen])).mean()),
        precision=float(right.sum(axis=1).mean() / k),
    )


def batch_figures(seconds: Mapping[int, NDArray[np.float64]], sizes: Mapping[int, int]) -> dict[int, BatchFigures]:
    """Compute queries/s and percentiles of latencies.

    Args:
        seconds: by nominal size of batch, the seconds of every call.
        sizes: by nominal size of batch, the actual number of queries of a call.
    """
    found = {}
    for batch, taken in seconds.items():
        p50, p95, p99 = (1000 * float(np.percentile(taken, share)) for share in (50, 95, 99))
        found[batch] = BatchFigures(
            queries=sizes[batch],
            calls=len(taken),
            queries_per_second=sizes[batch] / float(np.median(taken)),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )
    return found
