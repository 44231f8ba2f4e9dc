from __future__ import annotations

import time

import faiss
import numpy as np
import pytest

from semcut.connector.benchmark.measure.process_memory import MemoryGrowth
from semcut.connector.benchmark.methods import faiss_methods, semcut_methods
from semcut.connector.benchmark.methods.exact_rerank import rerank
from semcut.connector.benchmark.methods.grids import structures
from semcut.connector.benchmark.methods.semcut_methods import Semcut
from semcut.connector.benchmark.methods.structures import Data
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.scoring.equations import distance, hamming
from tests.connector.benchmark.conftest import RECORDS

STRUCTURES = [one for one in structures("full") if not isinstance(one, Semcut)]


@pytest.fixture(params=STRUCTURES, ids=lambda structure: structure.name)
def built(request, data):
    structure = request.param
    seconds = structure.build(data)
    assert 0 < seconds < 60
    yield structure
    structure.close()


def first_queries(dataset, rows=40):
    return dataset.queries.get(np.arange(rows))


def test_every_method_gives_valid_ids_and_a_rerank_orders_them_by_distance(built, dataset, data):
    queries = first_queries(dataset)
    methods = built.methods()
    assert len({method.name for method in methods}) == len(methods)
    for method in methods:
        for part in (queries, queries[:1]):
            ids = method.search(part, 10)
            assert ids.shape == (len(part), 10)
            assert ids.dtype == np.int64
            assert ids.min() >= -1
            assert ids.max() < RECORDS
            for row in ids:
                found = row[row >= 0]
                assert len(np.unique(found)) == len(found)
                assert (row[len(found) :] == -1).all()
        if method.reranks:
            ids = method.search(queries, 10)
            d = np.where(ids < 0, 9, distance(queries.features[:, None], data.features[ids]))
            assert (np.diff(d, axis=1) >= -1e-5).all()
    assert built.bytes() > 0


def test_records_are_by_id_in_whatever_order_they_are_stored(dataset, data, tmp_path):
    by_id = dataset.index.get(np.arange(RECORDS))
    np.testing.assert_array_equal(data.codes, by_id.codes)
    np.testing.assert_array_equal(data.features, by_id.features)
    config = IndexConfig(**{**data.config.model_dump(), "stored_features": "float32"})
    index, queries = FaissIndex.create(tmp_path / "index", config), first_queries(dataset)
    index.add(by_id)
    mapped = Data.of(index, tmp_path / "index", mapped=True)
    assert mapped.ids is not None
    assert (mapped.ids != np.arange(RECORDS)).any()
    assert mapped.ids_of(np.array([[-1, 0]])).tolist() == [[-1, mapped.ids[0]]]
    found = []
    for records in (data, mapped):
        structure = faiss_methods.flat_with_rerank()
        structure.build(records)
        found.append([method.search(queries, RECORDS) for method in structure.methods()][1])
        structure.close()
    distances = [distance(queries.features[:, None], data.features[ids]) for ids in found]
    assert (np.diff(distances[1][:, :100], axis=1) >= -1e-5).all()
    index.close()
    shared = [len(np.intersect1d(*rows)) for rows in zip(*found, strict=True)]
    assert min(shared) > 80  # a shortlist may hold any of the records at its last Hamming distance


@pytest.mark.parametrize("name", ["IndexBinaryFlat", "IndexFlatL2"])
def test_a_flat_index_is_exact_and_so_is_its_ranking_of_all_records(name, dataset, data):
    structure = next(one for one in STRUCTURES if one.name == name)
    structure.build(data)
    method, queries = structure.methods()[0], first_queries(dataset, 10)
    binary = "Binary" in name
    every = np.stack(
        [
            hamming(query[None], data.codes) if binary else distance(query[None], data.features)
            for query in (queries.codes if binary else queries.features)
        ]
    ).astype(np.float64)
    ids = method.search(queries, 10)
    np.testing.assert_allclose(
        np.take_along_axis(every, ids, 1), np.sort(every, axis=1)[:, :10], atol=1e-4
    )  # FAISS expands squared distances into products
    assert method.rank_all is not None
    ranking = method.rank_all(queries)
    assert (np.sort(ranking, axis=1) == np.arange(RECORDS)).all()
    assert (np.diff(np.take_along_axis(every, ranking, 1), axis=1) >= -1e-6).all()
    structure.close()


