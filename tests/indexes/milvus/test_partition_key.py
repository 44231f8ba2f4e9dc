"""Partitions by dominant class on the server: the same answers, or a refusal where the server would lose records."""

from __future__ import annotations

import numpy as np
import pytest

from indexes import BruteForceIndex, IndexConfig, InvalidParameterError
from indexes.milvus import MilvusIndex
from indexes.milvus.server import Server, among
from tests.indexes.generate import assert_same, classified

CONFIG = IndexConfig(classes=9, bits=64, dim=8)


def test_the_same_answers_or_a_refusal(backend):
    """Also after records have got another class: milvus-lite finds them; Milvus 2.3 does not, and is not used."""
    name = backend.unused()
    if backend.real:
        with pytest.raises(InvalidParameterError, match="wrong partitions"):
            MilvusIndex.create(backend.uri, CONFIG, collection=name, partition_key=True)
        assert not any(name in there for there in backend.server.call("list_collections"))
        return
    rng = np.random.default_rng(3)
    records, others, queries = (classified(rng, CONFIG, rows) for rows in (300, 300, 10))
    reference = BruteForceIndex.create(None, CONFIG)
    with MilvusIndex.create(backend.uri, CONFIG, collection=name, partition_key=True) as index:
        assert len(index) == 0
        for one in (index, reference):
            one.add(records)
            one.upsert(others[:100])
            one.remove(range(20))
        for cutoff in (0.0, 0.3):
            found = index.search(queries, cutoff=cutoff, shortlist=None)
            assert_same(found, reference.search(queries, cutoff=cutoff, shortlist=None))
    with MilvusIndex.open(backend.uri, collection=name) as index:  # the option is stored with the index
        assert_same(index.search(queries, shortlist=None), reference.search(queries, shortlist=None))
    MilvusIndex.drop(backend.uri, collection=name)


def test_searches_name_the_partitions(backend, monkeypatch):
    """Otherwise the server could not leave out any."""
    if backend.real:
        pytest.skip("Milvus 2.3 has no partition key that can be used; it is there in 2.4 and newer")
    name, asked = backend.unused(), []
    with MilvusIndex.create(backend.uri, CONFIG, collection=name, partition_key=True) as index:
        index.add(classified(np.random.default_rng(3), CONFIG, 100))
        call = Server.call

        def listened(self, method, /, *args, **kwargs):
            asked.append((method, kwargs.get("filter", "")))
            return call(self, method, *args, **kwargs)

        monkeypatch.setattr(Server, "call", listened)
        index.search(classified(np.random.default_rng(3), CONFIG, 1), cutoff=0.5)
    searches = [condition for method, condition in asked if method == "search"]
    assert searches
    assert all(condition.startswith("(dominant in [") and among("cell", [])[:7] in condition for condition in searches)
    MilvusIndex.drop(backend.uri, collection=name)
