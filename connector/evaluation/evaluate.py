"""Retrieval quality and cost: mAP, precision, and what a search scanned.

Conventions, since published figures differ in them:
- a record is right for a query if both have the same label, the name of the folder that their file lies in;
- average precision divides by all right records of the index, found or not: records behind the cutoff count as missed;
- at k, it divides by the right records that k places could hold, min(k, all right records);
- precision@k divides by k;
- results come in the order of the search, ties by id; queries without a right record in the index are left out.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes import Encodings, FaissIndex, SearchResult
from semcut.indexes.config import Ranking
from semcut.indexes.errors import DataError

_PLACES = 1 << 22


@dataclass(frozen=True)
class ClassFigures:
    """Figures of the queries of one class, or of all."""

    queries: int
    map_all: float
    map_k: float
    precision_k: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. Shares are of the index's partitions, cells and records, mean over queries."""

    k: int
    cutoff: float
    shortlist: int | None
    ranking: str
    records: int
    overall: ClassFigures
    per_class: dict[str, ClassFigures]
    partitions_scanned: float
    cells_scanned: float
    codes_scanned: float
    cut_off: float
    ms_per_query_batch: float
    ms_per_query_single: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(
    index: FaissIndex,
    record_labels: NDArray[np.int64],
    queries: Encodings,
    query_labels: NDArray[np.int64],
    classes: tuple[str, ...],
    *,
    k: int = 10,
    cutoff: float = 0.2,
    shortlist: int | None = 100,
    ranking: Ranking = "distance",
) -> Evaluation:
    """Search with every query and compare labels.

    Args:
        index: what to search.
        record_labels: (ids,) int64 label of the record with each id, -1 for unknown.
        queries: nq encodings.
        query_labels: (nq,) int64, positions in `classes`.
        classes: names for the report.
        k, cutoff, shortlist, ranking: as in `search`. mAP@all ranks all relevant records, whatever the shortlist.

    Raises:
        DataError: no query has a right record in the index.
    """
    per_label = np.bincount(record_labels[record_labels >= 0], minlength=len(classes))
    total = per_label[query_labels]
    chosen = np.flatnonzero(total > 0)
    if not len(chosen):
        raise DataError("no query has a record of its class in the index: their folders' names do not match")
    queries, labels, total = queries[chosen], query_labels[chosen], total[chosen]

    def right(result: SearchResult, here: slice = slice(None)) -> NDArray[np.bool_]:
        found = np.where(result.ids >= 0, record_labels[result.ids], -1)
        same: NDArray[np.bool_] = (found == labels[here, None]) & (result.ids >= 0)
        return same

    at_all = np.empty(len(labels))
    step = max(1, _PLACES // len(index))
    for start in range(0, len(labels), step):
        here = slice(start, start + step)
        everything = index.search(queries[here], k=len(index), cutoff=cutoff, shortlist=None, ranking=ranking)
        at_all[here] = average_precision(right(everything, here), total[here])

    index.search(queries[:1], k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking)
    start_time = time.perf_counter()
    result = index.search(queries, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking)
    batch = time.perf_counter() - start_time
    singles = []
    for one in range(min(100, len(labels))):
        start_time = time.perf_counter()
        index.search(queries[one : one + 1], k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking)
        singles.append(time.perf_counter() - start_time)

    at_k = average_precision(right(result), np.minimum(k, total))
    precision = right(result).sum(axis=1) / k
    stats = index.stats()

    def figures(rows: NDArray[np.bool_]) -> ClassFigures:
        return ClassFigures(
            queries=int(rows.sum()),
            map_all=float(at_all[rows].mean()),
            map_k=float(at_k[rows].mean()),
            precision_k=float(precision[rows].mean()),
        )

    return Evaluation(
        k=k,
        cutoff=cutoff,
        shortlist=shortlist,
        ranking=ranking,
        records=len(index),
        overall=figures(np.ones(len(labels), bool)),
        per_class={name: figures(labels == i) for i, name in enumerate(classes) if (labels == i).any()},
        partitions_scanned=float(result.partitions.mean() / max(1, np.count_nonzero(stats.partitions))),
        cells_scanned=float(result.cells.mean() / max(1, stats.cells)),
        codes_scanned=float(result.codes.mean() / len(index)),
        cut_off=float(result.cut_off.mean()),
        ms_per_query_batch=1000 * batch / len(labels),
        ms_per_query_single=1000 * float(np.median(singles)),
    )
