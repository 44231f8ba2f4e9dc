"""A `SearchResult` read query by query, as dictionaries and as a data frame, and what a `SearchTrace` collects."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    BruteForceIndex,
    ClosedIndexError,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidParameterError,
    MissingDependencyError,
    SearchHit,
    SearchTrace,
    UnknownIdError,
)
from semcut.indexes.result import SearchResult
from tests.indexes.generate import assert_same, classified

CONFIG = IndexConfig(classes=6, bits=64, dim=8)


@pytest.fixture(scope="module")
def records() -> Encodings:
    records = classified(np.random.default_rng(0), CONFIG, 500)
    return Encodings(
        probabilities=records.probabilities,
        codes=records.codes,
        features=records.features,
        ids=records.ids,
        uris=[f"{number}.jpg" if number % 3 else None for number in records.ids.tolist()],
    )


@pytest.fixture(params=[FaissIndex, BruteForceIndex])
def index(request: pytest.FixtureRequest, records: Encodings):
    index = FaissIndex.create(None, CONFIG) if request.param is FaissIndex else BruteForceIndex(CONFIG)
    index.add(records)
    yield index
    index.close()


@pytest.fixture
def result(index, records) -> SearchResult:
    """Return the result of 5 queries. Some queries have fewer than 200 relevant records."""
    result = index.search(records[:5], k=200, cutoff=0.3, shortlist=None, fill=False)
    assert (result.ids < 0).any()
    return result


def test_a_query_gives_the_records_that_were_found_best_first(result, records):
    uris = dict(zip(records.ids.tolist(), records.uris, strict=True))
    assert len(result) == 5
    for query, hits in enumerate(result):
        assert hits == result[query] == result[query - 5]
        assert len(hits) == np.count_nonzero(result.ids[query] >= 0)
        for rank, hit in enumerate(hits):
            assert isinstance(hit, SearchHit)
            expected = (result.ids, result.distances, result.relevance, result.scores, result.hamming, result.filled)
            found = (hit.id, hit.distance, hit.relevance, hit.score, hit.hamming, hit.filled)
            assert found == tuple(array[query, rank].item() for array in expected)
            assert hit.uri == uris[hit.id]


def test_there_is_no_query_beyond_the_last(result):
    for query in (5, -6):
        with pytest.raises(IndexError, match=f"there is no query {query} in a result of 5 queries"):
            result[query]


def test_a_query_without_relevant_records_is_an_empty_list(index, records):
    (hits,) = index.search(records[:1], k=3, cutoff=0.9999, shortlist=None, fill=False)
    assert hits == []


def test_dictionaries_say_which_query_and_which_rank(result):
    rows = result.to_dicts()
    expected = [
        {"query": query, "rank": rank, **{name: getattr(hit, name) for name in SearchHit.__slots__ if name != "key"}}
        for query, hits in enumerate(result)
        for rank, hit in enumerate(hits)
    ]
    assert rows == expected


def test_scores_of_features_that_are_not_normalised_are_not_a_number():
    rng = np.random.default_rng(1)
    records = classified(rng, CONFIG, 20)
    index = BruteForceIndex(CONFIG)
    longer = Encodings(
        probabilities=records.probabilities, codes=records.codes, features=records.features * 2, ids=records.ids
    )
    index.add(longer)
    assert all(math.isnan(hit.score) for hits in index.search(longer[:2]) for hit in hits)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_has_the_same_columns(result, library):
    frames = pytest.importorskip(library)
    frame = result.to_frame(library)
    assert isinstance(frame, frames.DataFrame)
    rows = result.to_dicts()
    assert list(frame.columns) == list(rows[0])
    assert list(frame["id"]) == [row["id"] for row in rows]


def test_a_data_frame_without_a_library_says_what_to_install(result, monkeypatch):
    monkeypatch.setattr("semcut.indexes.result.find_spec", lambda name: None)
    for library, named in ((None, "pandas"), ("polars", "polars")):
        with pytest.raises(MissingDependencyError, match=rf"installed.*pip install {named}"):
            result.to_frame(library)
    with pytest.raises(InvalidParameterError, match="library = 'arrow', expected pandas, polars or None"):
        result.to_frame("arrow")


def test_uris_are_those_of_the_index_when_they_are_asked_for(records):
    index = FaissIndex.create(None, CONFIG)
    index.add(records)
    result = index.search(records[:1], k=3)
    index.remove(result.ids[0, :1])
    with pytest.raises(UnknownIdError):
        result[0]
    index.close()
    with pytest.raises(ClosedIndexError):
        result[0]


# traces


@pytest.mark.parametrize("shortlist", [20, None])
def test_a_traced_search_gives_the_same_and_says_what_it_did(index, records, shortlist):
    trace, options = SearchTrace(), {"k": 10, "cutoff": 0.2, "shortlist": shortlist}
    result = index.search(records[:100], **options, trace=trace)
    assert_same(result, index.search(records[:100], **options))
    assert trace.counts["queries"] == 100
    assert trace.seconds["total"] > 0
    if isinstance(index, FaissIndex):
        assert trace.seconds.keys() == {"prune", "shortlist", "rank", "total"}
        assert sum(seconds for name, seconds in trace.seconds.items() if name != "total") <= trace.seconds["total"]
        for name in ("partitions", "cells", "codes", "cut_off"):
            assert trace.counts[name] == getattr(result, name).sum()
        assert ("scans" in trace.counts) == (shortlist is not None)


def test_traces_add_up(index, records):
    trace = SearchTrace()
    for start in (0, 50):
        index.search(records[start : start + 50], trace=trace)
    assert trace.counts["queries"] == 100


def test_a_result_does_not_read_uris_unless_asked(tmp_path: Path, records, monkeypatch):
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(records)
        monkeypatch.setattr(FaissIndex, "_uris", lambda *rest: pytest.fail("uris were read"))
        result = index.search(records[:10])
        assert (result.ids[:, 0] >= 0).all()