@pytest.mark.parametrize("k", [1, 5, 40, 60])
def test_rerank_is_brute_force_over_the_shortlist_with_ties_by_row(k):
    rng = np.random.default_rng(k)
    features = rng.integers(-1, 2, (300, 3)).astype(np.float32)  # many equal distances, all exact
    queries = rng.integers(-1, 2, (30, 3)).astype(np.float32)
    rows = np.stack([rng.permutation(300)[:40] for _ in queries])
    rows[rng.random(rows.shape) < 0.2] = -1
    rows[0] = -1
    found = rerank(queries, features, rows, k)
    for query, shortlist, result in zip(queries, rows, found, strict=True):
        ordered = sorted((float(((query - features[row]) ** 2).sum()), row) for row in shortlist if row >= 0)
        expected = [row for _, row in ordered[:k]]
        assert result.tolist() == expected + [-1] * (k - len(expected))


@pytest.mark.parametrize("engine", available_engines())
def test_semcuts_methods_are_searches_of_one_index_and_count_their_steps(engine, dataset, data):
    structure = Semcut(engine)
    structure.build(data)
    queries, methods = first_queries(dataset), structure.methods()
    other = FaissIndex.open(data.path, engine=engine)
    assert len(methods) == len(semcut_methods.CUTOFFS) * len(semcut_methods.SHORTLISTS) * len(semcut_methods.RANKINGS)
    for method in methods:
        k = method.parameters["shortlist"] or 10
        ids, expected = method.search(queries, k), other.search(queries, k=k, fill=False, **method.parameters)
        if method.parameters["shortlist"] is None:
            np.testing.assert_array_equal(ids, expected.ids)
        else:  # a shortlist may hold either of two records at its last Hamming distance
            h = np.where(ids < 0, -1, hamming(queries.codes[:, None], data.codes[ids]))
            np.testing.assert_array_equal(np.sort(h, axis=1), np.sort(expected.hamming, axis=1))
        assert method.count_steps is not None
        np.testing.assert_array_equal(method.count_steps(queries, k)["codes"], expected.codes)
    other.close()
    assert structure.bytes() > RECORDS * (8 + 4 * 24 + 4 * 12)
    structure.close()


def test_a_stored_structure_is_built_on_the_disk_and_leaves_nothing_there(dataset, data):
    before = sorted(data.path.parent.iterdir())
    structure = Semcut("auto", cutoffs=(0.2,), shortlists=(None,), rankings=("distance",), stored=True)
    assert structure.build(data) > 0
    queries = first_queries(dataset)
    expected = dataset.index.search(queries, k=10, cutoff=0.2, shortlist=None, fill=False).ids
    np.testing.assert_array_equal(structure.methods()[0].search(queries, 10), expected)
    structure.close()
    assert sorted(data.path.parent.iterdir()) == before


def test_methods_on_a_gpu_exist_only_if_there_is_one():
    assert bool(faiss_methods.gpu_indexes()) == (faiss.get_num_gpus() > 0)


def test_memory_growth_measures_the_end_and_the_peak():
    with MemoryGrowth() as memory:
        kept = np.ones(8_000_000)
        released = np.ones(8_000_000)
        end = time.monotonic() + 30
        while memory._most - memory._start < 120e6 and time.monotonic() < end:  # until a sample is taken
            time.sleep(0.002)
        del released
    assert 60e6 < memory.grown < 100e6
    assert memory.peak > 120e6
    assert kept.sum() == 8_000_000
