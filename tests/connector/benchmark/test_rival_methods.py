"""Test the methods that see what semcut sees, or that are of other libraries: are they as good as they can be?"""

from __future__ import annotations

import sys

import faiss
import numpy as np
import pytest

from semcut.connector.benchmark.methods import argmax_lists, faiss_methods, grids, joined_graph
from semcut.connector.benchmark.methods.argmax_lists import ArgmaxLists
from semcut.indexes.errors import MissingDependencyError
from semcut.indexes.scoring.equations import hamming
from tests.connector.benchmark.conftest import RECORDS
from tests.connector.benchmark.synthetic import encodings

K = 10


def of(seed, rows, *, classes):
    return encodings(rows, seed=seed, classes=classes)[0]


def nearest_in_classes(query, records, lists):
    """Return the distances of the nearest records in the query's likeliest classes, by definition."""
    likeliest = np.argsort(-query.probabilities[0])[:lists]
    found = np.isin(records.probabilities.argmax(axis=1), likeliest)
    return np.sort(np.linalg.norm(records.features[found] - query.features[0], axis=1))[:K]


@pytest.mark.parametrize("lists", [1, 3])
@pytest.mark.parametrize("classes", [4, 40, 700])  # many queries per list; few; and lists that are empty
def test_lists_are_scanned_exactly_by_one_query_and_by_batches(classes, lists):
    records, queries = of(0, 1500, classes=classes), of(1, 60, classes=classes)
    index = ArgmaxLists(records.features, records.probabilities.argmax(axis=1), classes)
    index.lists = lists
    batches = [queries, queries[:9], *(queries[i : i + 1] for i in range(len(queries)))]
    for batch in batches:
        nothing, ids = index.search(batch, K)
        assert nothing is None
        assert ids.dtype == np.int64
        assert ids.shape == (len(batch), K)
        for i, row in enumerate(ids):
            found = row[row >= 0]
            expected = nearest_in_classes(batch[i : i + 1], records, lists)
            d = np.linalg.norm(records.features[found] - batch.features[i], axis=1)
            np.testing.assert_allclose(d, expected, atol=1e-3)  # squared distances are expanded into products
            assert (row[len(found) :] == -1).all()


def test_every_way_to_scan_lists_is_taken():
    records, queries = of(0, 500, classes=4), of(1, 60, classes=4)
    index = ArgmaxLists(records.features, records.probabilities.argmax(axis=1), 4)
    ways = [index._search_few, index._search_many]
    chosen = queries.probabilities.argmax(axis=1)[:, None]
    few, many = (way(queries.features, chosen, K) for way in ways)
    np.testing.assert_array_equal(few, many)
    np.testing.assert_array_equal(index.search(queries, K)[1], many)
    assert chosen.size > argmax_lists._FEW * 4


def test_a_joined_vector_is_the_feature_and_the_roots_of_the_probabilities():
    records = of(0, 50, classes=9)
    joined = joined_graph.join(records)
    assert joined.shape == (50, records.features.shape[1] + 9)
    assert joined.dtype == np.float32
    squared = ((joined[:1] - joined[1:]) ** 2).sum(axis=1)
    features = ((records.features[:1] - records.features[1:]) ** 2).sum(axis=1)
    coefficient = np.sqrt(records.probabilities[:1] * records.probabilities[1:]).sum(axis=1)
    np.testing.assert_allclose(squared, features + 2 - 2 * coefficient, atol=1e-5)
    np.testing.assert_array_equal(joined_graph.join(records, width=9), joined)


def test_projected_roots_keep_distances_nearly():
    records = of(0, 300, classes=600)
    joined, projected = joined_graph.join(records), joined_graph.join(records, width=128)
    assert projected.shape == (300, records.features.shape[1] + 128)
    true, kept = (((part[:150] - part[150:]) ** 2).sum(axis=1) for part in (joined, projected))
    assert np.corrcoef(true, kept)[0, 1] > 0.9
    assert abs(kept.mean() / true.mean() - 1) < 0.05


def test_a_joined_graph_holds_each_vector_once_and_finds_the_nearest(dataset, data, monkeypatch):
    monkeypatch.setattr(joined_graph, "_RECORDS_PER_BATCH", 700)
    built, _, reading = joined_graph.build(data)
    assert reading > 0
    records = joined_graph.join(dataset.index.get(np.arange(RECORDS)))
    np.testing.assert_array_equal(built.reconstruct_n(0, RECORDS), records)
    assert (built.hnsw.efConstruction, built.hnsw.nb_neighbors(1)) == (80, 16)
    queries = joined_graph.join(dataset.queries.get(np.arange(40)))
    built.hnsw.efSearch = 256
    found, expected = built.search(queries, K)[1], faiss.knn(queries, records, K)[1]
    assert np.mean([len(np.intersect1d(*rows)) for rows in zip(found, expected, strict=True)]) > 0.98 * K


