"""Partitions by dominant class give the same answers, or an error on a server that would lose records."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, IndexConfig, InvalidParameterError
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection
from tests.indexes.generate import assert_same, classified

CONFIG = IndexConfig(classes=9, bits=64, dim=8)


def created(backend, name, config: IndexConfig = CONFIG) -> MilvusIndex | InvalidParameterError:
    """Create an index with a partition key, or return the error."""
    try:
        return MilvusIndex.create(backend.uri, config, collection=name, partition_key=True)
    except InvalidParameterError as error:
        return error


def partitioned(backend, name) -> MilvusIndex:
    index = created(backend, name)
    if isinstance(index, InvalidParameterError):
        pytest.skip("this Milvus has no partition key under which all records are found: 2.4 has, 2.3 has not")
    return index


@pytest.mark.parametrize("keys", [False, True])
def test_a_partition_key_under_which_records_are_not_found_is_refused(backend, keys):
    """Milvus 2.3 must refuse; milvus-lite and newer servers must not."""
    name = backend.unused()
    index = created(backend, name, CONFIG.model_copy(update={"string_ids": keys}))
    if isinstance(index, InvalidParameterError):
        assert backend.is_server
        assert "wrong partitions" in str(index)
        assert not any(name in there for there in backend.server.call("list_collections"))
    else:
        assert len(index) == 0
        index.close()
        MilvusIndex.drop(backend.uri, collection=name)


def test_the_same_answers_with_a_partition_key(backend):
    """Also after the class of records has changed."""
    name = backend.unused()
    rng = np.random.default_rng(3)
    records, others, queries = (classified(rng, CONFIG, rows) for rows in (300, 300, 10))
    reference = BruteForceIndex(CONFIG)
    with partitioned(backend, name) as index:
        assert len(index) == 0
        for one in (index, reference):
            one.add(records)
            one.upsert(others[:100])
            one.remove(range(20))
        for cutoff in (0.0, 0.3):
            found = index.search(queries, cutoff=cutoff, shortlist=None)
            assert_same(found, reference.search(queries, cutoff=cutoff, shortlist=None))
    with MilvusIndex.open(backend.uri, collection=name) as index:  # the index stores the option
        assert_same(index.search(queries, shortlist=None), reference.search(queries, shortlist=None))
    MilvusIndex.drop(backend.uri, collection=name)


def test_searches_name_the_partitions(backend, monkeypatch):
    """Otherwise the server could not skip any partition."""
    name, calls = backend.unused(), []
    with partitioned(backend, name) as index:
        index.add(classified(np.random.default_rng(3), CONFIG, 100))
        call = ServerConnection.call

        def recorded(self, method, /, *args, **kwargs):
            calls.append((method, kwargs.get("filter", "")))
            return call(self, method, *args, **kwargs)

        monkeypatch.setattr(ServerConnection, "call", recorded)
        index.search(classified(np.random.default_rng(3), CONFIG, 1), cutoff=0.5, fill=False)
    searches = [condition for method, condition in calls if method == "search"]
    assert searches
    assert all("dominant in [" in condition and "cell in [" in condition for condition in searches)
    MilvusIndex.drop(backend.uri, collection=name)
