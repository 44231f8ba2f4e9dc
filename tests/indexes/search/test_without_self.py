"""Searches that leave the query's own record out give the answers of an index without this record, on every engine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig, InvalidParameterError
from semcut.indexes.scanners.engine_names import available_engines
from tests.indexes.generate import PROPERTY, World, assert_same, classified, each, filled, threads, worlds

ENGINES = [*available_engines(), *(["torch"] if find_spec("torch") else []), "flat"]


def own_queries(world: World) -> Encodings:
    """Return records as queries, records with the values of others, and queries whose ids the index does not have."""
    rng = np.random.default_rng(world.seed)
    records = world.records
    some = records[rng.integers(0, len(records), 6)]
    strange = world.queries[rng.integers(0, len(world.queries), 6)]
    free = np.setdiff1d(np.arange(len(records) + 6), records.ids)[:6]
    ids = np.concatenate([some.ids, np.where(rng.random(6) < 0.5, records.ids[rng.integers(0, len(records), 6)], free)])
    names = ("probabilities", "codes", "features")
    joined = {name: np.concatenate([getattr(some, name), getattr(strange, name)]) for name in names}
    return Encodings(**joined, ids=ids, any_mass=True)


@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(world=worlds(), k=st.sampled_from([1, 4, 30]), shortlist=st.sampled_from([30, 45, None]), fill=st.booleans())
def test_every_engine_leaves_the_own_record_out(engine, world, k, shortlist, fill):
    queries = own_queries(world)
    options = {"k": k, "shortlist": max(k, shortlist - 30 + k) if shortlist else None, "fill": fill}
    with threads(1), FaissIndex.create(None, world.config, engine=engine) as index:
        filled(index, world.batches)
        for cutoff, ranking in list(each(world))[:3]:
            for given_cutoff in (cutoff, None):
                options |= {"cutoff": given_cutoff, "ranking": ranking, "exclude_self": True}
                found, expected = index.search(queries, **options), world.reference.search(queries, **options)
                assert_same(found, expected)
                np.testing.assert_array_equal(found.filled, expected.filled)
                assert (found.ids != queries.ids[:, None]).all()
                if fill:
                    others = len(index) - np.isin(queries.ids, world.records.ids)
                    assert (np.count_nonzero(found.ids >= 0, axis=1) == np.minimum(k, others)).all()


@PROPERTY
@given(world=worlds(rows=(2, 60)), k=st.sampled_from([1, 5]), fill=st.booleans())
def test_brute_force_answers_as_an_index_without_the_record(world, k, fill):
    queries = own_queries(world)
    for cutoff, ranking in list(each(world))[:2]:
        options = {"k": k, "cutoff": cutoff, "shortlist": k + 1, "ranking": ranking, "fill": fill}
        found = world.reference.search(queries, exclude_self=True, **options)
        for query, number in enumerate(queries.ids.tolist()):
            smaller = BruteForceIndex(world.config)
            smaller.add(world.records[world.records.ids != number])
            expected = smaller.search(queries[[query]], **options)
            assert_same(found.in_order(np.array([query])), expected)


def test_the_own_record_is_left_out_where_a_shortlist_ends():
    """All codes are equal, so that a rule decides which records the shortlist has; the own record may be outside."""
    config = IndexConfig(classes=2, bits=32, dim=4)
    rng = np.random.default_rng(0)
    records = classified(rng, config, 60)
    same = Encodings(
        probabilities=np.full((60, 2), 0.5, np.float32), codes=np.zeros((60, 4), np.uint8), features=records.features,
        ids=records.ids,
    )  # fmt: skip
    reference = BruteForceIndex(config)
    reference.add(same)
    for engine in ENGINES:
        with FaissIndex.create(None, config, engine=engine) as index:
            index.add(same)
            for shortlist in (3, 30, 58, 59, 60):
                options = {"k": 3, "shortlist": shortlist, "exclude_self": True}
                assert_same(index.search(same, **options), reference.search(same, **options))


def test_it_needs_the_ids_of_the_queries():
    config = IndexConfig(classes=2, bits=32, dim=4)
    records = classified(np.random.default_rng(0), config, 3)
    queries = Encodings(probabilities=records.probabilities, codes=records.codes, features=records.features)
    for index in (BruteForceIndex(config), FaissIndex.create(None, config)):
        index.add(records)
        with pytest.raises(InvalidParameterError, match="exclude_self needs the ids of the queries"):
            index.search(queries, exclude_self=True)
        with pytest.raises(InvalidParameterError, match="exclude_self"):
            index.search(records, exclude_self="yes")
        assert index.search(records, k=5, cutoff=None, exclude_self=True).ids[:, 2:].max() == -1
