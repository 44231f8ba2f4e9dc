"""Whatever is wrong with a server, its address or what is there: one error in words, in time, and nothing printed."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymilvus import DataType, MilvusClient

from semcut.indexes import (
    ClosedIndexError,
    DamagedIndexError,
    Encodings,
    FormatVersionError,
    IndexConfig,
    IndexExistsError,
    InvalidEncodingsError,
    InvalidParameterError,
    NotAnIndexError,
    SemcutError,
    ServerError,
)
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.address import address_of
from semcut.indexes.milvus.connection import Server
from semcut.indexes.milvus.shared_state import catalogue_name
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.milvus.pool import Backend
from tests.indexes.milvus.server import TOKEN, free_ports

ROOT = Path(__file__).parents[3]
SLACK = 3  # seconds beside a timeout


@pytest.fixture(autouse=True)
def silence(capfd, caplog) -> Iterator[None]:
    """Nothing is printed, and pymilvus and milvus-lite log nothing that matters."""
    yield
    assert capfd.readouterr() == ("", "")
    logged = [record for record in caplog.get_records("call") if record.levelno > logging.INFO]
    assert [record for record in logged if record.name.startswith(("pymilvus", "milvus_lite"))] == []


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is inside ends in time, or is ended."""

    def late(*_) -> None:
        raise AssertionError(f"this takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def refused(error: type[SemcutError], message: str, *hidden: str) -> Iterator[None]:
    """An error of exactly this class, of one line, that hides addresses and tokens and has no other as its cause."""
    with pytest.raises(error, match=message) as raised:
        yield
    assert type(raised.value) is error
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    text = str(raised.value)
    assert "\n" not in text
    for secret in hidden:
        assert secret not in text


# addresses


@pytest.fixture
def no_environment(monkeypatch) -> None:
    """No server is named in the environment."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


def three(uri, **options) -> list:
    """Each way to reach a server."""
    config = IndexConfig(classes=3, bits=32, dim=4)
    return [
        lambda: MilvusIndex.create(uri, config, **options),
        lambda: MilvusIndex.open(uri, **options),
        lambda: MilvusIndex.drop(uri, **options),
    ]


@pytest.mark.parametrize("uri", [None, ""])
def test_a_server_has_to_be_given(no_environment, uri):
    for way in three(uri):
        with refused(InvalidParameterError, "no Milvus is given: pass a uri such as .*MILVUS_URI"):
            way()


@pytest.mark.parametrize("uri", ["localhost", "localhost:1", "ftp://secret:1", "/tmp/secret.sqlite", "nonsense"])
def test_an_address_that_is_none(no_environment, uri):
    for way in three(uri):
        with refused(InvalidParameterError, "the uri of Milvus cannot be understood: expected http://host:port", uri):
            way()


def test_a_file_in_a_directory_that_is_not_there(no_environment, tmp_path):
    uri = str(tmp_path / "secret" / "milvus.db")
    for way in three(uri):
        with refused(InvalidParameterError, "the directory of the embedded Milvus file does not exist", "secret"):
            way()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_made_by_create_alone(no_environment, tmp_path):
    path = tmp_path / "milvus.db"
    for way in three(path)[1:]:
        with refused(NotAnIndexError, "create an index, or check its name", str(tmp_path)):
            way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://", "http://:", "https:", "http:///secret"])
def test_an_address_without_a_host_is_not_taken_for_one_that_is_not_named(uri):
    """pymilvus takes it for localhost:19530, whoever has a server there."""
    with refused(InvalidParameterError, "the uri of Milvus cannot be understood: expected http://host:port"):
        address_of(uri)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://127.0.0.1:-1", "http://[::1"]
)
def test_an_address_that_nothing_can_have(no_environment, uri):
    for way in three(uri, timeout=1):
        with within(1 + SLACK), pytest.raises((InvalidParameterError, ServerError)) as raised:
            way()
        assert raised.value.__cause__ is None
        assert uri not in str(raised.value)


def test_nothing_listens_there(no_environment):
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    for way in three(uri, timeout=1, token="secret:secret"):
        message = r"Milvus did not answer within 1 s .*: check that it runs, its address"
        with within(1 + SLACK), refused(ServerError, message, str(port), "secret"):
            way()


@contextlib.contextmanager
def listener(answer: bytes = b"") -> Iterator[int]:
    """A port where connections are accepted, and what is said there."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        accepted: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])
                    accepted[-1].sendall(answer)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in accepted:
                one.close()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_listens_there_that_says_nothing_or_what_no_server_says(no_environment, answer):
    with listener(answer) as port:
        for way in three(f"http://127.0.0.1:{port}", timeout=0.5):
            with within(0.5 + SLACK), refused(ServerError, r"Milvus did not answer within 0.5 s", str(port)):
                way()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "10", None, True])
