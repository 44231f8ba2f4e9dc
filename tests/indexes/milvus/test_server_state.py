"""What clients publish for each other on a server: batches that failed, and bounds that every replica has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymilvus.client.prepare import Prepare

from semcut.indexes import BruteForceIndex
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.shared_rows import WRITER, shared_collection_name, shared_row
from tests.indexes.generate import assert_same, filled
from tests.indexes.milvus.clients import QUERIES, SEARCH, assert_same_as, reference_of, written
from tests.indexes.story import CONFIG

STRONG = 0  # of pymilvus's ConsistencyLevel


def fail_adds(backend, name: str, count: int) -> None:
    """Publish what clients publish whose adds have failed, a hundred each, without their records."""
    states = [
        {
            "changes": 1,
            "bounds": 0,
            "hidden": [[4 * at + 2**61, 4 * at + 2**61 + 1] for at in range(first, first + 100)],
            "at": 2**33,  # not long ago: nobody deletes the row
            "left": False,
        }
        for first in range(0, count, 100)
    ]
    rows = [shared_row(CONFIG.classes, cell=WRITER, text=json.dumps(state)) for state in states]
    backend.server.call("upsert", shared_collection_name(name), rows)


def test_an_index_is_read_after_a_thousand_adds_have_failed(backend, story):
    """Servers refuse conditions that are nested a hundred deep."""
    fail_adds(backend, story, 1000)
    (index,) = backend.clients(story, strong=True)
    index.add(written(0, 20))
    reference = reference_of(written(0, 20))
    assert len(index._shared.view().hidden) == 1000
    assert_same_as(index, reference)
    found = index.search(QUERIES, **{**SEARCH, "shortlist": None})
    assert_same(found, reference.search(QUERIES, **{**SEARCH, "shortlist": None}))
    assert len(index) == 20
    index.close()


def test_pages_of_bounds_are_read_from_a_collection_that_is_strong(backend, config, batch, monkeypatch):
    """pymilvus sends no consistency level with a page, so that of the collection holds, on every replica."""
    created: dict[str, int] = {}
    pages = []
    create, query = Prepare.create_collection_request, Prepare.query_request

    def recorded_create(collection_name, fields, **kwargs):
        request = create(collection_name, fields, **kwargs)
        created[collection_name] = request.consistency_level
        return request

    def recorded_query(collection_name, *args, **kwargs):
        request = query(collection_name, *args, **kwargs)
        if any(one.key == "iterator" for one in request.query_params):
            pages.append((collection_name, request.use_default_consistency))
        return request

    monkeypatch.setattr(Prepare, "create_collection_request", recorded_create)
    monkeypatch.setattr(Prepare, "query_request", recorded_query)
    name = backend.unused()
    shared = shared_collection_name(name)
    with MilvusIndex.create(backend.uri, config, collection=name) as index:
        index.add(batch)
        with MilvusIndex.open(backend.uri, collection=name, strong=True) as reader:
            expected = filled(BruteForceIndex(config), [batch]).search(batch, k=3)
            np.testing.assert_array_equal(reader.search(batch, k=3).ids, expected.ids)
    assert (shared, True) in pages
    assert created[shared] == STRONG
    assert backend.server.call("describe_collection", shared)["consistency_level"] == STRONG
    MilvusIndex.drop(backend.uri, collection=name)


@pytest.mark.parametrize("misses", [1, 2])
def test_records_that_vanish_while_they_are_replaced_are_read_again(backend, story, misses):
    """On some servers, a read beside an upsert of the same records misses them, even in the newest state."""
    (index,) = backend.clients(story)
    index.add(written(0, 6))
    expected, call, missed = index.get(np.arange(6)), index._server.call, []

    def missing(name, *args, **kwargs):
        rows = call(name, *args, **kwargs)
        if len(missed) < misses and kwargs.get("output_fields") == ["id", "row"]:
            missed.append(rows[:4])
            return rows[4:]
        return rows

    index._server.call = missing
    np.testing.assert_array_equal(index.get(np.arange(6)).features, expected.features)
    assert len(missed) == misses
    index.close()
