"""`FaissIndex` gives the results of the equations: it is compared with `BruteForceIndex` for equality."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig
from semcut.indexes.pruning import cells, class_lists
from semcut.indexes.scanners import choose, hamming_faiss_cpu
from semcut.indexes.scoring import packed_rows
from semcut.indexes.search import rank
from semcut.indexes.search_tuning import TUNING
from semcut.indexes.storage import column_files
from tests.indexes.generate import (
    PROPERTY,
    World,
    assert_same,
    assert_same_records,
    assert_shortlist,
    assert_valid_shortlist,
    classified,
    each,
    encodings,
    filled,
    threads,
    worlds,
)
from tests.indexes.overrides import override
from tests.thorough import examples

MOVED = {
    (TUNING, "chunk_elements"): [1, 50, 1000],  # queries in chunks, down to single ones
    (TUNING, "split_vectorised"): [1, 3],  # every batch of queries on several threads
    (TUNING, "rather_all"): [0, 1],  # scans go deeper, and do not score all records
    (TUNING, "rows_at_once"): [1, 100],  # unfinished queries one by one, and together
    (TUNING, "wide"): [0],  # the cutoff by a few values of each row first
    (cells, "_MANY"): [0],  # pruning by lists
    (class_lists, "MOST"): [1],  # and by products for some queries
    (class_lists, "_ELEMENTS"): [64, 300],
    (TUNING, "first_scan"): [1, 2],
    (TUNING, "checked_first"): [1, 4],
    (TUNING, "deeper"): [2],
    (choose, "_LOAD_ROWS"): [1, 7],
    (hamming_faiss_cpu, "_COUNTER_BYTES"): [1, 1 << 14],
    (packed_rows, "_ROWS"): [1, 5],
    (rank, "_BLOCK"): [1, 3],
    (column_files, "_WRITE_BYTES"): [101, 1000],
}
THREADS = (faiss, "threads")
tunings = st.fixed_dictionaries(
    {THREADS: st.sampled_from([1, 1, 1, 2, 3])},
    optional={key: st.sampled_from(values) for key, values in MOVED.items()},
)


@contextmanager
def tuned(moved: dict):
    """Override limits that usually need millions of records, so that small data exceeds them."""
    with pytest.MonkeyPatch.context() as patch, threads(moved.get(THREADS, 2)):
        for (owner, name), value in moved.items():
            if owner is not faiss:
                override(patch, owner, name, value)
        yield


def forced_deeper() -> dict:
    return {
        (TUNING, "rather_all"): 0,
        (TUNING, "deeper"): 2,
        (TUNING, "chunk_elements"): 400,
    }


# equality with brute force


@settings(PROPERTY, max_examples=examples(100))
@given(world=worlds(), moved=tunings, data=st.data())
def test_without_a_shortlist_results_are_those_of_brute_force(world, moved, data):
    reference = world.brute_force()
    with tuned(moved), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for cutoff, ranking in each(world):
            k = data.draw(st.sampled_from([1, 2, 5, len(world.records), len(world.records) + 3]))
            options = {"k": k, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))


@settings(PROPERTY, max_examples=examples(40))
@given(world=worlds(), moved=tunings, k=st.sampled_from([1, 3, 200]))
def test_a_stored_index_gives_the_same_before_and_after_it_is_opened_again(tmp_path_factory, world, moved, k):
    reference = world.brute_force()
    path = tmp_path_factory.mktemp("stored")
    with tuned(moved), FaissIndex.create(path, world.config) as written:
        filled(written, world.batches)
        with FaissIndex.open(path) as opened:
            assert opened.config == world.config
            assert opened.stats() == written.stats()
            for cutoff, ranking in each(world):
                options = {"k": k, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
                expected = reference.search(world.queries, **options)
                assert_same(written.search(world.queries, **options), expected)
                assert_same(opened.search(world.queries, **options), expected)
    with FaissIndex.open(path) as again:
        assert_same_records(again.get(world.records.ids), world.records)


@settings(PROPERTY, max_examples=examples(25))
@given(world=worlds(rows=(0, 60)), more=st.integers(0, 2**32 - 1))
def test_an_index_that_is_opened_again_takes_more_records(tmp_path_factory, world, more):
    rng = np.random.default_rng(more)
    fresh = encodings(rng, world.config, 30, normalised=world.normalised)
    fresh = fresh[~np.isin(fresh.ids, world.records.ids)]
    reference = filled(world.brute_force(), [fresh])
    path = tmp_path_factory.mktemp("grown")
    with FaissIndex.create(path, world.config) as index:
        filled(index, world.batches)
    with threads(1), FaissIndex.open(path) as index:
        index.add(fresh)
        for cutoff, ranking in each(world):
            options = {"k": 7, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))


@PROPERTY
@given(world=worlds(), n=st.sampled_from([1, 5]))
def test_searches_between_the_adds_see_what_was_added_so_far(world, n):
    reference = BruteForceIndex(world.config)
    with threads(1), FaissIndex.create(None, world.config) as index:
        for batch in world.batches:
            for one in (index, reference):
                one.add(batch)
            options = {"k": n, "cutoff": 0.1, "shortlist": None}
            assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))
            options["shortlist"] = n
            found, expected = index.search(world.queries, **options), reference.search(world.queries, **options)
            np.testing.assert_array_equal(np.sort(found.hamming), np.sort(expected.hamming))


@settings(PROPERTY, max_examples=examples(30))
@given(world=worlds(rows=(1, 60), queries=(64, 90)), moved=tunings)
def test_a_large_batch_of_queries_on_several_threads_gives_what_brute_force_gives(world, moved):
    reference = world.brute_force()
    with tuned(moved | {THREADS: 2}), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for cutoff, ranking in list(each(world))[:3]:
            options = {"k": 5, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))
            result = index.search(world.queries, k=5, cutoff=cutoff, shortlist=6, ranking=ranking, fill=False)
            assert_shortlist(result, world, k=5, cutoff=cutoff, shortlist=6, ranking=ranking)


@PROPERTY
@given(world=worlds())
def test_the_search_reports_how_many_records_are_relevant(world):
    reference = world.brute_force()
    with threads(1), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for cutoff, ranking in each(world):
            options = {"k": 2, "cutoff": cutoff, "shortlist": None, "ranking": ranking}
            found, expected = index.search(world.queries, **options), reference.search(world.queries, **options)
            np.testing.assert_array_equal(found.codes - found.cut_off, expected.codes - expected.cut_off)
            assert (found.codes <= len(index)).all()
            assert (found.partitions <= found.cells).all()
            assert (found.cells <= index.stats().cells).all()


# shortlists


@PROPERTY
@given(world=worlds(), moved=tunings, n=st.sampled_from([1, 2, 5, 20, 119, 500]), share=st.floats(0.01, 1))
def test_the_best_of_a_shortlist_are_those_of_brute_force(world, moved, n, share):
    k = max(1, int(share * n))
    with tuned(moved), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for cutoff, ranking in each(world):
            result = index.search(world.queries, k=k, cutoff=cutoff, shortlist=n, ranking=ranking, fill=False)
            assert_shortlist(result, world, k=k, cutoff=cutoff, shortlist=n, ranking=ranking)


@PROPERTY
@given(world=worlds(rows=(1, 60)), n=st.sampled_from([1, 3, 10]))
def test_brute_force_itself_gives_the_best_of_the_nearest_relevant_records(world, n):
    for cutoff, ranking in each(world):
        result = world.brute_force().search(world.queries, k=n, cutoff=cutoff, shortlist=n, ranking=ranking, fill=False)
        assert_valid_shortlist(result, world, k=n, cutoff=cutoff, shortlist=n, ranking=ranking)


def test_the_check_of_shortlists_notices_a_record_that_is_left_out():
    world = confusing(seed=3, rows=200, queries=2)
    without_best = [world.records[world.records.ids != best_of(world, cutoff=0.1)]]
    with threads(1), FaissIndex.create(None, world.config) as index:
        result = filled(index, without_best).search(world.queries, k=5, cutoff=0.1, shortlist=5, fill=False)
    with pytest.raises(AssertionError):
        assert_valid_shortlist(result, world, k=5, cutoff=0.1, shortlist=5, ranking="distance")


def confusing(*, seed: int, rows: int, queries: int, classes: int = 4, bits: int = 64) -> World:
    """Return data with codes independent of the class: most of the records nearest to a query are irrelevant."""
    rng = np.random.default_rng(seed)
    config = IndexConfig(classes=classes, bits=bits, dim=8, groups=1)
    records, wanted = classified(rng, config, rows), classified(rng, config, queries)
    return World(config=config, batches=[records], queries=wanted, normalised=True, seed=seed)


def best_of(world: World, *, cutoff: float) -> int:
    result = world.brute_force().search(world.queries, k=1, cutoff=cutoff, shortlist=5, fill=False)
    return int(result.ids[0, 0])


def rare(*, seed: int) -> World:
    """Return data in one cell where 2 % of the records are relevant, and have the farthest codes."""
    rng = np.random.default_rng(seed)
    config = IndexConfig(classes=12, bits=64, dim=4, groups=1)
    rows, queries = 3000, 6
    p = np.full((rows, 12), 0.04, np.float32)
    relevant = rng.random(rows) < 0.02
    p[relevant] = 0.03
    p[:, 0] = 0.56
    p[relevant, 11] = 0.14
    codes = rng.integers(0, 256, (rows, 8), np.uint8) & rng.integers(0, 256, (rows, 8), np.uint8)
    codes[relevant] = ~codes[relevant]
    wanted = np.zeros((queries, 12), np.float32)
    wanted[:, 11] = 1
    records = classified(rng, config, rows)
    return World(
        config=config,
        batches=[Encodings(probabilities=p, codes=codes, features=records.features, ids=records.ids)],
        queries=Encodings(
            probabilities=wanted,
            codes=np.zeros((queries, 8), np.uint8),
            features=classified(rng, config, queries).features,
        ),
        normalised=True,
        seed=seed,
    )


@pytest.mark.parametrize("moved", [{}, forced_deeper()], ids=["as it is", "always deeper"])
@pytest.mark.parametrize("n", [1, 4, 25, 100])
def test_relevant_records_with_far_codes_are_found_however_many_irrelevant_ones_are_nearer(moved, n):
    world = rare(seed=n)
    with tuned(moved), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        result = index.search(world.queries, k=n, cutoff=0.1, shortlist=n, fill=False)
    relevant = (world.relevances() > np.float32(0.1)).sum(axis=1)
    assert (relevant < 100).all()
    assert (relevant > 25).all()
    np.testing.assert_array_equal((result.ids >= 0).sum(axis=1), np.minimum(n, relevant))
    assert_shortlist(result, world, k=n, cutoff=0.1, shortlist=n, ranking="distance")
    assert (result.cut_off > 1000).all()  # the scan had to pass irrelevant records


@lru_cache(maxsize=1)
def thousands(seed: int) -> World:
    return confusing(seed=seed, rows=4000, queries=80)


@pytest.mark.parametrize("moved", [{}, forced_deeper()], ids=["as it is", "always deeper"])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 10), (40, 40)])
def test_thousands_of_records_with_codes_independent_of_their_classes(moved, ranking, k, n):
    world = thousands(seed=1000 * k + n)
    with tuned(moved), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for cutoff in (0.05, 0.3):
            result = index.search(world.queries, k=k, cutoff=cutoff, shortlist=n, ranking=ranking, fill=False)
            assert_shortlist(result, world, k=k, cutoff=cutoff, shortlist=n, ranking=ranking)
            exact = index.search(world.queries, k=k, cutoff=cutoff, shortlist=None, ranking=ranking)
            expected = world.reference.search(world.queries, k=k, cutoff=cutoff, shortlist=None, ranking=ranking)
            assert_same(exact, expected)


def test_a_shortlist_longer_than_the_index_is_the_whole_index(make, config, batch):
    index = make(config)
    index.add(batch)
    everything = index.search(batch, k=6, cutoff=0.0, shortlist=None)
    assert_same(index.search(batch, k=6, cutoff=0.0, shortlist=6), everything)
    assert_same(index.search(batch, k=6, cutoff=0.0, shortlist=10_000), everything)


def test_a_shortlist_far_longer_than_the_index_takes_no_more_memory_than_the_index(make, config, batch):
    index = make(config)
    index.add(batch)
    everything = index.search(batch, k=6, cutoff=0.0, shortlist=None)
    assert_same(index.search(batch, k=6, cutoff=0.0, shortlist=10**12), everything)


# the cutoff, ties and order


@pytest.mark.parametrize("shortlist", [None, 100])
def test_a_record_whose_relevance_is_the_cutoff_is_dropped_and_one_just_above_is_not(make, config, batch, shortlist):
    index = make(config)
    index.add(batch)
    query = batch[[1]]
    r = 0.375  # of the query with itself: 0.5^2 + 2 * 0.25^2
    at = index.search(query, k=6, cutoff=r, shortlist=shortlist, fill=False)
    below = index.search(
        query, k=6, cutoff=float(np.nextafter(np.float32(r), np.float32(0))), shortlist=shortlist, fill=False
    )
    assert 20 not in at.ids
    assert 20 in below.ids


@pytest.mark.parametrize("shortlist", [None, 100])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
def test_equal_records_come_in_order_of_their_ids(make, config, batch, shortlist, ranking):
    index = make(config)
    same = batch[np.zeros(6, int)]
    numbers = np.array([2**62, 5, 17, 0, 2**63 - 1, 16])
    index.add(Encodings(probabilities=same.probabilities, codes=same.codes, features=same.features, ids=numbers))
    result = index.search(batch[[0]], k=4, cutoff=0.5, shortlist=shortlist, ranking=ranking, fill=False)
    assert result.ids.tolist() == [[0, 5, 16, 17]]


def test_a_probability_so_small_that_the_relevance_is_zero_does_not_make_a_record_relevant(make):
    index = make(IndexConfig(classes=4, bits=32, dim=1))
    index.add(single([0, 0.49, 0.48, 0.03], number=1))
    query = single([1, 1.4e-45, 0, 0])  # R = 6.9e-46, which is 0 in float32
    assert index.search(query, k=1, cutoff=0.0, shortlist=None, fill=False).ids.tolist() == [[-1]]
    assert index.search(query, k=1, cutoff=0.0, shortlist=1, fill=False).ids.tolist() == [[-1]]


@pytest.mark.parametrize("shortlist", [None, 10])
def test_opposite_features_score_zero_and_are_ordered_by_id_even_if_slightly_longer_than_1(make, shortlist):
    index = make(IndexConfig(classes=2, bits=32, dim=2))
    index.add(
        Encodings(
            probabilities=np.array([[1, 0], [1, 0]], np.float32),
            codes=np.zeros((2, 4), np.uint8),
            features=np.array([[-1.0009, 0], [-1, 0]], np.float32),
            ids=np.array([0, 1]),
        )
    )
    query = Encodings(
        probabilities=np.array([[1, 0]], np.float32),
        codes=np.zeros((1, 4), np.uint8),
        features=np.array([[1.0009, 0]], np.float32),
    )
    result = index.search(query, k=1, cutoff=0.2, shortlist=shortlist, ranking="fused", fill=False)
    assert result.scores.tolist() == [[0]]
    assert result.ids.tolist() == [[0]]


def test_relevances_beyond_float32_are_refused_or_ranked_but_never_lost(make):
    prior = (1, 1e-45)
    try:
        index = make(IndexConfig(classes=2, bits=32, dim=1, prior=prior))
    except ValueError:
        return  # refused when the index is created, which is allowed too
    index.add(single([0.5, 0.5], number=7))
    assert index.search(single([0.5, 0.5]), k=1, cutoff=0.2).ids.tolist() == [[7]]


def single(p: list[float], number: int | None = None) -> Encodings:
    return Encodings(
        probabilities=np.array([p], np.float32),
        codes=np.zeros((1, 4), np.uint8),
        features=np.ones((1, 1), np.float32),
        ids=None if number is None else np.array([number]),
    )


@PROPERTY
@given(world=worlds(rows=(1, 40), queries=(2, 12)))
def test_a_query_gets_the_same_answer_alone_as_in_a_batch(world):
    with threads(1), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for options in ({"k": 40, "shortlist": None}, {"k": 3, "shortlist": 7}):
            together = index.search(world.queries, cutoff=0.1, **options)
            for query in range(len(world.queries)):
                alone = index.search(world.queries[[query]], cutoff=0.1, **options)
                assert_same(alone, together.in_order(np.array([query])))


# several threads, several objects, files


def test_searches_from_several_threads_at_once_give_what_they_give_alone():
    world = confusing(seed=8, rows=3000, queries=160, classes=10)
    calls = [
        {"queries": world.queries[start:stop], "k": 5, "cutoff": cutoff, "shortlist": shortlist, "ranking": ranking}
        for start, stop in ((0, 1), (1, 30), (30, 160))
        for cutoff in (0.05, 0.3)
        for shortlist, ranking in ((None, "fused"), (20, "distance"))
    ]

    def search(call):
        return index.search(**call)

    with threads(1), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        alone = [search(call) for call in calls]
    with FaissIndex.create(None, world.config) as index, ThreadPoolExecutor(6) as pool:
        filled(index, world.batches)  # before a search has prepared anything
        for found, expected in zip(pool.map(search, 2 * calls), 2 * alone, strict=True):
            assert_same(found, expected)


def test_an_index_opened_earlier_stays_as_it_was_while_another_adds(tmp_path, config, batch):
    with FaissIndex.create(tmp_path / "index", config) as writer:
        writer.add(batch[:3])
        with FaissIndex.open(tmp_path / "index") as reader:
            before = reader.search(batch, k=6, cutoff=0.0)
            writer.add(batch[3:])
            assert len(reader) == 3
            assert_same(reader.search(batch, k=6, cutoff=0.0), before)
            assert_same_records(reader.get(batch.ids[:3]), batch[:3])


def test_an_index_knows_ids_it_was_opened_with(tmp_path, config, batch):
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
    with FaissIndex.open(str(tmp_path / "index")) as index, pytest.raises(ValueError, match="30"):
        index.add(batch[[2]])


def test_cells_may_be_more_than_the_lists_that_an_empty_index_starts_with():
    config = IndexConfig(classes=40, bits=32, dim=2)
    rng = np.random.default_rng(2)
    batches = [
        Encodings(
            probabilities=rng.dirichlet(np.full(40, alpha), 700).astype(np.float32),
            codes=rng.integers(0, 256, (700, 4), np.uint8),
            features=rng.standard_normal((700, 2)).astype(np.float32),
            ids=np.arange(start, start + 700),
        )
        for start, alpha in ((0, 0.5), (700, 0.05), (1400, 0.02), (2100, 0.1))
    ]
    world = World(config=config, batches=batches, queries=batches[1][:20], normalised=False, seed=0)
    with FaissIndex.create(None, config) as index:
        filled(index, batches)
        assert index.stats().cells > 256
        for shortlist in (10, 300):
            result = index.search(world.queries, k=10, cutoff=0.1, shortlist=shortlist, fill=False)
            assert_shortlist(result, world, k=10, cutoff=0.1, shortlist=shortlist, ranking="distance")


def test_stats_count_records_partitions_cells_and_bytes(tmp_path, config, batch):
    for path in (None, tmp_path / "index"):
        with FaissIndex.create(path, config) as index:
            empty = index.stats()
            assert (empty.records, empty.partitions, empty.cells, empty.normalised) == (0, [0, 0, 0], 0, True)
            index.add(batch)
            stats = index.stats()
            assert stats.records == len(index) == 6
            assert stats.partitions == [2, 2, 2]
            assert stats.cells == 6  # a sure and a torn cell per class
            assert stats.normalised
            assert stats.removed == 0
            assert stats.column_bytes == {
                "ids": 48, "codes": 24, "probabilities": 72, "features": 96, "cells": 24,
                "uri_ends": 48, "uri_bytes": 24, "removed": 0,
            }  # fmt: skip
            index.remove([10, 30, 20])
            assert (index.stats().records, index.stats().removed, index.stats().cells) == (3, 3, 3)
            assert index.stats().partitions == [0, 1, 2]
            assert index.stats().column_bytes == {**stats.column_bytes, "removed": 24}
    for name, size in {**stats.column_bytes, "removed": 24}.items():
        assert os.path.getsize(tmp_path / "index" / "generation-0" / name) == size


def test_one_feature_of_another_length_makes_the_index_not_normalised(tmp_path, config, batch):
    longer = Encodings(
        probabilities=batch.probabilities[:1], codes=batch.codes[:1], features=2 * batch.features[:1], ids=np.array([1])
    )
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
        index.add(longer)
        assert not index.stats().normalised
        assert np.isnan(index.search(batch, k=2, cutoff=0.2).scores[:, 0]).all()
    with FaissIndex.open(tmp_path / "index") as index:
        assert not index.stats().normalised


# released files


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="/proc/self/fd is missing, which lists open files"
)


@needs_proc
def test_a_closed_index_holds_no_file_open(tmp_path, config, batch):
    before = open_files()
    for path in (None, tmp_path / "index"):
        index = FaissIndex.create(path, config)
        index.add(batch)
        index.search(batch, k=1)
        assert open_files() > before or path is None
        index.close()
        index.close()
        del index
        assert open_files() == before


@needs_proc
def test_an_index_that_is_dropped_without_being_closed_holds_no_file_open(tmp_path, config, batch):
    before = open_files()
    for path in (None, tmp_path / "index"):
        index = FaissIndex.create(path, config)
        index.add(batch)
        del index
        assert open_files() == before


@needs_proc
def test_an_index_that_cannot_be_opened_leaves_no_file_open(tmp_path, config, batch):
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch)
    os.truncate(tmp_path / "index" / "generation-0" / "features", 10)
    before = open_files()
    with pytest.raises(Exception, match="features"):
        FaissIndex.open(tmp_path / "index")
    assert open_files() == before


def test_brute_force_and_faiss_have_the_same_interface():
    public = {name for name in dir(BruteForceIndex) if not name.startswith("_")}
    assert public <= {name for name in dir(FaissIndex) if not name.startswith("_")}
