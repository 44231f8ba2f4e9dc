"""Rankings against an obvious implementation, record by record; and against what an index answers."""

from __future__ import annotations

import numpy as np
import pytest

from connector.metrics import average_precision, tied_average_precision
from connector.rankings import NAMES, compare
from indexes import Encodings, FaissIndex, IndexConfig
from tests.connector.test_evaluate import encodings
from tests.connector.test_metrics import slow_average_precision

CONFIG = IndexConfig(classes=4, bits=32, dim=8)
K, SHORTLIST, CUTOFFS = 15, 40, (0.0, 0.2, 0.6)


@pytest.fixture(scope="module")
def world() -> tuple[Encodings, np.ndarray, Encodings, np.ndarray]:
    rng = np.random.default_rng(0)
    labels, query_labels = rng.integers(0, 4, 300), rng.integers(0, 4, 20)
    return encodings(rng, labels, ids=True), labels, encodings(rng, query_labels, ids=False), query_labels


@pytest.fixture(scope="module")
def found(world):
    rows = compare(*world, CONFIG, k=K, shortlist=SHORTLIST, cutoffs=CUTOFFS)
    return {(row.ranking, row.cutoff): row for row in rows}


def key(name, r, d, apart, row, place):
    if name == "euclidean":
        return (d, row)
    if name == "relevance":
        return (-r, row)
    if name == "fused":
        return (-r * (1 - d / 2), row)
    return (0, d, row) if place < SHORTLIST else (1, apart, row)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "hamming"])
def test_figures_are_those_of_lists(name, cutoff, world, found):
    records, labels, queries, query_labels = world
    at_all, at_k, precision = [], [], []
    for query in range(len(queries)):
        r = [float(queries.probabilities[query].astype(float) @ p.astype(float)) for p in records.probabilities]
        d = [float(np.linalg.norm(queries.features[query].astype(float) - g)) for g in records.features]
        apart = [int(np.bitwise_count(queries.codes[query] ^ code).sum()) for code in records.codes]
        kept = sorted((row for row in range(300) if r[row] > cutoff), key=lambda row: (apart[row], row))
        place = {row: i for i, row in enumerate(kept)}
        order = sorted(kept, key=lambda row: key(name, r[row], d[row], apart[row], row, place[row]))
        right = [bool(labels[row] == query_labels[query]) for row in order]
        total = int((labels == query_labels[query]).sum())
        at_all.append(slow_average_precision(right, total))
        at_k.append(slow_average_precision(right[:K], min(K, total)))
        precision.append(sum(right[:K]) / K)
    row = found[name, cutoff]
    assert row.map_all == pytest.approx(np.mean(at_all))
    assert row.map_k == pytest.approx(np.mean(at_k))
    assert row.precision_k == pytest.approx(np.mean(precision))


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_hamming_counts_all_orders_of_ties(cutoff, world, found):
    records, labels, queries, query_labels = world
    total = np.bincount(labels)[query_labels]
    r = queries.probabilities.astype(float) @ records.probabilities.T.astype(float)
    parts = []
    for query in range(len(queries)):
        kept = np.flatnonzero(r[query] > cutoff)
        one = slice(query, query + 1)
        apart = [bin(int.from_bytes(a) ^ int.from_bytes(queries.codes[query])).count("1") for a in records.codes[kept]]
        same = labels[kept] == query_labels[query]
        groups = [np.bincount(np.array(apart, np.int64)[rows], minlength=33)[None] for rows in (same, slice(None))]
        parts.append(
            [
                tied_average_precision(*groups, total[one])[0],
                tied_average_precision(*groups, np.minimum(K, total[one]), K)[0],
            ]
        )
    row = found["hamming", cutoff]
    assert [row.map_all, row.map_k] == pytest.approx(np.mean(parts, axis=0))


@pytest.mark.parametrize(("name", "ranking"), [("euclidean", "distance"), ("fused", "fused")])
@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_an_index_gives_the_same(name, ranking, cutoff, world, found):
    records, labels, queries, query_labels = world
    index = FaissIndex.create(None, CONFIG)
    index.add(records)
    result = index.search(queries, k=300, cutoff=cutoff, shortlist=None, ranking=ranking)
    right = (result.ids >= 0) & (labels[result.ids] == query_labels[:, None])
    row = found[name, cutoff]
    assert row.map_all == pytest.approx(average_precision(right, np.bincount(labels)[query_labels]).mean())
    assert row.scanned == pytest.approx(result.codes.mean() / 300, rel=0.05)
    assert row.relevant == pytest.approx((result.ids >= 0).mean())
    assert row.relevant <= row.scanned <= 1


def test_chunks_of_queries_make_no_difference(world, found, monkeypatch):
    monkeypatch.setattr("connector.rankings._PAIRS", 700)
    seen = []
    again = compare(
        *world, CONFIG, k=K, shortlist=SHORTLIST, cutoffs=CUTOFFS, progress=lambda done, of: seen.append((done, of))
    )
    assert seen[-1] == (20, 20)
    assert len(seen) == 10
    for row in again:
        assert vars(row) == pytest.approx(vars(found[row.ranking, row.cutoff]))