def test_a_timeout_that_is_none(timeout):
    for way in three("http://127.0.0.1:1", timeout=timeout):
        with refused(InvalidParameterError, r"timeout = .*, expected a number of seconds above 0"):
            way()


@pytest.mark.parametrize(
    "collection", ["", "a-b", "1a", "a b", "a.b", "ü", "a" * 201, None, 5, 'x" or id in [1]', "a\n"]
)
def test_a_name_that_is_none(backend, collection):
    for way in three(backend.uri, collection=collection):
        with refused(InvalidParameterError, r"collection = .*, expected up to 200 letters, digits and underscores"):
            way()


def test_names_from_the_environment(backend, name, monkeypatch, batch):
    monkeypatch.setenv("MILVUS_URI", backend.uri)
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    with MilvusIndex.open(None, collection=name) as index:
        index.add(batch)
        assert len(index) == 6
    monkeypatch.setenv("MILVUS_URI", "nonsense")
    with refused(InvalidParameterError, "the uri of Milvus cannot be understood"):
        MilvusIndex.open(None, collection=name)
    with MilvusIndex.open(backend.uri, collection=name) as index:  # what is given counts
        assert len(index) == 6


def test_a_file_that_another_process_has_open(tmp_path, config):
    script = """
import sys
from semcut.indexes import IndexConfig
from semcut.indexes.milvus import MilvusIndex
with MilvusIndex.create(sys.argv[1], IndexConfig(classes=3, bits=32, dim=4)):
    print("open", flush=True)
    sys.stdin.readline()
"""
    path = tmp_path / "milvus.db"
    other = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, path], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "open\n"
        with within(5), refused(ServerError, "another process has it open", str(tmp_path)):
            MilvusIndex.open(path, timeout=2)
    finally:
        other.communicate("close\n")
    assert other.returncode == 0
    MilvusIndex.open(path).close()


