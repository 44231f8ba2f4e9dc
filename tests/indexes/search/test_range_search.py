"""All records within a radius are found, exactly, on every engine."""

from __future__ import annotations

import pickle
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    ClosedIndexError,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    range_result,
)
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.scoring.equations import Similarity, distance, fused_score, hamming, relevance
from tests.indexes.generate import PROPERTY, World, assert_same_range, classified, filled, threads, worlds

CONFIG = IndexConfig(classes=6, bits=32, dim=8, stored_probabilities=3)
ENGINES = [*available_engines(), *(["torch"] if find_spec("torch") else []), "flat"]


def radii(world: World, by: str) -> list[float]:
    """Return radii of both measures: of no record, of some, exactly that of a record, and of all."""
    rng = np.random.default_rng(world.seed)
    if by == "hamming":
        occurring = world.hammings()
        return [0, int(rng.choice(occurring.ravel())), int(np.median(occurring)), world.config.bits]
    occurring = distance(world.queries.features[:, None], world.records.features[None])
    at = float(rng.choice(occurring.ravel()))
    below = float(np.nextafter(np.float32(at), np.float32(0)))
    return [radius for radius in (0.0, at, below, float(np.median(occurring)), 1e30) if radius <= 1e30]


@pytest.mark.parametrize("engine", ENGINES)
@PROPERTY
@given(world=worlds(), by=st.sampled_from(["distance", "hamming"]))
def test_every_engine_finds_what_brute_force_finds(engine, world, by):
    with threads(1), FaissIndex.create(None, world.config, engine=engine) as index:
        filled(index, world.batches)
        for radius in radii(world, by):
            for cutoff in (world.cutoffs()[0], None):
                options = {"radius": radius, "by": by, "cutoff": cutoff}
                assert_same_range(
                    index.search_range(world.queries, **options), world.reference.search_range(world.queries, **options)
                )


@PROPERTY
@given(world=worlds(rows=(1, 40)), by=st.sampled_from(["distance", "hamming"]))
def test_brute_force_finds_the_records_of_the_definition(world, by):
    """Record by record, with Python's own sorting."""
    weights, records = Similarity(world.config).weights(world.queries.probabilities), world.records
    for radius in radii(world, by):
        for cutoff in (world.cutoffs()[0], None):
            result = world.reference.search_range(world.queries, radius=radius, by=by, cutoff=cutoff)
            assert len(result) == len(world.queries)
            for query, hits in enumerate(result):
                expected = []
                for row, number in enumerate(records.ids.tolist()):
                    r = relevance(weights[query], records.probabilities[row])
                    d = distance(world.queries.features[query], records.features[row])
                    h = int(hamming(world.queries.codes[query], records.codes[row]))
                    measured = h if by == "hamming" else d
                    if measured <= np.float32(radius) and (cutoff is None or r > np.float32(cutoff)):
                        expected.append((float(measured), number, float(d), float(r), h, float(fused_score(r, d))))
                expected.sort()
                found = [(hit.id, hit.distance, hit.relevance, hit.hamming) for hit in hits]
                assert found == [(number, d, r, h) for _, number, d, r, h, _ in expected]
                scores = [hit.score for hit in hits]
                np.testing.assert_array_equal(
                    scores, [row[5] for row in expected] if not np.isnan(scores).any() else [np.nan] * len(scores)
                )


def records_of(count: int, uris: bool = False) -> Encodings:
    records = classified(np.random.default_rng(0), CONFIG, count)
    return records if not uris else Encodings(
        probabilities=records.probabilities, codes=records.codes, features=records.features, ids=records.ids,
        uris=[f"{number}.png" for number in range(count)],
    )  # fmt: skip


def test_a_result_is_read_query_by_query():
    with FaissIndex.create(None, CONFIG) as index:
        index.add(records_of(40, uris=True))
        queries = index.get([3, 7])
        result = index.search_range(queries, radius=0.9, cutoff=None)
        assert [hits[0].uri for hits in result] == ["3.png", "7.png"]
        assert [hit.id for hit in result[-1]] == result.ids[result.offsets[1] : result.offsets[2]].tolist()
        assert all(hit.distance <= 0.9 and not hit.filled for hits in result for hit in hits)
        with pytest.raises(IndexError, match="no query 2"):
            result[2]
        with pytest.raises(InvalidParameterError, match="the number of a query"):
            result["first"]
        with pytest.raises(InvalidParameterError, match="use its arrays"):
            pickle.dumps(result)
        assert len(index.search_range(queries[:0], radius=1)) == 0
    with pytest.raises(ClosedIndexError):
        result[0]


def test_an_empty_index_and_a_removed_record_are_not_found():
    for engine in ENGINES:
        with FaissIndex.create(None, CONFIG, engine=engine) as index:
            records = records_of(30)
            assert [list(hits) for hits in index.search_range(records[:2], radius=1e30, cutoff=None)] == [[], []]
            index.add(records)
            index.remove(range(0, 30, 2))
            found = index.search_range(records[:1], radius=1e30, cutoff=None)
            assert sorted(found.ids.tolist()) == list(range(1, 30, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": -1}, "radius = -1: expected greater than or equal to 0"),
        ({"radius": float("nan")}, "radius = nan"),
        ({"radius": "near"}, "radius"),
        ({"radius": 1, "by": "cosine"}, "by = 'cosine': expected 'distance' or 'hamming'"),
        ({"radius": 2.5, "by": "hamming"}, "radius = 2.5, expected a whole number of bits from 0 to 32"),
        ({"radius": 33, "by": "hamming"}, "from 0 to 32"),
        ({"radius": 1, "cutoff": 1}, "cutoff = 1"),
    ],
)
def test_a_wrong_argument_is_one_error_of_every_index(options, message):
    for index in (BruteForceIndex(CONFIG), FaissIndex.create(None, CONFIG)):
        with pytest.raises(InvalidParameterError, match=message):
            index.search_range(records_of(1), **options)
    with pytest.raises(InvalidEncodingsError):
        BruteForceIndex(IndexConfig(classes=6, bits=40, dim=8)).search_range(records_of(1), radius=1)


def test_a_result_that_would_be_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(range_result, "MAX_RESULTS", 50)
    for index in (BruteForceIndex(CONFIG), FaissIndex.create(None, CONFIG)):
        index.add(records_of(30))
        assert len(index.search_range(records_of(1), radius=1e30, cutoff=None).ids) == 30
        with pytest.raises(InvalidParameterError, match="at least 60 records are within the radius"):
            index.search_range(records_of(2), radius=1e30, cutoff=None)
