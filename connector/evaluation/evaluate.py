"""Measure retrieval quality and cost of an index: mAP, precision, time, and the share that a search scans.

Published results follow different conventions; these are used here:

- A record is right for a query if they share a label. The label of an image is the name of the folder of its file, or
  what a list says; then it may have several.
- AP@all divides by the number of all right records of the index, found or not. A right record that the cutoff drops
  counts as missed.
- AP@k divides by min(k, number of all right records), the largest number of right records among k results.
- Precision@k divides by k.
- Results are in the order of the search, ties by id. Queries without a right record in the index are left out.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.class_names import classes_given
from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.labels import RecordLabels
from semcut.connector.evaluation.metrics import average_precision
from semcut.connector.evaluation.shared_labels import SharedLabels
from semcut.indexes import Encodings, SearchResult, SemanticIndex
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.array_checks import integers_given
from semcut.indexes.attributes.expressions import Expression
from semcut.indexes.errors import DataError, InvalidParameterError, shown
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST
from semcut.indexes.search_params import Ranking, SearchParams

_PLACES = 1 << 22
"""Queries times records of the results that are in memory while mAP@all is measured."""

_TIMED_SINGLY = 100
"""Largest number of queries that are also searched one by one, to measure the time of a single query."""


@dataclass(frozen=True)
class ClassFigures:
    """The quality of the results for the queries of one class, or for all queries."""

    queries: int
    map_all: float
    map_k: float
    precision_k: float


@dataclass(frozen=True)
class Evaluation:
    """The quality and cost that `evaluate` measured.

    The three values `*_scanned` are shares of the partitions, cells and records of the index, mean over queries.
    `cut_off` is the mean number of records of a query that were read and dropped by the cutoff. Times are in
    milliseconds per query.
    """

    k: int
    cutoff: float | None
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
        """Convert to nested dictionaries, for JSON."""
        return asdict(self)


def evaluate(
    index: SemanticIndex,
    record_labels: RecordLabels,
    queries: Encodings,
    query_labels: NDArray[np.int64] | LabelSets,
    classes: tuple[str, ...],
    *,
    k: int = DEFAULT_K,
    cutoff: float | None = DEFAULT_CUTOFF,
    shortlist: int | None = DEFAULT_SHORTLIST,
    ranking: Ranking = "distance",
    where: Expression | str | None = None,
) -> Evaluation:
    """Search with every query, and compare the labels of results with the label of the query.

    Args:
        index: the index to search; one that counts the codes it scans, see `Capabilities.counts_codes`.
        record_labels: the labels of the records, see `labels_by_id`.
        queries: nq encodings.
        query_labels: (nq,) int64, positions in `classes`; or sets of them, of queries that have several.
        classes: names of the labels, for the report.
        k, cutoff, shortlist, ranking: as in `search`. For mAP@all the shortlist is not used: all relevant records are
            ranked.
        where: evaluate as if the index had only the records that match, see `SemanticIndex.search`.

    Raises:
        DataError: no record matches, or no query has a right record in the index.
        InvalidEncodingsError: the queries are not of the index.
        InvalidParameterError: another argument is of another type, or out of range.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    instance_given("record_labels", record_labels, RecordLabels, "labels_by_id makes them")
    index.config.check(queries)
    classes = classes_given("classes", classes)
    query_sets = _sets_given(query_labels, len(classes), len(queries))
    k = SearchParams(k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking).k
    if not len(index):
        raise DataError("the index has no records: there is nothing to evaluate")
    if where is not None:
        record_labels = _matching(index, record_labels, where)
    records = len(index) if where is None else len(record_labels.ids)
    shared = SharedLabels(record_labels, query_sets)
    kept = np.flatnonzero(shared.totals > 0)
    if not len(kept):
        raise DataError("no query has a record of its class in the index: the names of their folders do not match")
    queries, sets, total = queries[kept], query_sets[kept], shared.totals[kept]

    def search(part: Encodings) -> SearchResult:
        return index.search(part, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking, fill=False, where=where)

    at_all = np.empty(len(queries))
    step = max(1, _PLACES // records)
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        every = index.search(
            queries[block], k=records, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False, where=where
        )
        at_all[block] = average_precision(shared.right(every.ids, kept[block]), total[block])

    search(queries[:1])  # not timed: the first search may have to prepare the index
    start_time = time.perf_counter()
    result = search(queries)
    batch_seconds = time.perf_counter() - start_time
    single_seconds = []
    for query in range(min(_TIMED_SINGLY, len(queries))):
        start_time = time.perf_counter()
        search(queries[query : query + 1])
        single_seconds.append(time.perf_counter() - start_time)

    right = shared.right(result.ids, kept)
    at_k = average_precision(right, np.minimum(k, total))
    precision = right.sum(axis=1) / k
    stats = index.stats()

    def figures(rows: NDArray[np.int64]) -> ClassFigures:
        return ClassFigures(
            queries=len(rows),
            map_all=float(at_all[rows].mean()),
            map_k=float(at_k[rows].mean()),
            precision_k=float(precision[rows].mean()),
        )

    return Evaluation(
        k=k,
        cutoff=cutoff,
        shortlist=shortlist,
        ranking=ranking,
        records=records,
        overall=figures(np.arange(len(queries))),
        per_class={
            name: figures(sets.images[sets.labels == i]) for i, name in enumerate(classes) if (sets.labels == i).any()
        },
        partitions_scanned=float(result.partitions.mean() / max(1, np.count_nonzero(stats.partitions))),
        cells_scanned=float(result.cells.mean() / max(1, stats.cells)),
        codes_scanned=float(result.codes.mean() / records),
        cut_off=float(result.cut_off.mean()),
        ms_per_query_batch=1000 * batch_seconds / len(queries),
        ms_per_query_single=1000 * float(np.median(single_seconds)),
    )


def _matching(index: SemanticIndex, labels: RecordLabels, where: Expression | str) -> RecordLabels:
    """Return the labels of the records that match a filter."""
    kept = np.flatnonzero(np.isin(labels.ids, index.matching(where)))
    if not len(kept):
        raise DataError(f"no record matches {shown(str(where))}: there is nothing to evaluate")
    return RecordLabels(
        labels.ids[kept], labels.labels[kept], None if labels.label_sets is None else labels.label_sets[kept]
    )


def _sets_given(labels: NDArray[np.int64] | LabelSets, classes: int, queries: int) -> LabelSets:
    """Read the labels of queries, one or several of each."""
    if not isinstance(labels, LabelSets):
        return LabelSets.single(integers_given("query_labels", labels, 0, classes - 1, (queries,)))
    integers_given("query_labels", labels.labels, 0, classes - 1)
    if len(labels) != queries:
        raise InvalidParameterError(f"query_labels are sets of {len(labels):,} queries, expected {queries:,}")
    return labels
