"""The behaviour that all indexes share: empty batches, returned records, arrays of any layout, and results."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, InvalidEncodingsError, SearchResult
from tests.indexes.generate import PROPERTY, assert_same, assert_same_records, filled, threads, worlds
from tests.indexes.test_encodings import LAYOUTS


def assert_nothing_found(result: SearchResult, queries: int, k: int) -> None:
    """Assert that no cell was scanned, and every slot has id -1, distance inf, relevance 0, score 0, hamming -1."""
    for name, value, dtype in (
        ("ids", -1, np.int64),
        ("distances", np.inf, np.float32),
        ("relevance", 0, np.float32),
        ("scores", 0, np.float32),
        ("hamming", -1, np.int32),
    ):
        np.testing.assert_array_equal(getattr(result, name), np.full((queries, k), value, dtype), strict=True)
    for name in ("partitions", "cells", "codes", "cut_off"):
        np.testing.assert_array_equal(getattr(result, name), np.zeros(queries, np.int64), strict=True)
    assert len(result) == queries


# nothing


@pytest.mark.parametrize("shortlist", [None, 7])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
def test_an_empty_index_finds_nothing(make, config, batch, shortlist, ranking):
    result = make(config).search(batch, k=5, shortlist=shortlist, ranking=ranking)
    assert_nothing_found(result, queries=6, k=5)


@pytest.mark.parametrize("shortlist", [None, 7])
def test_no_queries_get_no_results(make, config, batch, shortlist):
    index = make(config)
    index.add(batch)
    assert_nothing_found(index.search(batch[:0], k=5, shortlist=shortlist), queries=0, k=5)


def test_a_whole_number_given_as_a_float_is_taken_by_an_empty_index_too(make, config, batch):
    index = make(config)
    assert_nothing_found(index.search(batch, k=5.0), queries=6, k=5)
    index.add(batch)
    assert index.search(batch, k=5.0).ids.shape == (6, 5)


def test_adding_no_records_does_nothing(make, config, batch):
    index = make(config)
    index.add(batch[:0])
    assert len(index) == 0
    index.add(batch)
    stats = index.stats()
    index.add(batch[:0])
    assert index.stats() == stats


def test_nothing_relevant_gives_empty_places_but_tells_what_was_scanned(make, config, batch):
    index = make(config)
    index.add(batch[:2])  # class 0
    result = index.search(batch[[2]], k=3, cutoff=0.3, fill=False)  # class 1
    assert result.ids.tolist() == [[-1, -1, -1]]
    assert result.codes[0] - result.cut_off[0] == 0


# records


def test_records_are_given_back_whole_and_in_the_order_asked_for(make, config, batch):
    index = make(config)
    index.add(batch[:4])
    index.add(batch[4:])
    order = np.array([5, 0, 3, 3])
    assert_same_records(index.get(batch.ids[order]), batch[order])
    assert_same_records(index.get([40]), batch[[3]])
    assert_same_records(index.get(40), batch[[3]])
    assert len(index.get([])) == 0


def test_records_without_uris_have_none(make, config, batch):
    index = make(config)
    index.add(Encodings(probabilities=batch.probabilities, codes=batch.codes, features=batch.features, ids=batch.ids))
    assert index.get([10, 20]).uris is None


def test_records_with_and_without_uris_may_be_mixed(make, config, batch):
    index = make(config)
    index.add(batch[:3])
    rest = batch[3:]
    index.add(Encodings(probabilities=rest.probabilities, codes=rest.codes, features=rest.features, ids=rest.ids))
    assert index.get([40, 10, 30]).uris == [None, "a.jpg", "c.jpg"]


def test_uris_of_thousands_of_records_are_given_back(make, config, batch):
    index = make(config)
    rows = np.zeros(2500, int)
    many = batch[rows]
    uris = [f"{number}.jpg" if number % 7 else None for number in range(2500)]
    index.add(
        Encodings(
            probabilities=many.probabilities, codes=many.codes, features=many.features, ids=np.arange(2500), uris=uris
        )
    )
    order = np.random.default_rng(0).permutation(2500)
    assert index.get(order).uris == [uris[number] for number in order]


@pytest.mark.parametrize("uri", ["", "ü\N{SNOWMAN}/a b.jpg", "null\0byte", "'; DROP TABLE uris; --", "x" * 100_000])
def test_a_uri_may_be_any_text(make, config, batch, uri):
    index = make(config)
    one = batch[:1]
    index.add(
        Encodings(probabilities=one.probabilities, codes=one.codes, features=one.features, ids=one.ids, uris=[uri])
    )
    assert index.get(one.ids).uris == [uri]


def test_a_path_that_is_not_unicode_is_kept_or_refused_clearly(make, config, batch):
    index = make(config)
    index.add(batch[1:])
    one, uri = batch[:1], os.fsdecode(b"image \xff.jpg")  # how Python shows such names: with a lone surrogate
    try:
        index.add(
            Encodings(probabilities=one.probabilities, codes=one.codes, features=one.features, ids=one.ids, uris=[uri])
        )
    except InvalidEncodingsError:
        assert len(index) == 5
    else:
        assert index.get(one.ids).uris == [uri]


def test_arrays_that_are_changed_after_an_add_do_not_change_the_index(make, config, batch):
    index = make(config)
    arrays = {name: getattr(batch, name).copy() for name in ("ids", "probabilities", "codes", "features")}
    index.add(Encodings(**arrays, uris=batch.uris))
    before = index.search(batch, k=6, cutoff=0.0)
    for array in arrays.values():
        array[:] = 0
    assert_same(index.search(batch, k=6, cutoff=0.0), before)
    assert_same_records(index.get(batch.ids), batch)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout_give_the_same_answers(make, config, batch, layout):
    as_it_is, converted = make(config), make(config)
    arrays = {name: LAYOUTS[layout](getattr(batch, name)) for name in ("ids", "probabilities", "codes", "features")}
    as_it_is.add(batch)
    converted.add(Encodings(**arrays, uris=batch.uris))
    expected = as_it_is.search(batch, k=6, cutoff=0.0)
    assert (expected.ids >= 0).any()
    assert_same(converted.search(Encodings(**arrays), k=6, cutoff=0.0), expected)
    assert_same_records(converted.get(batch.ids), batch)


# results


def test_the_ids_and_uris_of_queries_do_not_matter(make, config, batch):
    index = make(config)
    index.add(batch)
    bare = Encodings(probabilities=batch.probabilities, codes=batch.codes, features=batch.features)
    assert_same(index.search(bare, k=6), index.search(batch, k=6))


@PROPERTY
@given(world=worlds(), k=st.sampled_from([1, 4, 130]), shortlist=st.sampled_from([None, 130]))
def test_the_best_come_first_and_places_without_a_record_last(world, k, shortlist):
    rankings = ["distance", "fused"] if world.normalised else ["distance"]
    with threads(1), FaissIndex.create(None, world.config) as index:
        filled(index, world.batches)
        for one in (index, world.brute_force()):
            for ranking in rankings:
                result = one.search(world.queries, k=k, cutoff=0.1, shortlist=shortlist, ranking=ranking, fill=False)
                present = result.ids >= 0
                assert (np.diff(present.astype(int), axis=1) <= 0).all()
                key = result.distances if ranking == "distance" else -result.scores
                key = np.where(present, key, np.inf)
                assert (key[:, 1:] >= key[:, :-1]).all()
                tied = (key[:, 1:] == key[:, :-1]) & present[:, 1:]
                assert (result.ids[:, 1:] > result.ids[:, :-1])[tied].all()
                assert (result.relevance[present] > np.float32(0.1)).all()
                assert (result.distances[~present] == np.inf).all()
                assert (result.hamming[~present] == -1).all()
                assert (result.relevance[~present] == 0).all()
                assert (result.scores[~present] == 0).all()
                if world.normalised:
                    np.testing.assert_array_equal(result.scores >= 0, np.ones_like(present))
                else:
                    assert np.isnan(result.scores[present]).all()


def test_results_of_several_batches_can_be_put_together(config, batch):
    index = BruteForceIndex(config)
    index.add(batch)
    parts = [index.search(batch[:2], k=3), index.search(batch[2:], k=3)]
    assert_same(SearchResult.concatenate(parts), index.search(batch, k=3))


def test_stats_of_records_are_the_same_for_every_index(make, config, batch):
    index, reference = make(config), BruteForceIndex(config)
    for part in (batch[:1], batch[1:]):
        index.add(part)
        reference.add(part)
    for name in ("records", "partitions", "normalised"):
        assert getattr(index.stats(), name) == getattr(reference.stats(), name)
    shared = reference.stats().column_bytes
    assert {name: index.stats().column_bytes[name] for name in shared} == shared
