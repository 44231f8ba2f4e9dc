"""`MilvusIndex`, `FaissIndex` and `BruteForceIndex` give the same answers to the same calls, bit for bit."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    near_duplicates,
    search_tuning,
)
from semcut.indexes.milvus import MilvusIndex, connection, consistent_search, reader, schema, server_scanner
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import (
    RANKED,
    World,
    assert_same,
    assert_same_records,
    assert_shortlist,
    classified,
    each,
    encodings,
    filled,
    threads,
)
from tests.indexes.milvus.pool import CONFIGS, FEW_EXAMPLES, Backend, assert_holds, small_worlds
from tests.indexes.overrides import override
from tests.thorough import examples

pytestmark = pytest.mark.milvus

TUNING = {
    (consistent_search, "QUERIES_PER_CHUNK"): [1, 2],
    (reader, "IDS_PER_FILTER"): [1, 5],
    (server_scanner, "_GROUP_WIDENING"): [1, 100],
    (server_scanner, "_GROUP_QUERIES"): [1, 2],
    (server_scanner, "_ALL_CELLS"): [0, 2],
    (server_scanner.ServerScanner, "deepest"): [2],
    (schema, "_CALL_BYTES"): [1],
    (connection, "PAGE"): [3, 16],
    (search_tuning.TUNING, "chunk_elements"): [1, 50],
    (search_tuning.TUNING, "rather_all"): [0, 1],
    (search_tuning.TUNING, "first_scan"): [1],
    (search_tuning.TUNING, "deeper"): [2],
}
tunings = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in TUNING.items()})


@contextmanager
def tuned(tuning: dict):
    """Lower the limits on numbers of records or queries for the block, so that small data exceeds them."""
    with pytest.MonkeyPatch.context() as patch, threads(1):
        for (owner, name), value in tuning.items():
            override(patch, owner, name, value)
        yield


@contextmanager
def in_each_index(backend: Backend, world: World, **options):
    """Yield the records of the world in each kind of index: Milvus, FAISS, brute force."""
    name = backend.take(world.config)
    (index,) = backend.clients(name, **options)
    try:
        with (
            FaissIndex.create(None, world.config, engine="faiss") as faiss,  # it prunes as Milvus does
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(
                server_scanner.ServerScanner, "patience", math.inf
            )  # decide all ties by the rule, for any number of records at one distance
            yield filled(index, world.batches), filled(faiss, world.batches), world.brute_force()
    finally:
        index.close()
        backend.give_back(name)


def assert_as_pruned(found, expected) -> None:
    """Check that as many cells were scanned and as many records cut off; codes are not counted."""
    for counted in ("partitions", "cells", "cut_off"):
        np.testing.assert_array_equal(getattr(found, counted), getattr(expected, counted), err_msg=counted, strict=True)
    assert (found.codes == -1).all()


@settings(FEW_EXAMPLES, max_examples=examples(14))
@given(world=small_worlds(), tuning=tunings, data=st.data())
def test_the_same_records_give_the_same_answers(backend, world, tuning, data):
    count = len(world.records)
    with tuned(tuning), in_each_index(backend, world) as (index, faiss, reference):
        assert_holds(index, reference)
        assert index.stats().cells == faiss.stats().cells
        for cutoff, ranking in list(each(world))[:3]:
            k = data.draw(st.sampled_from([1, 3, max(1, count), count + 3]))
            arguments = {"k": k, "cutoff": cutoff, "shortlist": None, "ranking": ranking, "fill": False}
            found, expected = index.search(world.queries, **arguments), reference.search(world.queries, **arguments)
            assert_same(found, expected)
            same = faiss.search(world.queries, **arguments)
            assert_same(found, same)
            if count:
                assert_as_pruned(found, same)
            size = data.draw(st.sampled_from([k, k + 1, 2 * k + 5]))
            result = index.search(world.queries, **{**arguments, "shortlist": size})
            assert_shortlist(result, world, k=k, cutoff=cutoff, shortlist=size, ranking=ranking)
            if size >= count:
                assert_same(result, expected)
            arguments |= {"cutoff": data.draw(st.sampled_from([cutoff, None])), "shortlist": size, "fill": True}
            found, expected = index.search(world.queries, **arguments), reference.search(world.queries, **arguments)
            assert_same(found, expected)
            np.testing.assert_array_equal(found.filled, expected.filled)
            assert np.count_nonzero(found.ids >= 0) == len(world.queries) * min(k, count)


def test_a_large_batch_of_queries_gets_the_answers_of_brute_force(backend):
    world = _plain(CONFIGS[1], 90, 270)
    with in_each_index(backend, world) as (index, faiss, reference):
        arguments = {"k": 5, "cutoff": 0.3, "ranking": "fused"}
        queries = world.queries[:20]
        found = index.search(queries, shortlist=None, **arguments)
        assert_same(found, reference.search(queries, shortlist=None, **arguments))
        assert_as_pruned(found, faiss.search(queries, shortlist=None, **arguments))
        assert_same(
            index.search(world.queries, shortlist=90, **arguments),
            reference.search(world.queries, shortlist=None, **arguments),
        )
        result = index.search(world.queries, shortlist=9, fill=False, **arguments)
        assert_shortlist(result, world, k=5, cutoff=0.3, shortlist=9, ranking="fused")


def test_a_query_gets_the_same_answer_alone_as_in_a_batch(backend):
    world = _plain(CONFIGS[1], 60, 12)
    with in_each_index(backend, world) as (index, _, _):
        together = index.search(world.queries, k=60, cutoff=0.1, shortlist=60)
        for query in range(12):
            alone = index.search(world.queries[[query]], k=60, cutoff=0.1, shortlist=60)
            assert_same(alone, together.in_order(np.array([query])))


def test_searches_from_several_threads_at_once_give_what_they_give_alone(backend):
    world = _plain(CONFIGS[1], 80, 12)
    calls = [
        {"queries": world.queries[start:stop], "k": 5, "cutoff": cutoff, "shortlist": shortlist}
        for start, stop in ((0, 1), (1, 12))
        for cutoff in (0.05, 0.3)
        for shortlist in (None, 80)
    ]
    with in_each_index(backend, world) as (index, _, reference), ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda call: index.search(**call), 2 * calls))
        for one, call in zip(found, 2 * calls, strict=True):
            assert_same(one, reference.search(**call))


def test_relevant_records_with_far_codes_are_found_however_many_irrelevant_ones_are_nearer(backend):
    rng = np.random.default_rng(3)
    config = CONFIGS[0]
    rows = 400
    p = np.tile(np.array([0.56, 0.40, 0.04], np.float32), (rows, 1))
    p[::50] = [0.56, 0.04, 0.40]
    codes = rng.integers(0, 256, (rows, 4), np.uint8) & rng.integers(0, 256, (rows, 4), np.uint8)
    codes[::50] = ~codes[::50]
    records = Encodings(probabilities=p, codes=codes, features=np.ones((rows, 1)), ids=np.arange(rows))
    queries = Encodings(
        probabilities=np.array([[0, 0, 1]] * 3, np.float32), codes=np.zeros((3, 4), np.uint8), features=np.ones((3, 1))
    )
    world = World(config=config, batches=[records], queries=queries, normalised=True, seed=0)
    with in_each_index(backend, world) as (index, _, _):
        for tuning in ({}, {(search_tuning.TUNING, "rather_all"): 0, (search_tuning.TUNING, "deeper"): 2}):
            with tuned(tuning):
                for n in (1, 4, 8, 20):
                    result = index.search(world.queries, k=n, cutoff=0.1, shortlist=n, fill=False)
                    assert ((result.ids >= 0).sum(axis=1) == min(n, 8)).all()
                    assert_shortlist(result, world, k=n, cutoff=0.1, shortlist=n, ranking="distance")


def _plain(config: IndexConfig, rows: int, queries: int) -> World:
    rng = np.random.default_rng(rows)
    records, query_batch = classified(rng, config, rows), classified(rng, config, queries)
    return World(config=config, batches=[records], queries=query_batch, normalised=True, seed=rows)


# shapes


def test_wide_records(backend):
    config = IndexConfig(classes=300, bits=1024, dim=64, groups=1)
    rng = np.random.default_rng(0)
    records, queries = (encodings(rng, config, rows, normalised=True, records=rows > 9) for rows in (90, 8))
    records = stored_values(config, records)
    world = World(config=config, batches=[records[:50], records[50:]], queries=queries, normalised=True, seed=1)
    with in_each_index(backend, world) as (index, faiss, reference):
        for cutoff, ranking in ((0.0, "fused"), (0.1, "distance")):
            arguments = {"k": 100, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            assert_same(index.search(queries, **arguments), reference.search(queries, **arguments))
            assert_same(
                index.search(queries, **{**arguments, "shortlist": 100}), reference.search(queries, **arguments)
            )
        assert_same_records(index.get(records.ids), records)
        assert index.stats().cells == faiss.stats().cells


def test_a_partition_key_changes_no_answer(backend):
    config = CONFIGS[1]
    rng = np.random.default_rng(8)
    records, queries = (encodings(rng, config, rows, normalised=True, records=rows > 9) for rows in (120, 8))
    reference, name = BruteForceIndex(config), backend.unused()
    try:
        index = MilvusIndex.create(backend.uri, config, collection=name, partition_key=True)
    except InvalidParameterError:  # Milvus 2.3.5 would not find the records
        assert backend.server.release < (2, 4)
        return
    # A record whose class changes moves to another partition.
    moved = Encodings(
        probabilities=np.roll(records.probabilities, 1, axis=1), codes=records.codes, features=records.features,
        ids=records.ids, uris=records.uris,
    )  # fmt: skip
    with index, MilvusIndex.open(backend.uri, collection=name) as opened:
        for change in ("add", "upsert", "remove"):
            for one in (index, reference):
                getattr(one, change)({"add": records, "upsert": moved, "remove": records.ids[:20]}[change])
            backend.wait_until_visible(name)
            for one in (index, opened):
                for cutoff, shortlist in ((0.1, None), (0.4, 120), (0.0, 120)):
                    arguments = {"k": 20, "cutoff": cutoff, "shortlist": shortlist}
                    assert_same(one.search(queries, **arguments), reference.search(queries, **arguments))
            assert_holds(opened, reference)
    MilvusIndex.drop(backend.uri, collection=name)


# edges


def test_an_empty_index_and_an_empty_batch_of_queries(make, config, batch):
    index, reference = make(config), BruteForceIndex(config)
    for queries in (batch, batch[:0]):
        for shortlist in (None, 10):
            arguments = {"k": 3, "cutoff": 0.0, "shortlist": shortlist, "ranking": "fused"}
            assert_same(index.search(queries, **arguments), reference.search(queries, **arguments))
    assert_holds(index, reference)
    for one in (index, reference):
        one.add(batch[:0])
        one.upsert(batch[:0])
        one.remove([])
    assert_holds(index, reference)
    for one in (index, reference):  # then there are cells without records
        one.add(batch)
        one.remove(batch.ids)
    assert_holds(index, reference)
    for shortlist in (None, 10):
        arguments = {"k": 3, "cutoff": 0.0, "shortlist": shortlist, "ranking": "fused"}
        assert_same(index.search(batch, **arguments), reference.search(batch, **arguments))


def test_codes_scanned_are_not_counted(make, config, batch):
    index = make(config)
    index.add(batch)
    assert index.search(batch, k=2, shortlist=3).codes.tolist() == [-1] * 6
    assert index.search(batch, k=2, shortlist=None).codes.tolist() == [-1] * 6


@pytest.mark.parametrize("numbers", [[0, 1, 2**63 - 1], [2**63 - 1], [2**63 - 2, 2**63 - 1, 2**62]])
def test_the_least_and_the_largest_ids(make, config, batch, numbers):
    index, reference = make(config), BruteForceIndex(config)
    records = Encodings(
        probabilities=batch.probabilities[: len(numbers)], codes=batch.codes[: len(numbers)],
        features=batch.features[: len(numbers)], ids=numbers, uris=["a", "", None][: len(numbers)],
    )  # fmt: skip
    for one in (index, reference):
        one.add(records)
    assert_holds(index, reference, batch_size=1)
    arguments = {"k": 4, "cutoff": 0.0, "shortlist": None}
    assert_same(index.search(batch, **arguments), reference.search(batch, **arguments))
    assert_same(index.search(batch, **{**arguments, "shortlist": 5}), reference.search(batch, **arguments))
    for one in (index, reference):
        one.upsert(records)
        one.remove([2**63 - 1])
    assert_holds(index, reference)
    assert index.contains([2**63 - 1, -1]).tolist() == [False, False]


def test_no_id_comes_after_the_largest(make, config, batch):
    index = make(config)
    index.add(
        Encodings(
            probabilities=batch.probabilities[:2], codes=batch.codes[:2], features=batch.features[:2],
            ids=[7, 2**63 - 1],
        )
    )  # fmt: skip
    assert [part.ids.tolist() for part in index.iterate(after=2**63 - 2)] == [[2**63 - 1]]
    assert [part.ids.tolist() for part in index.iterate(after=2**63 - 1)] == []


@pytest.mark.parametrize(
    "uris",
    [
        ["", None, " ", "\n", "null\0byte", "\N{SNOWMAN} \N{GRINNING FACE}/ü.jpg"],
        ["'; drop", '"', "\\", "%s {0}", "id in [1]", "x" * 65_535],
        ["\N{SNOWMAN}" * 21_845, None, None, None, None, None],
    ],
    ids=["plain", "quotes", "long"],
)
def test_a_uri_may_be_any_text(make, config, batch, uris):
    index = make(config)
    records = Encodings(
        probabilities=batch.probabilities, codes=batch.codes, features=batch.features, ids=batch.ids, uris=uris
    )
    index.add(records)
    assert index.uris(batch.ids) == uris
    assert_same_records(index.get(batch.ids), records)
    assert [uri for part in index.iterate(4) for uri in part.uris or [None] * len(part)] == uris


def test_the_fused_ranking_is_refused_until_features_that_are_not_normalised_are_removed(backend, make, config, batch):
    index, reference = make(config), BruteForceIndex(config)
    longer = Encodings(
        probabilities=batch.probabilities[:2], codes=batch.codes[:2], features=3 * batch.features[:2], ids=[1, 2]
    )
    for one in (index, reference):
        one.add(batch)
        one.add(longer)
    arguments = {"k": 8, "cutoff": 0.0, "shortlist": None}
    assert_same(index.search(batch, **arguments), reference.search(batch, **arguments))  # scores are NaN
    with pytest.raises(InvalidEncodingsError, match="the features of the index are not L2-normalised"):
        index.search(batch, ranking="fused")
    for one in (index, reference):
        one.remove([1])
    with pytest.raises(InvalidEncodingsError, match="the features of the index are not L2-normalised"):
        index.search(batch, ranking="fused")
    for one in (index, reference):
        one.remove([2])
    arguments["ranking"] = "fused"
    assert_same(index.search(batch, **arguments), reference.search(batch, **arguments))
    assert_holds(index, reference)


def test_all_numbers_of_a_result_are_of_the_same_types(make, config, batch):
    index, reference = make(config), BruteForceIndex(config)
    for one in (index, reference):
        one.add(batch)
    found, expected = (one.search(batch[:1], k=3) for one in (index, reference))
    for name in (*RANKED, "partitions", "cells", "codes", "cut_off"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        assert getattr(found, name).shape == getattr(expected, name).shape


@settings(FEW_EXAMPLES, max_examples=examples(8))
@given(world=small_worlds(), tuning=tunings, by=st.sampled_from(["distance", "hamming"]))
def test_ranges_and_other_arrangements_are_the_same(backend, world, tuning, by):
    """Records within a radius, searches without the own record, and results that differ from one another."""
    with tuned(tuning), in_each_index(backend, world) as (index, _, reference):
        for cutoff, ranking in list(each(world))[:2]:
            radius = int(np.median(world.hammings())) if by == "hamming" and len(world.records) else 1
            for given_cutoff in (cutoff, None):
                options = {"radius": radius, "by": by, "cutoff": given_cutoff}
                found, expected = (one.search_range(world.queries, **options) for one in (index, reference))
                for name in ("offsets", "ids", "distances", "relevance", "scores", "hamming"):
                    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
            queries = world.records[:4]
            options = {"k": 3, "cutoff": cutoff, "shortlist": 7, "ranking": ranking, "exclude_self": True}
            assert_same(index.search(queries, **options), reference.search(queries, **options))
            options |= {"diversity": 0.4}
            assert_same(index.search(queries, **options), reference.search(queries, **options))
        for everywhere in (False, True):
            options = {"max_hamming": world.config.bits // 3, "max_distance": 0.5, "everywhere": everywhere}
            found, expected = (near_duplicates(one, **options) for one in (index, reference))
            assert [ids.tolist() for ids in found] == [ids.tolist() for ids in expected]


def test_a_shortlist_larger_than_the_index_takes_no_memory(make, config, batch):
    index, reference = make(config), BruteForceIndex(config)
    for one in (index, reference):
        one.add(batch)
    options = {"k": 2, "shortlist": 10**12, "exclude_self": True}
    assert_same(index.search(batch[:3], **options), reference.search(batch[:3], **options))
