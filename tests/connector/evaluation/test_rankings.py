"""Rankings against an obvious implementation, record by record; and against what an index answers."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.evaluation.metrics import average_precision, tied_average_precision
from semcut.connector.evaluation.rankings import NAMES, Comparison, _ascending, among_themselves, by_code, compare
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.errors import DataError
from semcut.indexes.search.tie_order import mixed
from tests.connector.evaluation.test_evaluate import encodings
from tests.connector.evaluation.test_metrics import slow_average_precision

CONFIG = IndexConfig(classes=4, bits=32, dim=8)
KS, SHORTLIST, CUTOFFS = (1, 15, 120, 400), 40, (0.0, 0.2, 0.6)  # few, more than are right, more than there are


@pytest.fixture(scope="module")
def world() -> tuple[Encodings, np.ndarray, Encodings, np.ndarray]:
    rng = np.random.default_rng(0)
    labels, query_labels = rng.integers(0, 4, 300), rng.integers(0, 4, 20)
    return encodings(rng, labels, ids=True), labels, encodings(rng, query_labels, ids=False), query_labels


@pytest.fixture(scope="module")
def found(world) -> Comparison:
    return compare(*world, CONFIG, ks=KS, shortlist=SHORTLIST, cutoffs=CUTOFFS)


def key(name, r, d, row, place):
    if name == "euclidean":
        return (d, row)
    if name == "relevance":
        return (-r, row)
    if name == "fused":
        return (-r * (1 - d / 2), row)
    return (0, d, row) if place < SHORTLIST else (1, place, row)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "hamming"])
def test_figures_are_those_of_lists(name, cutoff, world, found):
    records, labels, queries, query_labels = world
    p_records, mixed_ids = records.probabilities, mixed(records.ids).tolist()
    at = NAMES.index(name), CUTOFFS.index(cutoff)
    for query in range(len(queries)):
        r = [float(queries.probabilities[query].astype(float) @ p.astype(float)) for p in records.probabilities]
        d = [float(np.linalg.norm(queries.features[query].astype(float) - g)) for g in records.features]
        apart = [int(np.bitwise_count(queries.codes[query] ^ code).sum()) for code in records.codes]
        edge = [
            max(edge for edge in (0.95, 0.8, 0.5, 0.3, 0) if p.max() >= np.float32(edge)) or 0.15 for p in p_records
        ]
        sure = [float(queries.probabilities[query, p.argmax()]) * e for p, e in zip(p_records, edge, strict=True)]
        level = [int(s * (15 / (float(queries.probabilities[query].max()) * 0.95))) for s in sure]
        kept = sorted(
            (row for row in range(300) if r[row] > cutoff), key=lambda row: (apart[row], -level[row], mixed_ids[row])
        )
        place = {row: i for i, row in enumerate(kept)}
        order = sorted(kept, key=lambda row: key(name, r[row], d[row], row, place[row]))
        right = [bool(labels[row] == query_labels[query]) for row in order]
        total = int((labels == query_labels[query]).sum())
        assert found.at_all[at][query] == pytest.approx(slow_average_precision(right, total))
        for nth, k in enumerate(KS):
            assert found.at_k[at][query, nth] == pytest.approx(slow_average_precision(right[:k], min(k, total)))
            assert found.precision[at][query, nth] == pytest.approx(sum(right[:k]) / k)
        assert found.relevant[at[1], query] == pytest.approx(len(kept) / 300)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_hamming_counts_all_orders_of_ties(cutoff, world, found):
    records, labels, queries, query_labels = world
    total = np.bincount(labels)[query_labels]
    r = queries.probabilities.astype(float) @ records.probabilities.T.astype(float)
    at = 0, CUTOFFS.index(cutoff)
    for query in range(len(queries)):
        kept = np.flatnonzero(r[query] > cutoff)
        one = slice(query, query + 1)
        apart = [bin(int.from_bytes(a) ^ int.from_bytes(queries.codes[query])).count("1") for a in records.codes[kept]]
        same = labels[kept] == query_labels[query]
        groups = [np.bincount(np.array(apart, np.int64)[rows], minlength=33)[None] for rows in (same, slice(None))]
        assert found.at_all[at][query] == pytest.approx(tied_average_precision(*groups, total[one])[0])
        for nth, k in enumerate(KS):
            expected = tied_average_precision(*groups, np.minimum(k, total[one]), k)[0]
            assert found.at_k[at][query, nth] == pytest.approx(expected)
            chance = 0.0  # that a right record is among the first k, summed over them
            for mine, right in zip(apart, same, strict=True):
                before, tied = sum(other < mine for other in apart), sum(other == mine for other in apart)
                chance += bool(right) * min(1.0, max(0, k - before) / tied)
            assert found.precision[at][query, nth] == pytest.approx(chance / k)


def test_codes_alone_are_ranked_like_those_of_records(world, found):
    records, labels, queries, query_labels = world
    at_all, at_k = by_code(records.codes, labels, queries.codes, query_labels, ks=KS)
    assert at_all == pytest.approx(found.at_all[0, 0])
    assert at_k == pytest.approx(found.at_k[0, 0])


def test_means_are_over_queries(found):
    for row in found.figures(15):
        at = NAMES.index(row.ranking), CUTOFFS.index(row.cutoff)
        assert row.map_all == pytest.approx(found.at_all[at].mean())
        assert row.map_k == pytest.approx(found.at_k[at][:, 1].mean())
        assert row.precision_k == pytest.approx(found.precision[at][:, 1].mean())
        assert row.relevant == pytest.approx(found.relevant[at[1]].mean())
        assert row.scanned == pytest.approx(found.scanned[at[1]].mean())


def test_a_query_of_a_class_without_records_is_refused(world):
    records, labels, queries, query_labels = world
    with pytest.raises(DataError, match="3 of 20 queries have no record of their class"):
        compare(records, labels, queries, np.concatenate([[4] * 3, query_labels[3:]]), CONFIG, ks=(1,))


@pytest.mark.parametrize(("name", "ranking"), [("euclidean", "distance"), ("fused", "fused")])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_an_index_gives_the_same(name, ranking, cutoff, world, found):
    records, labels, queries, query_labels = world
    index = FaissIndex.create(None, CONFIG)
    index.add(records)
    result = index.search(queries, k=300, cutoff=cutoff, shortlist=None, ranking=ranking)
    right = (result.ids >= 0) & (labels[result.ids] == query_labels[:, None])
    at = NAMES.index(name), CUTOFFS.index(cutoff)
    total = np.bincount(labels)[query_labels]
    assert found.at_all[at] == pytest.approx(average_precision(right, total))
    assert found.scanned[at[1]].mean() == pytest.approx(result.codes.mean() / 300, rel=0.05)
    assert found.relevant[at[1]] == pytest.approx((result.ids >= 0).mean(axis=1))
    assert (found.relevant[at[1]] <= found.scanned[at[1]]).all()


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_values_are_sorted_like_by_a_stable_argsort(scale):
    values = np.random.default_rng(1).integers(-9, 10, 1000).astype(np.float32) * np.float32(scale)
    values[::50] = -0.0  # as large as 0
    np.testing.assert_array_equal(_ascending(values), np.argsort(values, kind="stable"))


@pytest.mark.parametrize("pairs", [1, 700])
def test_chunks_of_queries_make_no_difference(pairs, world, found, monkeypatch):
    monkeypatch.setattr("semcut.connector.evaluation.rankings._PAIRS", pairs)
    seen = []
    again = compare(
        *world, CONFIG, ks=KS, shortlist=SHORTLIST, cutoffs=CUTOFFS, progress=lambda done, of: seen.append((done, of))
    )
    assert seen[-1] == (20, 20)
    assert len(seen) >= 10
    for name in ("at_all", "at_k", "precision", "relevant", "scanned"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name), err_msg=name)


def test_records_among_themselves_are_as_queries_with_one_record_less(world):
    records, labels, _, _ = world
    labels = labels.copy()
    labels[7] = 4  # alone in its class
    found = among_themselves(records.codes, records.probabilities.astype(float), labels)
    rows = np.delete(np.arange(len(labels)), 7)
    precisions = []
    for row in rows:
        others = np.delete(np.arange(len(labels)), row)
        one = slice(row, row + 1)
        alone = compare(records[others], labels[others], records[one], labels[one], CONFIG, ks=(1,), cutoffs=(0.0,))
        precisions.append([alone.at_all[NAMES.index(name), 0, 0] for name in ("hamming", "relevance")])
    assert found == pytest.approx(np.mean(precisions, axis=0).tolist(), rel=1e-6)
    assert among_themselves(records.codes[:1], records.probabilities[:1].astype(float), labels[:1]) is None