def test_a_process_prints_nothing_but_its_own_error(tmp_path):
    """Where no test framework takes care of what is logged."""
    (port,) = free_ports(1)
    script = """
import sys
from semcut.indexes import IndexConfig, SemcutError
from semcut.indexes.milvus import MilvusIndex
config = IndexConfig(classes=3, bits=32, dim=4)
for way in (lambda: MilvusIndex.open(sys.argv[1], timeout=1), lambda: MilvusIndex.open(sys.argv[2]),
            lambda: MilvusIndex.create(sys.argv[2], config), lambda: MilvusIndex.create(sys.argv[2], config),
            lambda: MilvusIndex.open(sys.argv[2], collection="other"),
            lambda: MilvusIndex.drop(sys.argv[2]), lambda: MilvusIndex.drop(sys.argv[2])):
    try:
        if (index := way()) is not None:
            index.close()
    except SemcutError as error:
        print(type(error).__name__)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, f"http://127.0.0.1:{port}", tmp_path / "milvus.db"],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.split() == ["ServerError", "NotAnIndexError", "IndexExistsError"] + 2 * ["NotAnIndexError"]
    assert done.returncode == 0


# what is there instead of an index


def test_an_index_that_is_not_there(backend):
    for way in three(backend.uri, collection="nobody")[1:]:
        with refused(NotAnIndexError, "there is no index nobody on this server: create it, or check its name"):
            way()


def test_an_index_that_is_there_already(backend, name, config, batch):
    with MilvusIndex.open(backend.uri, collection=name) as index:
        index.add(batch)
        for shape in (config, IndexConfig(classes=9, bits=64, dim=2)):
            with refused(IndexExistsError, f"there is an index {name} on this server: open it, or choose another name"):
                MilvusIndex.create(backend.uri, shape, collection=name)
        assert_same_records(index.get(batch.ids), batch)


@pytest.fixture
def foreign(backend) -> Iterator[str]:
    """A collection of somebody else, with a row; it is as before after the test."""
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


def test_a_collection_of_somebody_else(backend, foreign, config):
    with refused(IndexExistsError, f"there is a collection {foreign} on this server that is no index"):
        MilvusIndex.create(backend.uri, config, collection=foreign)
    for way in three(backend.uri, collection=foreign)[1:]:
        with refused(NotAnIndexError, f"there is no index {foreign} on this server"):
            way()


def test_a_collection_of_somebody_else_in_the_place_of_the_catalogue(backend, config):
    name, client = backend.unused(), MilvusClient(backend.uri)
    client.create_collection(catalogue_name(name), dimension=2)
    for way in three(backend.uri, collection=name):
        with pytest.raises((IndexExistsError, NotAnIndexError, DamagedIndexError)):
            way()
    assert client.has_collection(catalogue_name(name))
    client.drop_collection(catalogue_name(name))
    client.close()


@contextlib.contextmanager
def written(backend: Backend, name: str, key: int, text: str) -> Iterator[None]:
    """A row of the configuration is another."""
    collection = catalogue_name(name)
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
        "query", catalogue_name(name), filter="key in [0]", output_fields=["text"], strong=True
    )  # fmt: skip
    return json.loads(rows[0]["text"])


def another(content: dict, **changes) -> str:
    return json.dumps({**content, **changes})


DAMAGES = {
    "another format": (lambda content: another(content, format=3), FormatVersionError, "has format 3, this version"),
    "no text": (lambda content: "", DamagedIndexError, "the catalogue of .* cannot be read"),
    "cut off": (lambda content: json.dumps(content)[:-9], DamagedIndexError, "the catalogue of .* cannot be read"),
    "no object": (lambda content: "[1, 2]", DamagedIndexError, "the catalogue of .* cannot be read"),
    "no config": (lambda content: another(content, config={}), DamagedIndexError, "the catalogue of .* cannot be read"),
    "no kind": (lambda content: another(content, kind="none"), DamagedIndexError, "the catalogue of .* cannot be read"),
}


def test_a_catalogue_that_cannot_be_read_is_left_alone(backend, name, config, batch):
    with MilvusIndex.open(backend.uri, collection=name) as index:
        index.add(batch)
    content = config_of(backend, name)
    for change, error, message in list(DAMAGES.values())[:: 2 if backend.real else 1]:
        with written(backend, name, 0, change(content)):
            with refused(error, message):
                MilvusIndex.open(backend.uri, collection=name)
            with pytest.raises((IndexExistsError, error)):
                MilvusIndex.create(backend.uri, config, collection=name)
    with MilvusIndex.open(backend.uri, collection=name) as index:
        assert_same_records(index.get(batch.ids), batch)


class Fails:
    """Makes the n-th call of any connection fail, and all after it; tells how many there were."""

    def __init__(self, monkeypatch, number: int) -> None:
        self.calls = 0

        def call(server, name, /, *args, **kwargs):
            self.calls += 1
            if self.calls >= number:
                raise ServerError("it was cut off")
            return before(server, name, *args, **kwargs)

        before = Server.call
        monkeypatch.setattr(Server, "call", call)


def interrupted(backend: Backend, action, first: int = 1) -> Iterator[int]:
    """Does something again and again, cut off at one call, at a later one, ... until nothing is cut off."""
    for number in range(first, 60, 4 if backend.real else 2):  # seconds each on a server
        with pytest.MonkeyPatch.context() as patch:
            Fails(patch, number)
            try:
                action()
                return
            except ServerError:
                pass
        yield number
    pytest.fail("there are more calls")


def test_an_index_that_was_not_made_completely_can_be_made_again(backend, config, batch):
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


def test_what_is_left_of_an_index_that_was_not_made_completely_can_be_dropped(backend, config):
    name, dropped = backend.unused(), 0
    for _ in interrupted(backend, lambda: MilvusIndex.create(backend.uri, config, collection=name).close(), 2):
        if [left for left in backend.server.call("list_collections") if left.startswith(name)]:
            MilvusIndex.drop(backend.uri, collection=name)
            assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]
            dropped += 1
    assert dropped > 1
    MilvusIndex.drop(backend.uri, collection=name)


def test_an_index_that_was_not_dropped_completely_can_be_dropped_or_made_again(backend, config, batch):
    for again in (False, True):
        name = backend.unused()
        with MilvusIndex.create(backend.uri, config, collection=name) as index:
            index.add(batch)
        for _ in interrupted(backend, lambda name=name: MilvusIndex.drop(backend.uri, collection=name), 1 + again):
            if again:
                with contextlib.suppress(IndexExistsError):  # nothing of it has been dropped yet
                    MilvusIndex.create(backend.uri, config, collection=name).close()
        assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]


def test_a_dropped_index_leaves_nothing(backend, config):
    name, before = backend.unused(), sorted(backend.server.call("list_collections"))
    MilvusIndex.create(backend.uri, config, collection=name).close()
    MilvusIndex.drop(backend.uri, collection=name)
    assert sorted(backend.server.call("list_collections")) == before


def test_an_index_that_vanishes_while_it_is_open(backend, config, batch):
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
            with within(5), refused(NotAnIndexError, "the collection is not on the server, or no longer"):
                action()


# arguments that only a server refuses


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


def test_records_that_are_too_wide(backend):
    name = backend.unused()
    with refused(InvalidParameterError, r"at most 32768"):
        MilvusIndex.create(backend.uri, IndexConfig(classes=3, bits=32, dim=32_769), collection=name)
    assert not [left for left in backend.server.call("list_collections") if left.startswith(name)]


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

    for pause in (0.0, 0.3) if backend.real else (0.0, 0.01, 0.05, 0.2):
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


# real servers


@pytest.mark.milvus
@pytest.mark.parametrize("token", [None, "", "root:wrong", "nobody:Milvus", "no colon"])
def test_a_token_that_is_not_accepted(guarded, no_environment, token):
    hidden = [guarded.uri, *([token] if token else [])]
    for way in three(guarded.uri, token=token, timeout=5):
        message = r"Milvus does not accept the token: pass token=, or set MILVUS_TOKEN"
        with within(2), refused(ServerError, message, *hidden):  # it is not tried again
            way()


@pytest.mark.parametrize("token", ["ü:ü", "a\nb", b"root:Milvus", 5])
def test_a_token_that_none_can_have(no_environment, token):
    for way in three("http://127.0.0.1:1", token=token, timeout=1):
        with refused(InvalidParameterError, "the token is not a string of printable ASCII characters"):
            way()


@pytest.mark.milvus
def test_a_token_that_is_accepted_given_or_from_the_environment(guarded, monkeypatch, config, batch):
    with MilvusIndex.create(guarded.uri, config, token=TOKEN) as index:
        index.add(batch)
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    monkeypatch.setenv("MILVUS_URI", guarded.uri)
    with MilvusIndex.open(None) as index:
        assert len(index) == 6
    with refused(ServerError, "Milvus does not accept the token", "wrong"):
        MilvusIndex.open(None, token="root:wrong")
    monkeypatch.setenv("MILVUS_TOKEN", "root:wrong")
    with refused(ServerError, "Milvus does not accept the token", "wrong"):
        MilvusIndex.open(None)
    MilvusIndex.drop(None, token=TOKEN)


@pytest.mark.milvus
def test_a_database_that_is_not_there(guarded, config):
    with within(30 + SLACK), pytest.raises((ServerError, NotAnIndexError)) as raised:
        MilvusIndex.create(guarded.uri, config, token=TOKEN, database="nowhere", timeout=5)
    assert guarded.uri not in str(raised.value)


@pytest.mark.milvus
def test_a_server_that_hangs(guarded, config, batch):
    MilvusIndex.create(guarded.uri, config, token=TOKEN, collection="hangs").close()
    index = MilvusIndex.open(guarded.uri, token=TOKEN, collection="hangs", timeout=1)
    index.add(batch[:3])
    found = index.search(batch, k=3)
    with guarded.hanging():
        for action in (
            lambda: index.search(batch),
            lambda: index.add(batch[3:]),
            lambda: index.remove([10]),
            lambda: len(index),
            lambda: MilvusIndex.open(guarded.uri, token=TOKEN, collection="hangs", timeout=1),
        ):
            message = r"Milvus did not answer within 1 s \(.*\): check that it runs, its address"
            with within(1 + SLACK), refused(ServerError, message, guarded.uri, TOKEN):
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
    MilvusIndex.drop(guarded.uri, token=TOKEN, collection="hangs")


@pytest.mark.milvus
def test_an_index_is_closed_in_time_when_its_server_hangs(guarded, config, batch):
    MilvusIndex.create(guarded.uri, config, token=TOKEN, collection="closes").close()
    index = MilvusIndex.open(guarded.uri, token=TOKEN, collection="closes", timeout=1)
    index.add(batch)
    with guarded.hanging(), within(1 + SLACK):
        index.close()
    MilvusIndex.drop(guarded.uri, token=TOKEN, collection="closes")
