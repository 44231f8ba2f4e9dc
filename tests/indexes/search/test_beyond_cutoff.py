"""Searches that fill places, or have no cutoff, give the answers of brute force on every engine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig, SearchResult
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.scoring.equations import Similarity, distance, fused_score, relevance
from semcut.indexes.search.trace import SearchTrace
from tests.indexes.generate import PROPERTY, World, assert_same, classified, each, filled, threads, worlds

CONFIG = IndexConfig(classes=6, bits=32, dim=8, stored_probabilities=3)
ENGINES = [*available_engines(), *(["torch"] if find_spec("torch") else []), "flat"]
RANKINGS = ["distance", "fused", "relevance"]


def assert_answers(found: SearchResult, expected: SearchResult) -> None:
    assert_same(found, expected)
    np.testing.assert_array_equal(found.filled, expected.filled)


@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(world=worlds(), k=st.sampled_from([1, 4, 30]), shortlist=st.sampled_from([30, 100, None]), fill=st.booleans())
def test_every_engine_fills_places_as_brute_force_does(engine, world, k, shortlist, fill):
    options = {"k": k, "shortlist": shortlist, "fill": fill}
    with threads(1), FaissIndex.create(None, world.config, engine=engine) as index:
        filled(index, world.batches)
        for cutoff, ranking in each(world):
            for given_cutoff in (cutoff, None):
                options |= {"cutoff": given_cutoff, "ranking": ranking}
                found = index.search(world.queries, **options)
                assert_answers(found, world.reference.search(world.queries, **options))
                if fill:
                    assert np.count_nonzero(found.ids >= 0) == len(world.queries) * min(k, len(index))


@PROPERTY
@given(world=worlds(rows=(1, 60)), k=st.sampled_from([1, 5, 80]))
def test_without_a_cutoff_the_answer_is_the_sorted_list_of_all_records(world: World, k):
    """Brute force against the definition, record by record."""
    weights = Similarity(world.config).weights(world.queries.probabilities)
    for ranking in RANKINGS if world.normalised else ["distance", "relevance"]:
        result = world.reference.search(world.queries, k=k, cutoff=None, shortlist=None, ranking=ranking)
        for query in range(len(world.queries)):
            rows = []
            for number, p, feature in zip(
                *(getattr(world.records, name) for name in ("ids", "probabilities", "features")), strict=True
            ):
                r, d = relevance(weights[query], p), distance(world.queries.features[query], feature)
                last = ranking != "distance" and r == 0
                key = {"distance": d, "fused": -fused_score(r, d), "relevance": -r}[ranking]
                second = d if ranking == "relevance" else 0
                rows.append((last, *((d, 0) if last else (key, second)), int(number)))
            rows.sort()
            here = slice(0, min(k, len(rows)))
            assert result.ids[query, here].tolist() == [row[-1] for row in rows[:k]]
            assert result.filled[query, here].tolist() == [row[0] for row in rows[:k]]


@PROPERTY
@given(world=worlds(rows=(1, 60)), k=st.sampled_from([2, 9]))
def test_relevant_records_come_first_and_are_those_that_are_found_without_filling(world, k):
    for cutoff, ranking in each(world):
        options = {"k": k, "cutoff": cutoff, "shortlist": 20, "ranking": ranking}
        full = world.reference.search(world.queries, **options)
        relevant = world.reference.search(world.queries, fill=False, **options)
        own = ~full.filled & (full.ids >= 0)
        np.testing.assert_array_equal(own, relevant.ids >= 0)
        np.testing.assert_array_equal(np.where(own, full.ids, -1), relevant.ids)
        assert (full.relevance[full.filled] <= np.float32(cutoff)).all()
        for ids in full.ids.tolist():
            given_ids = [number for number in ids if number >= 0]
            assert len(set(given_ids)) == len(given_ids)


def test_only_queries_with_places_left_are_searched_again():
    rng = np.random.default_rng(0)
    records, queries = classified(rng, CONFIG, 300), classified(rng, CONFIG, 40)
    for engine in ENGINES:
        with FaissIndex.create(None, CONFIG, engine=engine) as index:
            index.add(records)
            counts = []
            for fill in (False, True):
                trace = SearchTrace()
                found = index.search(queries, k=5, cutoff=0.9, fill=fill, trace=trace)
                counts.append(trace.counts["codes"])
            short = np.count_nonzero(found.filled.any(axis=1))
            assert 0 < short < 40
            assert counts[1] - counts[0] == short * len(index)


def test_without_a_cutoff_most_cells_are_skipped():
    """The k-th score is a cutoff for all other cells."""
    rng = np.random.default_rng(1)
    config = IndexConfig(classes=20, bits=32, dim=8)
    queries = classified(rng, config, 50)
    for engine in available_engines():
        with FaissIndex.create(None, config, engine=engine) as index:
            index.add(classified(rng, config, 5000))
            for ranking in ("fused", "relevance"):
                found = index.search(queries, k=3, cutoff=None, ranking=ranking)
                assert found.codes.mean() < 0.5 * len(index)


def test_records_with_relevance_0_come_last_and_nearest_first():
    probabilities = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [0.5, 0.5]], np.float32)
    features = np.array([[1, 0], [-1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    records = Encodings(
        probabilities=probabilities, codes=np.zeros((5, 4), np.uint8), features=features, ids=np.arange(5)
    )
    query = Encodings(probabilities=probabilities[:1], codes=records.codes[:1], features=features[:1])
    index = BruteForceIndex(IndexConfig(classes=2, bits=32, dim=2))
    index.add(records)
    for ranking in ("fused", "relevance"):
        found = index.search(query, k=10, cutoff=None, ranking=ranking)
        assert found.ids.tolist() == [[0, 4, 2, 3, 1, *[-1] * 5]]
        assert found.filled.tolist() == [[False, False, True, True, True, *[False] * 5]]
        assert index.search(query, k=10, cutoff=None, ranking=ranking, fill=False).ids[0].tolist() == [0, 4, *[-1] * 8]
    assert index.search(query, k=5, cutoff=None).ids.tolist() == [[0, 2, 3, 1, 4]]
    assert not index.search(query, k=5, cutoff=None).filled.any()
    assert [hit.filled for hit in index.search(query, k=3, cutoff=0.2)[0]] == [False, False, True]
