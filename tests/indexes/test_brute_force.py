"""`BruteForceIndex` computes the equations: compared with values computed by hand, and with a plain Python loop."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, IndexConfig
from semcut.indexes.scoring.equations import Similarity, distance, fused_score, hamming, relevance
from tests.indexes.generate import PROPERTY, classified, each, worlds


def test_the_nearest_relevant_records_come_first(config, batch):
    index = BruteForceIndex(config)
    index.add(batch)
    result = index.search(batch[[0]], k=4, cutoff=0.2, fill=False)  # relevances 1, 0.5, 0, 0.25, 0, 0.25
    assert result.ids.tolist() == [[10, 20, 40, 60]]
    np.testing.assert_allclose(result.distances, [[0, 2**0.5, 2**0.5, 2**0.5]], rtol=1e-6)
    assert result.relevance.tolist() == [[1, 0.5, 0.25, 0.25]]
    np.testing.assert_allclose(result.scores[0], result.relevance[0] * (1 - result.distances[0] / 2), rtol=1e-6)
    assert result.hamming[0].tolist() == hamming(batch.codes[0], batch.codes[[0, 1, 3, 5]]).tolist()
    assert result.codes.tolist() == [6]
    assert result.cut_off.tolist() == [2]


def test_places_without_a_record_are_marked(config, batch):
    index = BruteForceIndex(config)
    index.add(batch)
    result = index.search(batch[[0]], k=8, cutoff=0.5, fill=False)
    assert result.ids.tolist() == [[10, *[-1] * 7]]
    assert result.distances.tolist() == [[0, *[math.inf] * 7]]
    assert result.relevance.tolist() == [[1, *[0] * 7]]
    assert result.scores.tolist() == [[1, *[0] * 7]]
    assert result.hamming.tolist() == [[0, *[-1] * 7]]


@PROPERTY
@given(world=worlds(rows=(0, 40)), k=st.sampled_from([1, 3, 50]))
def test_every_result_is_the_sorted_list_of_relevant_records(world, k):
    index, records = world.brute_force(), world.records
    weights = Similarity(world.config).weights(world.queries.probabilities)
    for cutoff, ranking in each(world):
        result = index.search(world.queries, k=k, cutoff=cutoff, shortlist=None, ranking=ranking, fill=False)
        for query in range(len(world.queries)):
            expected = []
            for row in range(len(records)):
                r = relevance(weights[query], records.probabilities[row])
                d = distance(world.queries.features[query], records.features[row])
                if r > np.float32(cutoff):
                    score = fused_score(r, d)
                    key = {"distance": (float(d),), "fused": (-float(score),), "relevance": (-float(r), float(d))}
                    expected.append((key[ranking], int(records.ids[row]), float(d), float(r)))
            expected.sort()
            columns = (result.ids, result.distances, result.relevance)
            found = zip(*(column[query].tolist() for column in columns), strict=True)
            absent = [(-1, math.inf, 0.0)] * k
            assert list(found) == [(number, d, r) for _, number, d, r in expected[:k]] + absent[: k - len(expected[:k])]


def test_its_version_says_how_often_it_has_changed():
    config = IndexConfig(classes=2, bits=32, dim=4)
    index = BruteForceIndex(config)
    records = classified(np.random.default_rng(0), config, 3)
    versions = [index.version]
    for change in (lambda: index.add(records), lambda: index.upsert(records), lambda: index.remove(records.ids)):
        change()
        versions.append(index.version)
    index.flush()
    assert not index.refresh()
    assert versions == [0, 1, 2, 3]
