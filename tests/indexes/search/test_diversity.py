"""Diverse results are those of maximal marginal relevance, computed record by record, on every engine."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig, InvalidParameterError, UnknownIdError
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.scoring.equations import distance
from tests.indexes.generate import PROPERTY, assert_same, classified, each, filled, threads, worlds

ENGINES = [*available_engines(), "flat"]
CONFIG = IndexConfig(classes=4, bits=32, dim=8, stored_features="float32", stored_probabilities=4)


def marginally_best(candidates, features, k, ranking, diversity) -> list[int]:
    """Return the ids of the results of one query by the definition, one comparison after the other."""
    left, chosen = list(candidates), []
    while left and len(chosen) < k:
        among = [hit for hit in left if not hit.filled] or left
        best, best_value = among[0], -np.inf
        for hit in among if chosen else among[:1]:
            good = {"distance": -np.float32(hit.distance) / 2, "fused": hit.score, "relevance": hit.relevance}[ranking]
            near = min((distance(features[hit.id], features[other.id]) for other in chosen), default=np.float32(0))
            value = (1 - diversity) * float(good) + diversity * float(near / 2)
            if value > best_value:
                best, best_value = hit, value
        chosen.append(best)
        left.remove(best)
    return [hit.id for hit in chosen]


@PROPERTY
@given(
    world=worlds(rows=(1, 60)), k=st.sampled_from([1, 3, 8]), shortlist=st.sampled_from([8, 20, None]),
    diversity=st.sampled_from([0.1, 0.5, 0.9]), exclude=st.booleans(),
)  # fmt: skip
def test_every_engine_chooses_the_marginally_best(world, k, shortlist, diversity, exclude):
    queries = world.records[:5] if exclude else world.queries
    features = dict(zip(world.records.ids.tolist(), world.records.features, strict=True))
    with threads(1):
        indexes = [filled(FaissIndex.create(None, world.config, engine=name), world.batches) for name in ENGINES]
        for cutoff, ranking in list(each(world))[:2]:
            options = {"cutoff": cutoff, "shortlist": shortlist, "ranking": ranking, "exclude_self": exclude}
            found = world.reference.search(queries, k=k, diversity=diversity, **options)
            for index in indexes:
                assert_same(index.search(queries, k=k, diversity=diversity, **options), found)
            candidates = world.reference.search(queries, k=shortlist or 100, **options)
            for query in range(len(queries)):
                expected = marginally_best(candidates[query], features, k, ranking, diversity)
                assert [hit.id for hit in found[query]] == expected
        for index in indexes:
            index.close()


def test_equal_records_come_once_before_others():
    rng = np.random.default_rng(0)
    records = classified(rng, CONFIG, 40)
    copies = np.repeat(np.arange(8), 5)  # each of eight records five times
    records = Encodings(
        probabilities=np.full((40, 4), 0.25, np.float32), codes=records.codes[copies],
        features=records.features[copies], ids=np.arange(40),
    )  # fmt: skip
    index = BruteForceIndex(CONFIG)
    index.add(records)
    plain, diverse = (index.search(records[:1], k=8, cutoff=0.0, diversity=value) for value in (0.0, 0.95))
    assert plain.ids[0, :5].tolist() == [0, 1, 2, 3, 4]
    assert sorted((diverse.ids[0] // 5).tolist()) == list(range(8))
    assert diverse.ids[0, 0] == plain.ids[0, 0]


def test_relevant_records_come_before_those_that_fill_places():
    rng = np.random.default_rng(1)
    index = BruteForceIndex(CONFIG)
    index.add(classified(rng, CONFIG, 60))
    found = index.search(classified(rng, CONFIG, 20), k=30, cutoff=0.5, diversity=0.9)
    assert found.filled.any()
    assert (np.diff(found.filled.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, float("nan"), "much", True])
def test_a_diversity_out_of_range_is_refused(value):
    index = BruteForceIndex(CONFIG)
    with pytest.raises(InvalidParameterError, match="diversity"):
        index.search(classified(np.random.default_rng(0), CONFIG, 1), diversity=value)


def test_too_many_candidates_are_refused_before_they_are_searched():
    with FaissIndex.create(None, CONFIG) as index:
        queries = classified(np.random.default_rng(0), CONFIG, 11)
        with pytest.raises(InvalidParameterError, match="candidates"):
            index.search(queries, k=1, shortlist=10**7, diversity=0.5)


def test_a_record_that_is_removed_meanwhile_is_searched_again():
    rng = np.random.default_rng(2)
    index, records = BruteForceIndex(CONFIG), classified(rng, CONFIG, 20)
    index.add(records)
    read, removed = index._get, []

    def get_after_a_removal(ids):
        if len(removed) < limit:
            removed.append(int(ids[0]))
            index.remove(ids[:1])
        return read(ids)

    index._get, limit = get_after_a_removal, 2
    found = index.search(records[:1], k=3, cutoff=None, diversity=0.5)
    assert len(removed) == 2
    assert not set(removed) & set(found.ids[0].tolist())
    limit = 100
    with pytest.raises(UnknownIdError):
        index.search(records[:1], k=3, cutoff=None, diversity=0.5)


def test_few_records_take_neither_memory_nor_time_for_a_large_shortlist():
    """A hundred million candidates of one query would take gigabytes, and 4,000 places of ten records half a minute."""
    rng = np.random.default_rng(0)
    records = classified(rng, CONFIG, 10)
    for index in (FaissIndex.create(None, CONFIG), BruteForceIndex(CONFIG)):
        index.add(records)
        start = time.process_time()
        expected = index.search(records[:1], k=10, shortlist=10, diversity=0.5)
        few = index.search(records[:1], k=10, shortlist=10**8, diversity=0.5)
        assert_same(few, expected)
        many = index.search(records[:1], k=4000, shortlist=None, diversity=0.5)
        assert many.ids[0, :10].tolist() == expected.ids[0].tolist()
        assert (many.ids[0, 10:] == -1).all()
        assert time.process_time() - start < 5
