"""Searches of every record, which scan all cells in one run, give the answers of those that go from cell to cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from tests.indexes.generate import PROPERTY, World, assert_same, classified, filled, worlds

EVERY = {"cutoff": None, "ranking": "distance"}


@PROPERTY
@given(world=worlds(), share=st.sampled_from([0, 0.3]), shortlists=st.permutations([1, 2, 5, 30]))
def test_shortlists_are_those_of_the_vectorised_search(world: World, share: float, shortlists: list[int]):
    indexes = [FaissIndex.create(None, world.config, engine=engine) for engine in ("compiled", "faiss")]
    for index in indexes:
        filled(index, world.batches[:1])
        index.search(world.queries, **EVERY)  # so that cells of later batches follow, or move
        filled(index, world.batches[1:])
        ids = index.ids()
        index.remove(ids[np.random.default_rng(world.seed).random(len(ids)) < share])
    for shortlist in shortlists[:2]:
        compiled, vectorised = (
            index.search(world.queries, k=min(3, shortlist), shortlist=shortlist, **EVERY) for index in indexes
        )
        assert_same(compiled, vectorised)
        for name in ("partitions", "cells", "codes"):
            np.testing.assert_array_equal(getattr(compiled, name), getattr(vectorised, name))


@pytest.mark.parametrize("kinds", [None, 40])
def test_more_codes_than_the_buffer_of_a_scan_holds(kinds: int | None):
    """Codes of few kinds have thousands at one distance, among which the level and the mixed id choose."""
    rng = np.random.default_rng(7)
    config = IndexConfig(classes=300, bits=64, dim=4)
    records = classified(rng, config, 100_000)
    if kinds:
        some = rng.integers(0, 256, (kinds, 8), np.uint8)
        records = Encodings(
            probabilities=records.probabilities,
            codes=some[rng.integers(0, kinds, len(records))],
            features=records.features,
            ids=records.ids,
        )
    compiled, vectorised = (
        filled(FaissIndex.create(None, config, engine=engine), [records[:60_000], records[60_000:]])
        for engine in ("compiled", "faiss")
    )
    queries = classified(rng, config, 20)
    for size in (20, 3):  # in two threads, and one after the other
        for shortlist in (1, 100, 5000):
            options = {"k": min(shortlist, 10), "shortlist": shortlist, **EVERY}
            assert_same(compiled.search(queries[:size], **options), vectorised.search(queries[:size], **options))