def test_a_vector_of_faiss_keeps_its_memory_when_it_shrinks():
    """So the storage of a joined graph, which is asked for once, does not grow and is not copied batch by batch."""

    def address():
        return faiss.rev_swig_ptr(storage.codes.data(), 1).ctypes.data

    index = faiss.IndexHNSWFlat(50, 16)
    storage = faiss.downcast_index(index.storage)
    storage.codes.resize(5000 * 200)
    before = address()
    storage.codes.resize(0)
    for _ in range(10):
        index.add(np.random.default_rng(0).random((500, 50), dtype=np.float32))
        assert address() == before


def recall(structure, dataset, data, method):
    structure.build(data)
    queries = dataset.queries.get(np.arange(40))
    found = structure.methods()[method].search(queries, K)
    structure.close()
    expected = faiss.knn(queries.features, data.features, K)[1]
    return np.mean([len(np.intersect1d(*rows)) for rows in zip(found, expected, strict=True)]) / K


@pytest.mark.parametrize("name", ["usearch f16 l2sq", "usearch f16 ip", "usearch i8 l2sq", "usearch i8 ip"])
def test_usearch_finds_the_nearest_features(name, dataset, data):
    pytest.importorskip("usearch", reason="usearch is not installed (extra `rivals`)")
    assert recall(grids.structures("full", [name])[0], dataset, data, -1) > (0.98 if "f16" in name else 0.9)


def test_usearch_finds_the_codes_that_an_exhaustive_search_finds(dataset, data):
    pytest.importorskip("usearch", reason="usearch is not installed (extra `rivals`)")
    queries = dataset.queries.get(np.arange(40))
    flat, graph = (grids.structures("quick", [name])[0] for name in ("IndexBinaryFlat", "usearch b1"))
    distances = []
    for structure in (flat, graph):
        structure.build(data)
        ids = structure.methods()[-2].search(queries, K)
        distances.append(hamming(queries.codes[:, None], data.codes[ids]))
        assert structure.methods()[-1].reranks
        structure.close()
    assert (distances[0] == distances[1]).mean() > 0.95


@pytest.mark.parametrize("name", ["IVF 4 bits", "IVF raw", "HNSW 8 bits", "SymphonyQG"])
def test_rabitqlib_finds_the_nearest_features(name, dataset, data):
    pytest.importorskip("rabitqlib", reason="rabitqlib is not installed (extra `rivals`)")
    least = {"IVF 4 bits": 0.8, "IVF raw": 0.98, "HNSW 8 bits": 0.95, "SymphonyQG": 0.95}
    assert recall(grids.structures("full", [f"rabitqlib {name}"])[0], dataset, data, -1) > least[name]


def test_methods_of_a_library_that_is_not_installed_are_left_out_by_name(monkeypatch):
    for library in grids.LIBRARIES:
        monkeypatch.setitem(sys.modules, library, None)  # Python's own way to make an import fail
    lines = grids.left_out("quick")
    assert [line.split(": ")[2].split(";")[0] for line in lines] == [
        "usearch is not installed", "rabitqlib is not installed",
    ]  # fmt: skip
    assert "usearch f16 l2sq, usearch i8 l2sq, " in lines[0]
    assert "rabitqlib IVF 4 bits" in lines[1]
    assert "pip install 'semcut[rivals]'" in lines[0]
    assert grids.left_out("quick", ["semcut", "usearch"]) == lines[:1]
    assert grids.left_out("growth") == []
    assert not [one.name for one in grids.structures("quick") if one.name.startswith(grids.LIBRARIES)]
    with pytest.raises(
        MissingDependencyError, match=r"usearch not installed, needed for the methods usearch b1 hamming"
    ):
        grids.structures("quick", ["usearch b1"])


def test_few_classes_need_no_projected_graph():
    def names(**given):
        return [one.name for one in grids.structures("full", **given)]

    assert {faiss_methods.JOINED, faiss_methods.PROJECTED} <= set(names())
    assert faiss_methods.PROJECTED in names(classes=129)
    assert faiss_methods.PROJECTED not in names(classes=128)
    assert names(only=[faiss_methods.PROJECTED], classes=10) == [faiss_methods.PROJECTED]
