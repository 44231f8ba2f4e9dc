"""The rule for ties: results do not depend on the engine, the order of adding, compaction or earlier searches."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig, SearchResult, SemanticIndex
from semcut.indexes.pruning.cell_table import EDGES, edges_of
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scoring.equations import Similarity, hamming
from semcut.indexes.search.tie_order import LEVELS, first, in_order, levels, mixed
from semcut.indexes.search.tie_order_numba import mixed as mixed_by_kernel
from semcut.indexes.search.tie_order_numba import push, replace_top
from tests.indexes.generate import PROPERTY, World, assert_same, classified, worlds

ENGINES = ("compiled", "faiss", "torch", "flat")
RECORDS = 600


def random_codes() -> Encodings:
    """Return records with random codes, short enough for many records to have the same distance."""
    return classified(np.random.default_rng(0), IndexConfig(classes=6, bits=32, dim=8), RECORDS)


def collapsed_codes() -> Encodings:
    """Return records with only three different codes."""
    rng = np.random.default_rng(1)
    records = classified(rng, IndexConfig(classes=6, bits=32, dim=8), RECORDS)
    records.codes[:] = rng.integers(0, 256, (3, 4), np.uint8)[rng.integers(0, 3, RECORDS)]
    return records


def scanned_digits() -> Encodings:
    """Return scanned digits: probabilities by distance to the mean of a class; codes and features from pixels."""
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[:RECORDS] / 16, labels[:RECORDS]
    centres = np.stack([pixels[labels == label].mean(axis=0) for label in range(10)])
    away = np.linalg.norm(pixels[:, None] - centres[None], axis=2)
    powers = np.exp(-4 * (away - away.min(axis=1, keepdims=True)))
    return Encodings(
        probabilities=(powers / powers.sum(axis=1, keepdims=True)).astype(np.float32),
        codes=np.packbits(pixels[:, 16:48] > 0.5, axis=1),
        features=(pixels / np.linalg.norm(pixels, axis=1, keepdims=True)).astype(np.float32),
        ids=np.arange(RECORDS),
    )


DATA = {"random codes": random_codes, "collapsed codes": collapsed_codes, "scanned digits": scanned_digits}


@pytest.fixture(scope="module", params=DATA)
def records(request) -> Encodings:
    """Return records in order of their ids; no test changes them."""
    return DATA[request.param]()


@pytest.fixture(scope="module")
def answers(records) -> dict[str, list[SearchResult]]:
    """Return the results of brute force for all records, and for four fifths of them."""
    reference = BruteForceIndex(config_of(records))
    reference.add(records)
    everything = [reference.search(**search) for search in searches_of(records)]
    reference.remove(records.ids[::5])
    return {"all": everything, "left": [reference.search(**search) for search in searches_of(records)]}


def config_of(records: Encodings) -> IndexConfig:
    return IndexConfig(
        classes=records.probabilities.shape[1],
        bits=8 * records.codes.shape[1],
        dim=records.features.shape[1],
    )


def searches_of(records: Encodings) -> list[dict]:
    queries = records[::30]
    return [
        {"queries": queries, "k": k, "cutoff": cutoff, "shortlist": shortlist, "ranking": ranking}
        for k, shortlist, cutoff, ranking in (
            (10, 10, 0.2, "distance"), (10, 25, 0.2, "fused"), (5, 25, 0.0, "distance"), (40, 100, 0.05, "fused"),
        )
    ]  # fmt: skip


def assert_answers(index: SemanticIndex, queries: Encodings, answers: list[SearchResult]) -> None:
    for search, expected in zip(searches_of(queries), answers, strict=True):
        assert_same(index.search(**search), expected)


def orders(count: int) -> Iterator[np.ndarray]:
    """Yield the given order, the reverse order, and two random orders."""
    yield np.arange(count)
    yield np.arange(count)[::-1]
    for seed in (0, 1):
        yield np.random.default_rng(seed).permutation(count)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_order_of_adding_does_not_show(engine, records, answers):
    for order in orders(len(records)):
        with FaissIndex.create(None, config_of(records), engine=engine) as index:
            for part in np.array_split(order, 4):
                index.add(records[part])
            assert_answers(index, records, answers["all"])


def test_the_order_of_adding_does_not_show_in_brute_force_either(records, answers):
    for order in orders(len(records)):
        reference = BruteForceIndex(config_of(records))
        reference.add(records[order])
        assert_answers(reference, records, answers["all"])


@pytest.mark.parametrize("engine", ENGINES)
def test_opening_earlier_searches_removing_and_compacting_do_not_show(engine, records, answers, tmp_path):
    config, everything, left = config_of(records), answers["all"], answers["left"]
    with FaissIndex.create(tmp_path / "index", config, engine=engine) as index:
        index.add(records[::-1])
        assert_answers(index, records, everything)  # the arrays of a new index
    with FaissIndex.open(tmp_path / "index", engine=engine) as index:
        assert_answers(index, records, everything)  # rows that no search has compared with their checksums yet
        assert_answers(index, records, everything)  # and rows that were compared
        index.remove(records.ids[::5])
        assert_answers(index, records, left)
        index.compact()
        assert_answers(index, records, left)
        index.add(records[::5])
        assert_answers(index, records, everything)
    for other in ENGINES:
        with FaissIndex.open(tmp_path / "index", engine=other) as index:
            assert_answers(index, records, everything)


@PROPERTY
@given(world=worlds(), size=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_the_first_records_are_the_first_when_all_are_sorted(world: World, size: int, seed: int):
    """The two steps of `first` are compared with a full sort; some records are excluded."""
    records, queries = world.records, world.queries
    weights = Similarity(world.config).weights(queries.probabilities)
    own = weights[:, records.probabilities.argmax(axis=1)]
    edges = np.tile(edges_of(records.probabilities), (len(queries), 1))
    level = levels(weights, own, edges)
    apart = hamming(queries.codes[:, None], records.codes[None])
    ids = np.tile(records.ids, (len(queries), 1))
    among = np.random.default_rng(seed).random(apart.shape) < 0.7
    chosen = first(apart, level, ids, among, size)
    for query in range(len(queries)):
        there = np.flatnonzero(among[query])
        order = there[in_order(apart[query, there], level[query, there], records.ids[there])]
        assert np.flatnonzero(chosen[query]).tolist() == sorted(order[:size].tolist())


@PROPERTY
@given(world=worlds())
def test_levels_are_equal_steps_of_what_relevance_is_about_at_least(world: World):
    weights = Similarity(world.config).weights(world.queries.probabilities)
    probabilities = world.records.probabilities
    own = weights[:, probabilities.argmax(axis=1)]
    edges = np.tile(edges_of(probabilities), (len(weights), 1))
    level = levels(weights, own, edges)
    assert level.min() >= 0
    assert level.max() < LEVELS
    with np.errstate(invalid="ignore"):  # a similarity of 0 everywhere gives weights of 0
        share = own * edges / (weights.max(axis=1, keepdims=True) * EDGES[0])
    visible = weights.max(axis=1) > 1e-290
    assert (np.abs(level - (LEVELS - 1) * share)[visible] < 1 + 1e-9).all()
    assert ((LEVELS - 1) * share - level > -1e-9)[visible].all()


@PROPERTY
@given(world=worlds())
def test_edges_of_cells_are_those_of_their_records(world: World):
    cells, at = Cells.empty(world.config).extended(world.records.probabilities)
    np.testing.assert_array_equal(cells.edges[at], edges_of(world.records.probabilities))


def test_an_edge_is_the_lower_end_of_its_interval_and_in_the_last_one_its_middle():
    p1 = np.array([1, 0.95, 0.94, 0.8, 0.79, 0.5, 0.49, 0.3, 0.29, 0.1], np.float32)
    rest = np.tile((1 - p1[:, None]) / 10, (1, 10))
    edges = edges_of(np.hstack([p1[:, None], rest]).astype(np.float32))
    assert edges.tolist() == [0.95, 0.95, 0.8, 0.8, 0.5, 0.5, 0.3, 0.3, 0.15, 0.15]


def test_records_that_are_surer_to_be_relevant_come_first_among_those_of_one_distance():
    p = np.array([[0.96, 0.04], [0.81, 0.19], [0.55, 0.45], [0.45, 0.55], [0.04, 0.96]], np.float32)
    index = BruteForceIndex(IndexConfig(classes=2, bits=32, dim=1))
    index.add(
        Encodings(probabilities=p, codes=np.zeros((5, 4), np.uint8), features=np.ones((5, 1)), ids=[7, 3, 5, 1, 0])
    )
    query = Encodings(probabilities=p[:1], codes=np.zeros((1, 4), np.uint8), features=np.ones((1, 1)))
    for count in range(1, 6):
        found = index.search(query, k=count, cutoff=0.0, shortlist=count).ids[0]
        assert set(found.tolist()) == {7, 3, 5, 1, 0} - set([0, 1, 5, 3, 7][: 5 - count])


def test_mixing_is_one_to_one_and_looks_random():
    ids = np.unique(np.concatenate([np.arange(50_000), 2**63 - 1 - np.arange(50_000), 2 ** np.arange(63)]))
    values = mixed(ids)
    assert len(np.unique(values)) == len(ids)
    assert mixed(np.array([0], np.int64))[0] == 0xE220A8397B1DCDAF  # SplitMix64's first number for the seed 0
    for bit in range(64):
        assert abs((values[:50_000] >> np.uint64(bit) & np.uint64(1)).mean() - 0.5) < 0.02


@numba.njit
def _smallest(ids: np.ndarray, keys: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    count = 0
    for place in range(ids.shape[0]):
        key = mixed_by_kernel(ids[place])
        out[place] = key
        if count < keys.shape[0]:
            push(keys, places, count, key, place)
            count += 1
        elif key < keys[0]:
            replace_top(keys, places, count, key, place)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 500])
def test_the_heap_of_kernels_keeps_the_smallest(size):
    ids = np.concatenate([np.arange(300), 2**63 - 1 - np.arange(200)])
    keys, places, out = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(500, np.uint64)
    _smallest(ids, keys, places, out)
    np.testing.assert_array_equal(out, mixed(ids))
    assert sorted(places.tolist()) == sorted(np.argsort(out)[:size].tolist())
