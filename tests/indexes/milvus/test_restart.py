"""A server that is killed and started again keeps all acknowledged changes, and open indexes keep working."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from semcut.indexes import ServerError
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.milvus.clients import QUERIES, reference_of, written
from tests.indexes.milvus.server_process import TOKEN
from tests.indexes.story import CONFIG

RECOVERY = 150  # seconds that a server may take to load its collections again

pytestmark = pytest.mark.milvus


def recovered(action):
    """Return the result of an action as soon as the server executes it again."""
    end = time.monotonic() + RECOVERY
    while time.monotonic() < end:
        with contextlib.suppress(ServerError):
            return action()
        time.sleep(0.5)
    return action()


def test_a_server_that_is_killed_has_all_that_it_acknowledged(token_server):
    MilvusIndex.create(token_server.uri, CONFIG, token=TOKEN, collection="killed").close()
    index, reader = (MilvusIndex.open(token_server.uri, token=TOKEN, collection="killed", timeout=5) for _ in range(2))
    acknowledged: list[int] = []
    failures: list[BaseException] = []

    def add() -> None:
        try:
            while len(acknowledged) < 1000:
                index.add(written(15 * len(acknowledged), 15, len(acknowledged)))
                acknowledged.append(len(acknowledged))
        except BaseException as error:
            failures.append(error)

    adding = threading.Thread(target=add)
    adding.start()
    time.sleep(4)
    token_server.kill()
    adding.join(timeout=30)
    assert [type(error) for error in failures] == [ServerError]
    assert len(acknowledged) > 2
    start = time.monotonic()
    with pytest.raises(ServerError, match="Milvus did not answer within 5 s"):
        reader.search(QUERIES)
    with pytest.raises(ServerError, match="Milvus did not answer within 5 s"):
        MilvusIndex.open(token_server.uri, token=TOKEN, collection="killed", timeout=5)
    assert time.monotonic() - start < 2 * (5 + 3)
    token_server.start()

    reference = reference_of(*(written(15 * at, 15, at) for at in acknowledged))
    unfinished = written(15 * len(acknowledged), 15, len(acknowledged))
    there = recovered(lambda: reader.contains(unfinished.ids))
    assert there.all() or not there.any()
    if there.any():
        reference.add(unfinished)
    arguments = {"k": 100, "cutoff": 0.15, "shortlist": 2000}
    expected = reference.search(QUERIES, **arguments)
    assert_same(recovered(lambda: reader.search(QUERIES, **arguments)), expected)
    ids = np.sort(reference.ids())
    for client in (reader, index):
        np.testing.assert_array_equal(client.ids(), ids)
        assert_same_records(client.get(ids), reference.get(ids))
        assert_same(client.search(QUERIES, **arguments), expected)

    for one in (index, reference):  # both keep working
        if not there.any():
            one.add(unfinished)
        one.upsert(written(0, 20, 77))
        one.remove(np.arange(5))
    reader.add(written(50_000, 5))
    reference.add(written(50_000, 5))
    with MilvusIndex.open(token_server.uri, token=TOKEN, collection="killed", strong=True) as fresh:
        assert_same(fresh.search(QUERIES, **arguments), reference.search(QUERIES, **arguments))
        assert_same_records(fresh.get(reference.ids()), reference.get(reference.ids()))
    index.close()
    reader.close()
    MilvusIndex.drop(token_server.uri, token=TOKEN, collection="killed")
