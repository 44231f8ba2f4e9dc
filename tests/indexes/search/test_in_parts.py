"""A query whose cells are split over threads gets the answer that one thread gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.search import compiled, in_parts
from semcut.indexes.search.vectorised import VectorisedSearch
from semcut.indexes.search_tuning import TUNING
from tests.indexes.generate import PROPERTY, World, assert_same, classified, each, filled, worlds
from tests.indexes.overrides import override

CONFIG = IndexConfig(classes=40, bits=64, dim=8)


def split(patch: pytest.MonkeyPatch, threads: int, codes: int = 0) -> None:
    """Split queries that scan more than some codes over some threads."""
    override(patch, TUNING, "scanned_alone", codes)
    override(patch, TUNING, "ranked_alone", codes)
    patch.setattr(compiled, "thread_count", lambda: threads)


@contextmanager
def left_to_the_vectorised_search() -> Iterator[list[int]]:
    """Collect how many queries are left to it. It may keep a cell more or less."""
    left: list[int] = []
    answer = VectorisedSearch.answer

    def counted(*args):
        left.append(len(args[1]))
        return answer(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VectorisedSearch, "answer", counted)
        yield left


@PROPERTY
@given(
    world=worlds(),
    threads=st.sampled_from([2, 3, 7]),
    doubt=st.sampled_from([1.0, 1.0, 2.0**24]),
    size=st.sampled_from([(1, None), (7, None), (3, 5), (3, 1000)]),
)
def test_the_answer_is_that_of_one_thread_and_of_brute_force(world: World, threads: int, doubt: float, size):
    (k, shortlist), brute_force = size, world.brute_force()
    index = filled(FaissIndex.create(None, world.config, engine="compiled"), world.batches)
    queries = world.queries[: TUNING.split_compiled - 1]
    for cutoff, ranking in each(world):
        options = {"k": k, "cutoff": cutoff, "shortlist": shortlist, "ranking": ranking}
        with left_to_the_vectorised_search() as left, pytest.MonkeyPatch.context() as patch:
            alone = index.search(queries, **options)
            split(patch, threads)
            patch.setattr(compiled, "_DOUBT", doubt)
            found = index.search(queries, **options)
        assert_same(found, alone)
        if not left:
            for name in ("partitions", "cells", "codes"):
                np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
        if shortlist is None:
            assert_same(found, brute_force.search(queries, **options))


@pytest.mark.parametrize("options", [{"where": "price < 0.3"}, {"among": np.arange(0, 5000, 3)}, {"cutoff": None}])
@pytest.mark.parametrize("ranking", ["distance", "fused", "relevance"])
def test_other_searches_are_split_too(options, ranking, monkeypatch):
    """Filters, and no cutoff, whose second search has a cutoff for each query."""
    rng = np.random.default_rng(5)
    config = IndexConfig(classes=40, bits=64, dim=8, attributes={"price": "float"})
    index = filled(FaissIndex.create(None, config, engine="compiled"), [classified(rng, config, 5000)])
    queries, parts = classified(rng, config, 9), []
    alone = [index.search(queries, shortlist=shortlist, ranking=ranking, **options) for shortlist in (None, 20)]
    split(monkeypatch, 3)
    through = in_parts.search_in_parts
    monkeypatch.setattr(compiled, "search_in_parts", lambda *args: parts.append(args[4]) or through(*args))
    for shortlist, expected in zip((None, 20), alone, strict=True):
        assert_same(index.search(queries, shortlist=shortlist, ranking=ranking, **options), expected)
    assert set(parts) == {3}


def test_rows_that_were_not_compared_with_their_checksums_are_compared(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="compiled") as index:
        index.add(classified(rng, CONFIG, 3000))
    queries = classified(rng, CONFIG, 9)
    with FaissIndex.open(tmp_path / "index", engine="faiss") as index:
        expected = index.search(queries, k=10, cutoff=0.2, shortlist=20)
    split(monkeypatch, 2)
    monkeypatch.setattr(compiled, "_ROUNDS", 1000)
    with FaissIndex.open(tmp_path / "index", engine="compiled") as index:
        assert_same(index.search(queries, k=10, cutoff=0.2, shortlist=20), expected)


def test_only_queries_with_many_codes_are_split_and_batches_are_not(monkeypatch):
    rng = np.random.default_rng(1)
    index = filled(FaissIndex.create(None, CONFIG, engine="compiled"), [classified(rng, CONFIG, 5000)])
    queries, split_queries = classified(rng, CONFIG, 64), []
    through = in_parts.search_in_parts
    monkeypatch.setattr(
        compiled, "search_in_parts", lambda *args: split_queries.append(len(args[2].codes)) or through(*args)
    )
    codes = index.search(queries, k=10, cutoff=0.2, shortlist=20).codes
    split(monkeypatch, 2, int(np.median(codes)))
    index.search(queries, k=10, cutoff=0.2, shortlist=20)
    assert not split_queries
    index.search(queries[:15], k=10, cutoff=0.2, shortlist=20)
    assert split_queries == [np.count_nonzero(codes[:15] > int(np.median(codes)))]
    split(monkeypatch, 1, 0)
    assert in_parts.codes_alone(20, 1) > 1 << 60


def test_what_is_joined_is_bounded(monkeypatch):
    """Slots for a shortlist of 250,000 in each of 16 threads took 1.7 GB, and seconds."""
    split(monkeypatch, 16)
    assert in_parts.codes_alone(4096, 16) == 0
    assert in_parts.codes_alone(4097, 16) > 1 << 60
    assert in_parts.codes_alone(None, 16) == 0


def test_one_large_cell_is_not_split(monkeypatch):
    """One thread would have all of it, and the others nothing."""
    rng = np.random.default_rng(4)
    config = IndexConfig(classes=2, bits=64, dim=4)
    records = classified(rng, config, 3000)
    index = filled(FaissIndex.create(None, config, engine="compiled"), [records])
    sure = Encodings(
        probabilities=np.array([[1.0, 0.0]], np.float32), codes=records.codes[:1], features=records.features[:1]
    )
    expected = index.search(sure, k=5, cutoff=0.2, shortlist=20)
    split(monkeypatch, 2)
    monkeypatch.setattr(compiled, "search_in_parts", None)
    assert_same(index.search(sure, k=5, cutoff=0.2, shortlist=20), expected)
