"""Failing calls on an open index: records that do not fit, closed indexes, refused tokens, servers that hang."""

from __future__ import annotations

import threading
import time

import pytest

from semcut.indexes import (
    ClosedIndexError,
    Encodings,
    InvalidEncodingsError,
    NotAnIndexError,
    ServerError,
)
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.milvus.error_checks import SLACK, refused, ways_to_connect, within
from tests.indexes.milvus.server_process import TOKEN

pytestmark = pytest.mark.usefixtures("nothing_printed")


@pytest.mark.parametrize("text", ["x" * 65_536, "\N{SNOWMAN}" * 21_846])
def test_a_uri_that_is_too_long_refuses_the_whole_batch(backend, name, batch, text):
    (index,) = backend.clients(name)
    index.add(batch[:1])
    long = Encodings(
        probabilities=batch.probabilities[1:], codes=batch.codes[1:], features=batch.features[1:], ids=batch.ids[1:],
        uris=[None, None, text, None, None],
    )  # fmt: skip
    for change in (index.add, index.upsert, index.load):
        with refused(InvalidEncodingsError, r"the uri .* has \d+ bytes, at most 65535 fit into Milvus"):
            change(long)
    assert index.ids().tolist() == [10]
    index.close()


# closing


@pytest.mark.parametrize("action", ["flush", "version", "load", "uris", "next_id", "len", "iterate"])
def test_a_closed_index_refuses_the_rest(backend, name, batch, action):
    (index,) = backend.clients(name)
    parts = index.iterate()
    index.close()
    with refused(ClosedIndexError, "the index was closed: open it again"):
        {
            "flush": lambda: index.flush(),
            "version": lambda: index.version,
            "load": lambda: index.load(batch),
            "uris": lambda: index.uris([1]),
            "next_id": lambda: index.next_id(),
            "len": lambda: len(index),
            "iterate": lambda: list(parts),
        }[action]()


def test_an_index_that_is_closed_while_others_use_it(backend, name, batch):
    queries = batch[[0, 1, 2, 3, 4, 5] * 5]
    actions = [
        lambda index: index.search(queries, k=3),
        lambda index: index.search(queries, k=3, cutoff=0.0, shortlist=None),
        lambda index: index.get(batch.ids),
        lambda index: list(index.iterate(2)),
        lambda index: index.upsert(batch),
    ]

    def use(action, index, failures) -> None:
        try:
            while True:
                action(index)
        except BaseException as error:
            failures.append(error)

    for pause in (0.0, 0.3) if backend.is_server else (0.0, 0.01, 0.05, 0.2):
        (index,) = backend.clients(name)
        index.upsert(batch)
        failures: list[BaseException] = []
        users = [threading.Thread(target=use, args=(action, index, failures)) for action in actions]
        for user in users:
            user.start()
        time.sleep(pause)
        with within(10):
            index.close()
            for user in users:
                user.join()
        assert [type(error) for error in failures] == [ClosedIndexError] * len(users), failures


# servers


@pytest.mark.milvus
@pytest.mark.parametrize("token", [None, "", "root:wrong", "nobody:Milvus", "no colon"])
def test_a_refused_token(token_server, no_variables, token):
    hidden = [token_server.uri, *([token] if token else [])]
    for connect in ways_to_connect(token_server.uri, token=token, timeout=5):
        message = r"Milvus does not accept the token: pass token=, or set MILVUS_TOKEN"
        with within(2), refused(ServerError, message, *hidden):  # no second attempt
            connect()


@pytest.mark.milvus
def test_an_accepted_token_as_argument_or_from_the_environment(token_server, monkeypatch, config, batch):
    with MilvusIndex.create(token_server.uri, config, token=TOKEN) as index:
        index.add(batch)
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    monkeypatch.setenv("MILVUS_URI", token_server.uri)
    with MilvusIndex.open(None) as index:
        assert len(index) == 6
    with refused(ServerError, "Milvus does not accept the token", "wrong"):
        MilvusIndex.open(None, token="root:wrong")
    monkeypatch.setenv("MILVUS_TOKEN", "root:wrong")
    with refused(ServerError, "Milvus does not accept the token", "wrong"):
        MilvusIndex.open(None)
    MilvusIndex.drop(None, token=TOKEN)


@pytest.mark.milvus
def test_a_database_that_does_not_exist(token_server, config):
    with within(30 + SLACK), pytest.raises((ServerError, NotAnIndexError)) as raised:
        MilvusIndex.create(token_server.uri, config, token=TOKEN, database="nowhere", timeout=5)
    assert token_server.uri not in str(raised.value)


@pytest.mark.milvus
def test_a_server_that_hangs(token_server, config, batch):
    MilvusIndex.create(token_server.uri, config, token=TOKEN, collection="hangs").close()
    index = MilvusIndex.open(token_server.uri, token=TOKEN, collection="hangs", timeout=1)
    index.add(batch[:3])
    found = index.search(batch, k=3)
    with token_server.hanging():
        for action in (
            lambda: index.search(batch),
            lambda: index.add(batch[3:]),
            lambda: index.remove([10]),
            lambda: len(index),
            lambda: MilvusIndex.open(token_server.uri, token=TOKEN, collection="hangs", timeout=1),
        ):
            message = r"Milvus did not answer within 1 s \(.*\): check that it runs, check its address"
            with within(1 + SLACK), refused(ServerError, message, token_server.uri, TOKEN):
                action()
    end = time.monotonic() + 30
    while True:
        try:
            assert_same(index.search(batch, k=3), found)
            break
        except ServerError:
            assert time.monotonic() < end
    index.upsert(batch[3:])
    assert_same_records(index.get(batch.ids), batch)
    index.close()
    MilvusIndex.drop(token_server.uri, token=TOKEN, collection="hangs")


@pytest.mark.milvus
def test_an_index_is_closed_in_time_when_its_server_hangs(token_server, config, batch):
    MilvusIndex.create(token_server.uri, config, token=TOKEN, collection="closes").close()
    index = MilvusIndex.open(token_server.uri, token=TOKEN, collection="closes", timeout=1)
    index.add(batch)
    with token_server.hanging(), within(1 + SLACK):
        index.close()
    MilvusIndex.drop(token_server.uri, token=TOKEN, collection="closes")
