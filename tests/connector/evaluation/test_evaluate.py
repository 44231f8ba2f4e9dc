"""Figures of an evaluation equal those of slow, simple formulas on the results of searches."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.labels import RecordLabels
from semcut.connector.evaluation.evaluate import evaluate
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.errors import DataError, InvalidParameterError
from tests.connector.evaluation.conftest import encodings
from tests.connector.evaluation.test_metrics import slow_average_precision


@pytest.mark.parametrize("ranking", ["distance", "fused"])
@pytest.mark.parametrize("cutoff", [0.0, 0.3])
def test_figures_follow_from_the_results_of_searches(ranking: str, cutoff: float) -> None:
    rng = np.random.default_rng(1)
    record_labels, query_labels = rng.integers(0, 4, 300), rng.integers(0, 4, 30)
    record_labels[:10] = -1  # records of unknown class are never right
    index = FaissIndex.create(None, IndexConfig(classes=4, bits=32, dim=8))
    index.add(encodings(rng, np.maximum(record_labels, 0), ids=True))
    queries = encodings(rng, query_labels, ids=False)
    figures = evaluate(
        index, RecordLabels(np.arange(300), record_labels), queries, query_labels,
        ("a", "b", "c", "d"), k=7, cutoff=cutoff, shortlist=50,
        ranking=ranking,
    )  # fmt: skip

    def right(ids: np.ndarray, query: int) -> list[bool]:
        return [int(i) >= 0 and bool(record_labels[i] == query_labels[query]) for i in ids]

    totals = [int((record_labels == label).sum()) for label in query_labels]
    everything = index.search(queries, k=300, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False)
    short = index.search(queries, k=7, cutoff=cutoff, shortlist=50, ranking=ranking, fill=False)
    at_all = [slow_average_precision(right(everything.ids[q], q), totals[q]) for q in range(30)]
    at_k = [slow_average_precision(right(short.ids[q], q), min(7, totals[q])) for q in range(30)]
    precision = [sum(right(short.ids[q], q)) / 7 for q in range(30)]
    assert figures.overall.map_all == pytest.approx(np.mean(at_all))
    assert figures.overall.map_k == pytest.approx(np.mean(at_k))
    assert figures.overall.precision_k == pytest.approx(np.mean(precision))
    for label, name in enumerate("abcd"):
        rows = query_labels == label
        assert figures.per_class[name].queries == rows.sum()
        assert figures.per_class[name].map_all == pytest.approx(np.mean(np.array(at_all)[rows]))
    assert figures.codes_scanned == pytest.approx(short.codes.mean() / 300)
    assert figures.cells_scanned == pytest.approx(short.cells.mean() / index.stats().cells)
    assert 0 < figures.partitions_scanned <= 1
    if cutoff == 0:
        assert figures.codes_scanned == 1


def test_queries_without_a_record_of_their_class_are_left_out() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 20)
    index = FaissIndex.create(None, IndexConfig(classes=4, bits=32, dim=8))
    index.add(encodings(rng, labels, ids=True))
    query_labels = np.array([0, 1, 2, 3])
    queries = encodings(rng, query_labels, ids=False)
    figures = evaluate(index, RecordLabels(np.arange(40), labels), queries, query_labels, ("a", "b", "c", "d"))
    assert figures.overall.queries == 2
    assert set(figures.per_class) == {"a", "b"}
    with pytest.raises(DataError, match="do not match"):
        evaluate(index, RecordLabels(np.arange(40), np.full(40, -1)), queries, query_labels, ("a", "b", "c", "d"))


def test_several_labels_count_as_every_pair_that_shares_one() -> None:
    rng = np.random.default_rng(3)
    record_sets = [rng.permutation(4)[: rng.integers(0, 4)].tolist() for _ in range(200)]
    query_sets = [rng.permutation(4)[: rng.integers(0, 4)].tolist() for _ in range(30)]
    index = FaissIndex.create(None, IndexConfig(classes=4, bits=32, dim=8))
    index.add(encodings(rng, rng.integers(0, 4, 200), ids=True))
    queries = encodings(rng, rng.integers(0, 4, 30), ids=False)
    sets = LabelSets.of(record_sets)
    records = RecordLabels(np.arange(200), sets.first(), sets)
    classes = ("a", "b", "c", "d")
    figures = evaluate(index, records, queries, LabelSets.of(query_sets), classes, k=7, cutoff=0.1, shortlist=50)
    asked = [q for q in range(30) if query_sets[q]]  # each label has a record, so only queries without one are left out
    every = index.search(queries, k=200, cutoff=0.1, shortlist=None, fill=False)
    short = index.search(queries, k=7, cutoff=0.1, shortlist=50, fill=False)

    def right(ids: np.ndarray, query: int) -> list[bool]:
        return [int(i) >= 0 and bool(set(record_sets[i]) & set(query_sets[query])) for i in ids]

    totals = {q: sum(right(np.arange(200), q)) for q in asked}
    at_all = {q: slow_average_precision(right(every.ids[q], q), totals[q]) for q in asked}
    at_k = [slow_average_precision(right(short.ids[q], q), min(7, totals[q])) for q in asked]
    assert figures.overall.queries == len(asked)
    assert figures.overall.map_all == pytest.approx(np.mean(list(at_all.values())))
    assert figures.overall.map_k == pytest.approx(np.mean(at_k))
    assert figures.overall.precision_k == pytest.approx(np.mean([sum(right(short.ids[q], q)) / 7 for q in asked]))
    for label, name in enumerate(classes):
        of_class = [at_all[q] for q in asked if label in query_sets[q]]
        assert figures.per_class[name].queries == len(of_class)
        assert figures.per_class[name].map_all == pytest.approx(np.mean(of_class))


@pytest.mark.parametrize(
    ("sets", "reason"), [([[0], [1]], "sets of 2 queries, expected 3"), ([[0], [9], []], "query_labels")]
)
def test_label_sets_that_do_not_fit_are_refused(sets: list[list[int]], reason: str) -> None:
    rng = np.random.default_rng(4)
    index = FaissIndex.create(None, IndexConfig(classes=4, bits=32, dim=8))
    index.add(encodings(rng, np.array([0, 1]), ids=True))
    queries = encodings(rng, np.array([0, 1, 2]), ids=False)
    with pytest.raises(InvalidParameterError, match=reason):
        evaluate(index, RecordLabels(np.arange(2), np.array([0, 1])), queries, LabelSets.of(sets), ("a", "b"))
    with pytest.raises(InvalidParameterError, match="label_sets do not fit labels"):
        RecordLabels(np.arange(2), np.array([0, 1]), LabelSets.of([[1], [0]]))
