"""Collect the arrays that are stored of a data set's queries and of each method's results, in addition to the times.

Distances, relevances and labels of all results are computed here, from the stored records, in the same way for every
method.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.measure.ground_truth import Truth
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.methods.semcut_methods import cells_kept
from semcut.connector.benchmark.methods.structures import Method
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes import Encodings
from semcut.indexes.scoring.equations import distance, relevance

_RANKED_AT_ONCE = 1 << 20  # ids in one chunk of rankings of all records


def query_columns(
    dataset: Dataset, queries: Encodings, chosen: NDArray[np.int64], truth: Truth
) -> dict[str, NDArray[Any]]:
    """Collect ids and labels of the queries, records per label, and which of the best records pruning skips.

    Args:
        dataset: the data set.
        queries: nq of its queries.
        chosen: (nq,) their ids.
        truth: exact answers to them.
    """
    columns: dict[str, NDArray[Any]] = {
        "ids": chosen,
        "labels": dataset.query_labels[chosen],
        "per_label": _records_per_label(dataset),
    }
    cells = dataset.index.snapshot.columns.cells[_row_of_id(dataset)]
    for cutoff, ranking in truth.exact:
        best = truth.exact.get((0.0, ranking))
        if best is not None:
            kept = cells_kept(dataset.index, queries[: len(best.ids)], cutoff)
            scanned = (cells[best.ids][:, :, None] == kept[:, None, :]).any(axis=2)
            columns[f"pruned {cutoff!r} {ranking}"] = ~scanned & (best.ids >= 0)
    return columns


def method_columns(
    method: Method,
    ids: NDArray[np.int64],
    queries: Encodings,
    chosen: NDArray[np.int64],
    dataset: Dataset,
    plan: Plan,
) -> dict[str, NDArray[Any]]:
    """Collect distances, relevances and labels of a method's results, and what the method's steps processed.

    Args:
        method: the method.
        ids: (m, k) its results for the first m queries.
        queries: nq queries.
        chosen: (nq,) their ids.
        dataset: the data set.
        plan: the plan of the run.
    """
    answered = queries[: len(ids)]
    stored = dataset.index.snapshot.columns
    rows = _row_of_id(dataset)[ids]
    matrix, at = stored.features(rows)
    present = ids >= 0
    distances = np.full(ids.shape, np.inf, np.float32)
    distances[present] = distance(answered.features[:, None], matrix[at])[present]
    matrix, at = stored.probabilities(rows)
    weights = dataset.index.similarity.weights(answered.probabilities)
    relevances = np.where(present, relevance(weights[:, None], matrix[at]), 0).astype(np.float32)
    stored.release_pages()
    columns: dict[str, NDArray[Any]] = {
        "ids": ids,
        "distances": distances,
        "relevance": relevances,
        "labels": np.where(present, dataset.record_labels[ids], -1).astype(np.int32),
    }
    if method.count_steps is not None:
        columns |= {f"steps_{name}": counts for name, counts in method.count_steps(answered, plan.k).items()}
    if method.rank_all is not None and len(dataset.index) <= plan.whole:
        columns["average_precision"] = _average_precision_of_all(method, queries, dataset, chosen, plan)
    return columns


def _average_precision_of_all(
    method: Method, queries: Encodings, dataset: Dataset, chosen: NDArray[np.int64], plan: Plan
) -> NDArray[np.float64]:
    """Compute the average precision over the ranking of all records, for as many queries as the time allows.

    The rankings themselves are not stored, since each has n ids.

    Returns:
        (m,) float64; NaN for a query without a record of its label.
    """
    assert method.rank_all is not None
    labels, total = dataset.query_labels[chosen], _records_per_label(dataset)[dataset.query_labels[chosen]]
    step, parts, start = max(1, _RANKED_AT_ONCE // len(dataset.index)), [], time.perf_counter()
    for first in range(0, len(queries), step):
        here = slice(first, first + step)
        ids = method.rank_all(queries[here])
        right = (ids >= 0) & (dataset.record_labels[ids] == labels[here, None])
        precision = average_precision(right, np.maximum(1, total[here]))
        parts.append(np.where(total[here] > 0, precision, np.nan))
        if time.perf_counter() - start > plan.truth_seconds / 3:
            break
    return np.concatenate(parts)


def _row_of_id(dataset: Dataset) -> NDArray[np.int64]:
    """Return the row of the stored columns that has each record, (n,) int64 by id."""
    ids = dataset.index.snapshot.columns.ids
    rows = np.empty(len(ids), np.int64)
    rows[ids] = np.arange(len(ids))
    return rows


def _records_per_label(dataset: Dataset) -> NDArray[np.int64]:
    """Count the records of each class: (classes,) int64."""
    return np.bincount(dataset.record_labels, minlength=dataset.about.classes)
