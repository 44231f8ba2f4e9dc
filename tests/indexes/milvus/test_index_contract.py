"""The tests that every index has to pass, applied to `MilvusIndex`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

from semcut.indexes.milvus import MilvusIndex
from tests.indexes import test_errors, test_faiss_index, test_index, test_life
from tests.indexes.generate import assert_same, assert_same_records

DIFFERENT = {
    "test_a_uri_may_be_any_text": "uris are 65,535 bytes at most, see test_same_answers_milvus",
    "test_nothing_relevant_gives_empty_places_but_tells_what_was_scanned": "codes scanned are not counted: -1",
    "test_an_id_that_was_removed_can_be_added_again": "ids come in ascending order, see test_life_milvus",
    "test_an_upsert_replaces_what_is_there_and_adds_the_rest": "ids come in ascending order, see test_life_milvus",
    "test_iterating_goes_on_over_the_records_as_they_were": "changes may show, see test_life_milvus",
}
"""Tests that do not apply, each with the reason; the test modules named there test what applies instead."""

ON_SERVERS = {
    "test_a_probability_so_small_that_the_relevance_is_zero_does_not_make_a_record_relevant",
    "test_a_removal_or_upsert_that_is_refused_changes_nothing",
    "test_a_removed_record_is_gone",
    "test_a_shortlist_far_longer_than_the_index_takes_no_more_memory_than_the_index",
    "test_everything_can_be_removed",
    "test_fused_ranking_depends_on_the_records_that_are_there",
    "test_records_with_and_without_uris_may_be_mixed",
    "test_the_fused_ranking_needs_records_of_length_1",
}
"""Tests that create indexes and also run against a server, where each takes seconds."""


def shared(module: ModuleType) -> dict:
    """Return the tests of a module that create an index, or use one."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("test_") and {"make", "index"} & set(inspect.signature(value).parameters)
    }


MODULES = (test_index, test_errors, test_life, test_faiss_index)
FOUND = {name: value for module in MODULES for name, value in shared(module).items()}


def on_lite(test):
    """Return the test, for milvus-lite only."""

    @functools.wraps(test)
    def alone(*args, **kwargs) -> None:
        test(*args, **kwargs)

    return pytest.mark.parametrize("uri", ["lite"], indirect=True)(alone)


for name in [name for name in FOUND if name not in DIFFERENT]:
    everywhere = name in ON_SERVERS or "make" not in inspect.signature(FOUND[name]).parameters
    globals()[name] = FOUND[name] if everywhere else on_lite(FOUND[name])


@pytest.fixture(scope="module")
def used(backend) -> Iterator[list]:
    """The index that `index` returns, with its state; at the end of the module the index must be unchanged."""
    used: list = []
    yield used
    for index, batch, name, stats, result in used:
        assert index.stats() == stats
        assert_same(index.search(batch, k=6, cutoff=0.0), result)
        assert_same_records(index.get(batch.ids), batch)
        index.close()
        backend.give_back(name)


@pytest.fixture
def index(used, backend, config, batch) -> MilvusIndex:
    """An index with records, which no test may change."""
    if not used:
        name = backend.take(config)
        (index,) = backend.clients(name)
        index.add(batch)
        used.append((index, batch, name, index.stats(), index.search(batch, k=6, cutoff=0.0)))
    return used[0][0]


def test_every_test_named_here_exists():
    assert DIFFERENT.keys() <= FOUND.keys()
    assert FOUND.keys() >= ON_SERVERS
    assert len(FOUND) > 50
