"""Create, open and drop an index: with other collections of the same name, and after interruptions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from pymilvus import DataType, MilvusClient

from semcut.indexes import (
    DamagedIndexError,
    FormatVersionError,
    IndexConfig,
    IndexExistsError,
    InvalidParameterError,
    NotAnIndexError,
    ServerError,
)
from semcut.indexes.milvus import MilvusIndex, lifecycle
from semcut.indexes.milvus.connection import ServerConnection
from semcut.indexes.milvus.shared_rows import shared_collection_name
from tests.indexes.generate import assert_same_records
from tests.indexes.milvus.error_checks import refused, ways_to_connect, within
from tests.indexes.milvus.pool import Backend

pytestmark = pytest.mark.usefixtures("nothing_printed")


def test_an_index_that_does_not_exist(backend):
    for connect in ways_to_connect(backend.uri, collection="unknown")[1:]:
        with refused(NotAnIndexError, "there is no index unknown on this server: create it, or check its name"):
            connect()


def test_an_index_that_exists_already(backend, name, config, batch):
    with MilvusIndex.open(backend.uri, collection=name) as index:
        index.add(batch)
        for other in (config, IndexConfig(classes=9, bits=64, dim=2)):
            with refused(IndexExistsError, f"there is an index {name} on this server: open it, or choose another name"):
                MilvusIndex.create(backend.uri, other, collection=name)
        assert_same_records(index.get(batch.ids), batch)


@pytest.fixture
def foreign(backend) -> Iterator[str]:
    """The name of a collection that is not an index, with a row; the test must not change the collection."""
    name, client = backend.unused(), MilvusClient(backend.uri)
    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index(field_name="vector", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=indexes)
    client.upsert(name, [{"id": 7, "vector": [1.0, 2.0]}])
    yield name
    assert [row["id"] for row in client.query(name, filter="id >= 0", consistency_level="Strong")] == [7]
    client.drop_collection(name)
    client.close()


def test_a_foreign_collection(backend, foreign, config):
    with refused(IndexExistsError, f"there is a collection {foreign} on this server that is not an index"):
        MilvusIndex.create(backend.uri, config, collection=foreign)
    for connect in ways_to_connect(backend.uri, collection=foreign)[1:]:
        with refused(NotAnIndexError, f"there is no index {foreign} on this server"):
            connect()


def test_a_foreign_collection_with_the_name_of_the_shared_rows(backend, config):
    name, client = backend.unused(), MilvusClient(backend.uri)
    client.create_collection(shared_collection_name(name), dimension=2)
    for connect in ways_to_connect(backend.uri, collection=name):
        with pytest.raises((IndexExistsError, NotAnIndexError, DamagedIndexError)):
            connect()
    assert client.has_collection(shared_collection_name(name))
    client.drop_collection(shared_collection_name(name))
    client.close()


@contextlib.contextmanager
def replaced_text(backend: Backend, name: str, key: int, text: str) -> Iterator[None]:
    """Replace the text of a row of the configuration, for the block."""
    collection = shared_collection_name(name)
    (row,) = backend.server.read(
        "query", collection, filter=f"key in [{key}]", output_fields=["key", "cell", "low", "text", "envelope"],
        strong=True,
    )  # fmt: skip
    before = {**row, "envelope": list(row["envelope"])}
    backend.server.call("upsert", collection, [{**before, "text": text}])
    try:
        yield
    finally:
        backend.server.call("upsert", collection, [before])


def config_of(backend: Backend, name: str) -> dict:
    rows = backend.server.read(
        "query", shared_collection_name(name), filter="key in [0]", output_fields=["text"], strong=True
    )  # fmt: skip
    return json.loads(rows[0]["text"])


def changed(content: dict, **changes) -> str:
    return json.dumps({**content, **changes})


UNREADABLE = "the configuration of .* cannot be read"
DAMAGES = {
    "another format": (lambda content: changed(content, format=4), FormatVersionError, "has format 4, this version"),
    "keys in the format of an index without": (
        lambda content: changed(content, config=content["config"] | {"string_ids": True}),
        DamagedIndexError,
        UNREADABLE,
    ),
    "no text": (lambda content: "", DamagedIndexError, UNREADABLE),
    "cut off": (lambda content: json.dumps(content)[:-9], DamagedIndexError, UNREADABLE),
    "no object": (lambda content: "[1, 2]", DamagedIndexError, UNREADABLE),
    "no config": (
        lambda content: changed(content, config={}),
        DamagedIndexError,
        "the configuration of .* cannot be read",
    ),
    "no kind": (
        lambda content: changed(content, kind="none"),
        DamagedIndexError,
        "the configuration of .* cannot be read",
    ),
}


def test_a_configuration_that_cannot_be_read_is_not_replaced(backend, name, config, batch):
    with MilvusIndex.open(backend.uri, collection=name) as index:
        index.add(batch)
    content = config_of(backend, name)
    for change, error, message in list(DAMAGES.values())[:: 2 if backend.is_server else 1]:
        with replaced_text(backend, name, 0, change(content)):
            with refused(error, message):
                MilvusIndex.open(backend.uri, collection=name)
            with pytest.raises((IndexExistsError, error)):
                MilvusIndex.create(backend.uri, config, collection=name)
    with MilvusIndex.open(backend.uri, collection=name) as index:
        assert_same_records(index.get(batch.ids), batch)


def fail_from(number: int, monkeypatch) -> None:
    """Make the n-th call of any connection fail, and all after it."""
    calls, before = [], ServerConnection.call

    def call(server, name, /, *args, **kwargs):
        calls.append(name)
        if len(calls) >= number:
            raise ServerError("it was interrupted")
        return before(server, name, *args, **kwargs)

    monkeypatch.setattr(ServerConnection, "call", call)


def interrupted(backend: Backend, action, first: int = 1) -> Iterator[int]:
    """Interrupt an action at one call, then at later calls, until the action ends without an interruption."""
    for number in range(first, 60, 4 if backend.is_server else 2):  # each takes seconds on a server
        with pytest.MonkeyPatch.context() as patch:
            fail_from(number, patch)
            try:
                action()
                return
            except ServerError:
                pass
        yield number
    pytest.fail("there are more calls")


def test_an_interrupted_creation_can_be_repeated(backend, config, batch):
    name = backend.unused()
    for _ in interrupted(backend, lambda: MilvusIndex.create(backend.uri, config, collection=name).close()):
        with refused(NotAnIndexError, "create it"):
            MilvusIndex.open(backend.uri, collection=name)
    with MilvusIndex.open(backend.uri, collection=name) as index:
        index.add(batch)
        assert_same_records(index.get(batch.ids), batch)
        with pytest.raises(IndexExistsError):
            MilvusIndex.create(backend.uri, config, collection=name)
        assert len(index) == 6
    MilvusIndex.drop(backend.uri, collection=name)


def test_the_format_of_an_index_with_keys_is_refused_by_a_version_that_knows_no_keys(backend, name, config):
    """An index without keys is written as by earlier versions."""
    content = config_of(backend, name)
    assert content["format"] == 2
    assert "string_ids" not in content["config"]
    keyed = backend.take(config.model_copy(update={"string_ids": True}))
    assert config_of(backend, keyed)["format"] == 3
    with MilvusIndex.open(backend.uri, collection=keyed) as index:
        assert index.config == config.model_copy(update={"string_ids": True})
    backend.give_back(keyed)


@pytest.mark.parametrize("first", [False, True])
def test_an_interrupted_creation_with_or_without_keys_can_be_repeated_as_the_other(backend, config, first):
    name = backend.unused()
    configs = [config.model_copy(update={"string_ids": keys}) for keys in (first, not first)]

    def fails(server, schema) -> None:
        raise ServerError("it was interrupted")

    with pytest.MonkeyPatch.context() as patch, refused(ServerError, "it was interrupted"):
        patch.setattr(lifecycle, "_write_config", fails)
        MilvusIndex.create(backend.uri, configs[0], collection=name)
    with MilvusIndex.create(backend.uri, configs[1], collection=name) as index:
        assert index.config == configs[1]
        assert len(index) == 0
    MilvusIndex.drop(backend.uri, collection=name)


def test_what_an_interrupted_creation_leaves_can_be_dropped(backend, config):
    name, dropped = backend.unused(), 0
    for _ in interrupted(backend, lambda: MilvusIndex.create(backend.uri, config, collection=name).close(), 2):
        if [left for left in backend.server.call("list_collections") if left.startswith(name)]:
            MilvusIndex.drop(backend.uri, collection=name)
            assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]
            dropped += 1
    assert dropped > 0
    MilvusIndex.drop(backend.uri, collection=name)


def test_after_an_interrupted_deletion_the_index_can_be_dropped_or_created_again(backend, config, batch):
    for again in (False, True):
        name = backend.unused()
        with MilvusIndex.create(backend.uri, config, collection=name) as index:
            index.add(batch)
        for _ in interrupted(backend, lambda name=name: MilvusIndex.drop(backend.uri, collection=name), 1 + again):
            if again:
                with contextlib.suppress(IndexExistsError):  # no collection has been dropped yet
                    MilvusIndex.create(backend.uri, config, collection=name).close()
        assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]


def test_a_dropped_index_leaves_nothing(backend, config):
    name, before = backend.unused(), sorted(backend.server.call("list_collections"))
    MilvusIndex.create(backend.uri, config, collection=name).close()
    MilvusIndex.drop(backend.uri, collection=name)
    assert sorted(backend.server.call("list_collections")) == before


def test_an_index_that_is_dropped_while_it_is_open(backend, config, batch):
    name = backend.unused()
    with MilvusIndex.create(backend.uri, config, collection=name) as index:
        index.add(batch[:3])
        index.search(batch)
        MilvusIndex.drop(backend.uri, collection=name)
        for action in (
            lambda: index.search(batch),
            lambda: index.get([10]),
            lambda: index.contains([10]),
            lambda: index.add(batch[3:]),
            lambda: index.upsert(batch[3:]),
            lambda: index.remove([10]),
            lambda: index.ids(),
            lambda: index.stats(),
            lambda: list(index.iterate()),
            lambda: len(index),
        ):
            with within(5), refused(NotAnIndexError, "the collection does not exist on the server, or was dropped"):
                action()


def test_records_that_are_too_wide(backend):
    name = backend.unused()
    with refused(InvalidParameterError, r"at most 32768"):
        MilvusIndex.create(backend.uri, IndexConfig(classes=3, bits=32, dim=32_769), collection=name)
    assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]
