"""Figures of raw results: recall, average precision, latencies, losses. Nothing is timed or searched here.

Conventions:
- recall@k counts ties, as ann-benchmarks does: a result is right if it is no farther than the k-th exact answer, with a
  little room for rounding; the same record counts once. It divides by the exact answers there are, at most k.
- recall of Eq. 2-4 asks in addition that the record is relevant, R > t, and compares scores where the ranking is fused.
- average precision and precision are those of `connector.evaluate`; queries without a right record are left out.
- a latency is the time of one call, whatever its batch; queries/s is the size of a batch over its median latency.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure.ground_truth import Exact
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes.scoring.equations import fused_score, is_relevant

EPSILON = 1e-5
"""How much farther than the k-th exact answer still counts as a tie, relative and absolute."""


def recall(ids: NDArray[np.int64], costs: NDArray[np.float32], exact_costs: NDArray[np.float32]) -> NDArray[np.float64]:
    """recall@k of every query, ties counted.

    Args:
        ids: (nq, m) int64 results, -1 for none.
        costs: (nq, m) float32, distances or scores negated, inf where a result does not count.
        exact_costs: (nq, k) float32 of the exact answers, ascending, inf where there are fewer.

    Returns:
        (nq,) float64; NaN where there is no exact answer.
    """
    k = exact_costs.shape[1]
    present = np.isfinite(exact_costs)
    answers = np.count_nonzero(present, axis=1)
    last = np.where(present, exact_costs, -np.inf).max(axis=1, initial=-np.inf)
    room = EPSILON * (1 + np.abs(np.where(np.isfinite(last), last, 0)))
    right = (ids >= 0) & np.isfinite(costs) & (costs <= (last + room)[:, None])
    order = np.argsort(ids, axis=1, kind="stable")
    sorted_ids = np.take_along_axis(ids, order, 1)
    again = np.zeros(ids.shape, bool)
    np.put_along_axis(again, order[:, 1:], sorted_ids[:, 1:] == sorted_ids[:, :-1], 1)
    found = np.minimum(np.count_nonzero((right & ~again)[:, :k], axis=1), answers)
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
    """recall@k against Eq. 2-4 of the queries that have exact answers, (m,) float64.

    Args:
        ids, distances, relevances: (nq, k) of the results.
        exact: answers to the first m of the queries.
        cutoff: t of Eq. 2.
        ranking: by what both are ordered.
    """
    some = min(len(ids), len(exact.ids))
    found, d, r = ids[:some], distances[:some], relevances[:some]
    if ranking == "distance":
        cost, best = d, exact.distances[:some]
    else:
        cost = np.where(np.isfinite(d), -fused_score(r, np.where(np.isfinite(d), d, 0)), np.inf)
        best = np.where(exact.ids[:some] >= 0, -exact.scores[:some], np.inf)
    return recall(found, np.where(is_relevant(r, cutoff), cost, np.inf), best)


def losses(
    ids: NDArray[np.int64], best: Exact, exact: Exact, cutoff: float, pruned: NDArray[np.bool_]
) -> dict[str, float]:
    """Where the k best records of all, found with no cutoff, get lost: shares of them that sum to 1.

    Args:
        ids: (nq, k) results of a search.
        best: exact answers at cutoff 0 by the same ranking.
        exact: exact answers at the search's cutoff.
        cutoff: t of the search.
        pruned: (m, k) bool; which of `best` lie in cells that the search does not scan.

    Returns:
        cutoff: they are not relevant enough, as was asked for; pruning: relevant, but in a cell that was skipped, which
        must not be; shortlist: relevant and scanned, but not near enough by code; found: the others.
    """
    some = min(len(ids), len(best.ids), len(exact.ids), len(pruned))
    wanted = best.ids[:some] >= 0
    relevant = is_relevant(best.relevance[:some], cutoff)
    found = (best.ids[:some, :, None] == ids[:some, None, :]).any(axis=2)
    lost = pruned[:some] & relevant & ~found
    total = max(1, int(np.count_nonzero(wanted)))
    return {
        "cutoff": int(np.count_nonzero(wanted & ~relevant)) / total,
        "pruning": int(np.count_nonzero(wanted & lost)) / total,
        "shortlist": int(np.count_nonzero(wanted & relevant & ~found & ~lost)) / total,
        "found": int(np.count_nonzero(wanted & relevant & found)) / total,
    }


def quality(
    labels: NDArray[np.int32], query_labels: NDArray[np.int32], per_label: NDArray[np.int64]
) -> dict[str, float]:
    """mAP@k and precision@k.

    Args:
        labels: (nq, k) int32 of the results, -1 for none.
        query_labels: (nq,) int32.
        per_label: (labels,) int64 records of each label.
    """
    k = labels.shape[1]
    total = per_label[query_labels]
    chosen = total > 0
    right = (labels == query_labels[:, None])[chosen]
    if not len(right):
        return {"map": float("nan"), "precision": float("nan")}
    return {
        "map": float(average_precision(right, np.minimum(k, total[chosen])).mean()),
        "precision": float(right.sum(axis=1).mean() / k),
    }


def latencies(seconds: Mapping[int, NDArray[np.float64]], sizes: Mapping[int, int]) -> dict[str, dict[str, Any]]:
    """By nominal size of batch: queries/s, and percentiles of the latency of a call in ms."""
    return {
        str(batch): {
            "queries": sizes[batch],
            "calls": len(taken),
            "queries_per_second": sizes[batch] / float(np.median(taken)),
            **{f"p{share}_ms": 1000 * float(np.percentile(taken, share)) for share in (50, 95, 99)},
        }
        for batch, taken in seconds.items()
    }
