"""Rankings equal those of a simple implementation, record by record, and the results of an index."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.evaluation.metrics import average_precision, tied_average_precision
from semcut.connector.evaluation.rankings import RANKING_NAMES, _argsort, compare
from semcut.indexes import FaissIndex
from semcut.indexes.errors import DataError
from semcut.indexes.search.tie_order import mixed
from tests.connector.evaluation.conftest import CONFIG, CUTOFFS, KS, SHORTLIST
from tests.connector.evaluation.test_metrics import slow_average_precision


def sort_key(name, r, d, row, place):
    """Return the key by which a ranking sorts a record, from its R, distance, row, and place in the order of codes."""
    if name == "euclidean":
        return (d, row)
    if name == "relevance":
        return (-r, row)
    if name == "fused":
        return (-r * (1 - d / 2), row)
    return (0, d, row) if place < SHORTLIST else (1, place, row)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", [name for name in RANKING_NAMES if name != "hamming"])
def test_figures_equal_those_of_sorted_lists(name, cutoff, data, comparison):
    records, labels, queries, query_labels = data
    p_records, mixed_ids = records.probabilities, mixed(records.ids).tolist()
    at = RANKING_NAMES.index(name), CUTOFFS.index(cutoff)
    for query in range(len(queries)):
        r = [float(queries.probabilities[query].astype(float) @ p.astype(float)) for p in records.probabilities]
        d = [float(np.linalg.norm(queries.features[query].astype(float) - g)) for g in records.features]
        hamming = [int(np.bitwise_count(queries.codes[query] ^ code).sum()) for code in records.codes]
        edge = [
            max(edge for edge in (0.95, 0.8, 0.5, 0.3, 0) if p.max() >= np.float32(edge)) or 0.15 for p in p_records
        ]
        cell_relevance = [
            float(queries.probabilities[query, p.argmax()]) * e for p, e in zip(p_records, edge, strict=True)
        ]
        level = [int(s * (15 / (float(queries.probabilities[query].max()) * 0.95))) for s in cell_relevance]
        kept = sorted(
            (row for row in range(300) if r[row] > cutoff), key=lambda row: (hamming[row], -level[row], mixed_ids[row])
        )
        place = {row: i for i, row in enumerate(kept)}
        order = sorted(kept, key=lambda row: sort_key(name, r[row], d[row], row, place[row]))
        right = [bool(labels[row] == query_labels[query]) for row in order]
        total = int((labels == query_labels[query]).sum())
        assert comparison.at_all[at][query] == pytest.approx(slow_average_precision(right, total))
        for nth, k in enumerate(KS):
            assert comparison.at_k[at][query, nth] == pytest.approx(slow_average_precision(right[:k], min(k, total)))
            assert comparison.precision[at][query, nth] == pytest.approx(sum(right[:k]) / k)
        assert comparison.relevant[at[1], query] == pytest.approx(len(kept) / 300)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_hamming_counts_all_orders_of_ties(cutoff, data, comparison):
    records, labels, queries, query_labels = data
    total = np.bincount(labels)[query_labels]
    r = queries.probabilities.astype(float) @ records.probabilities.T.astype(float)
    at = 0, CUTOFFS.index(cutoff)
    for query in range(len(queries)):
        kept = np.flatnonzero(r[query] > cutoff)
        one = slice(query, query + 1)
        distances = [
            bin(int.from_bytes(a) ^ int.from_bytes(queries.codes[query])).count("1") for a in records.codes[kept]
        ]
        same = labels[kept] == query_labels[query]
        groups = [np.bincount(np.array(distances, np.int64)[rows], minlength=33)[None] for rows in (same, slice(None))]
        assert comparison.at_all[at][query] == pytest.approx(tied_average_precision(*groups, total[one])[0])
        for nth, k in enumerate(KS):
            expected = tied_average_precision(*groups, np.minimum(k, total[one]), k)[0]
            assert comparison.at_k[at][query, nth] == pytest.approx(expected)
            chance = 0.0  # probability of being among the first k, summed over right records
            for own, right in zip(distances, same, strict=True):
                before, tied = sum(other < own for other in distances), sum(other == own for other in distances)
                chance += bool(right) * min(1.0, max(0, k - before) / tied)
            assert comparison.precision[at][query, nth] == pytest.approx(chance / k)


def test_means_are_over_queries(comparison):
    for row in comparison.figures(15):
        at = RANKING_NAMES.index(row.ranking), CUTOFFS.index(row.cutoff)
        assert row.map_all == pytest.approx(comparison.at_all[at].mean())
        assert row.map_k == pytest.approx(comparison.at_k[at][:, 1].mean())
        assert row.precision_k == pytest.approx(comparison.precision[at][:, 1].mean())
        assert row.relevant == pytest.approx(comparison.relevant[at[1]].mean())
        assert row.scanned == pytest.approx(comparison.scanned[at[1]].mean())


def test_a_query_of_a_class_without_records_is_refused(data):
    records, labels, queries, query_labels = data
    with pytest.raises(DataError, match="3 of 20 queries have no record of their class"):
        compare(records, labels, queries, np.concatenate([[4] * 3, query_labels[3:]]), CONFIG, ks=(1,))


@pytest.mark.parametrize(("name", "ranking"), [("euclidean", "distance"), ("fused", "fused")])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_an_index_gives_the_same_figures(name, ranking, cutoff, data, comparison):
    records, labels, queries, query_labels = data
    index = FaissIndex.create(None, CONFIG)
    index.add(records)
    result = index.search(queries, k=300, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False)
    right = (result.ids >= 0) & (labels[result.ids] == query_labels[:, None])
    at = RANKING_NAMES.index(name), CUTOFFS.index(cutoff)
    total = np.bincount(labels)[query_labels]
    assert comparison.at_all[at] == pytest.approx(average_precision(right, total))
    assert comparison.scanned[at[1]].mean() == pytest.approx(result.codes.mean() / 300, rel=0.05)
    assert comparison.relevant[at[1]] == pytest.approx((result.ids >= 0).mean(axis=1))
    assert (comparison.relevant[at[1]] <= comparison.scanned[at[1]]).all()


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_fast_argsort_is_a_stable_argsort(scale):
    values = np.random.default_rng(1).integers(-9, 10, 1000).astype(np.float32) * np.float32(scale)
    values[::50] = -0.0  # as large as 0
    np.testing.assert_array_equal(_argsort(values), np.argsort(values, kind="stable"))


@pytest.mark.parametrize("pairs", [1, 700])
def test_the_number_of_queries_per_block_changes_nothing(pairs, data, comparison, monkeypatch):
    monkeypatch.setattr("semcut.connector.evaluation.rankings._PAIRS", pairs)
    reported = []
    again = compare(
        *data,
        CONFIG,
        ks=KS,
        shortlist=SHORTLIST,
        cutoffs=CUTOFFS,
        progress=lambda done, total: reported.append((done, total)),
    )
    assert reported[-1] == (20, 20)
    assert len(reported) >= 10
    for name in ("at_all", "at_k", "precision", "relevant", "scanned"):
        np.testing.assert_allclose(getattr(again, name), getattr(comparison, name), err_msg=name)
