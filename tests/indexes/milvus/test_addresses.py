"""Addresses, names and tokens that are malformed, or at which no server answers, lead to one clear error, in time."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from semcut.indexes import (
    InvalidParameterError,
    NotAnIndexError,
    ServerError,
)
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.address import resolve_address
from tests.indexes.milvus.error_checks import SLACK, refused, ways_to_connect, within
from tests.indexes.milvus.server_process import TOKEN, free_ports

pytestmark = pytest.mark.usefixtures("nothing_printed")

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("uri", [None, ""])
def test_a_server_has_to_be_given(no_variables, uri):
    for connect in ways_to_connect(uri):
        with refused(InvalidParameterError, "no address of Milvus is given: pass a uri such as .*MILVUS_URI"):
            connect()


@pytest.mark.parametrize("uri", ["localhost", "localhost:1", "ftp://secret:1", "/tmp/secret.sqlite", "nonsense"])
def test_a_malformed_address(no_variables, uri):
    for connect in ways_to_connect(uri):
        with refused(InvalidParameterError, "the uri of Milvus cannot be understood: expected http://host:port", uri):
            connect()


def test_a_file_in_a_directory_that_does_not_exist(no_variables, tmp_path):
    uri = str(tmp_path / "secret" / "milvus.db")
    for connect in ways_to_connect(uri):
        with refused(InvalidParameterError, "the directory of the embedded Milvus file does not exist", "secret"):
            connect()
    assert list(tmp_path.iterdir()) == []


def test_only_create_creates_a_file(no_variables, tmp_path):
    path = tmp_path / "milvus.db"
    for connect in ways_to_connect(path)[1:]:
        with refused(NotAnIndexError, "create an index, or check the name of the file", str(tmp_path)):
            connect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://", "http://:", "https:", "http:///secret"])
def test_an_address_without_a_host_is_malformed(uri):
    """pymilvus would connect to localhost:19530, a server that the user did not name."""
    with refused(InvalidParameterError, "the uri of Milvus cannot be understood: expected http://host:port"):
        resolve_address(uri)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:port", "http://127.0.0.1:99999", "http://127.0.0.1:-1", "http://[::1"]
)
def test_an_address_with_an_impossible_port_or_host(no_variables, uri):
    for connect in ways_to_connect(uri, timeout=1):
        with within(1 + SLACK), pytest.raises((InvalidParameterError, ServerError)) as raised:
            connect()
        assert raised.value.__cause__ is None
        assert uri not in str(raised.value)


def test_no_server_listens(no_variables):
    (port,) = free_ports(1)
    uri = f"http://127.0.0.1:{port}"
    for connect in ways_to_connect(uri, timeout=1, token="secret:secret"):
        message = r"Milvus did not answer within 1 s .*: check that it runs, check its address"
        with within(1 + SLACK), refused(ServerError, message, str(port), "secret"):
            connect()


@contextlib.contextmanager
def listener(answer: bytes = b"") -> Iterator[int]:
    """Listen on a port, and send an answer to every connection."""
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
def test_a_listener_that_sends_nothing_or_what_no_milvus_sends(no_variables, answer):
    with listener(answer) as port:
        for connect in ways_to_connect(f"http://127.0.0.1:{port}", timeout=0.5):
            with within(0.5 + SLACK), refused(ServerError, r"Milvus did not answer within 0.5 s", str(port)):
                connect()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "10", None, True])
def test_a_timeout_that_is_no_number_of_seconds(timeout):
    for connect in ways_to_connect("http://127.0.0.1:1", timeout=timeout):
        with refused(InvalidParameterError, r"timeout = .*, expected a number of seconds above 0"):
            connect()


@pytest.mark.parametrize(
    "collection", ["", "a-b", "1a", "a b", "a.b", "ü", "a" * 201, None, 5, 'x" or id in [1]', "a\n"]
)
def test_a_malformed_name_of_a_collection(backend, collection):
    for connect in ways_to_connect(backend.uri, collection=collection):
        with refused(InvalidParameterError, r"collection = .*, expected up to 200 letters, digits and underscores"):
            connect()


def test_address_and_token_from_the_environment(backend, name, monkeypatch, batch):
    monkeypatch.setenv("MILVUS_URI", backend.uri)
    monkeypatch.setenv("MILVUS_TOKEN", TOKEN)
    with MilvusIndex.open(None, collection=name) as index:
        index.add(batch)
        assert len(index) == 6
    monkeypatch.setenv("MILVUS_URI", "nonsense")
    with refused(InvalidParameterError, "the uri of Milvus cannot be understood"):
        MilvusIndex.open(None, collection=name)
    with MilvusIndex.open(backend.uri, collection=name) as index:  # an argument overrides the environment
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
    """In a process of its own, where no test framework captures the log."""
    (port,) = free_ports(1)
    script = """
import sys
from semcut.indexes import IndexConfig, SemcutError
from semcut.indexes.milvus import MilvusIndex
config = IndexConfig(classes=3, bits=32, dim=4)
for connect in (lambda: MilvusIndex.open(sys.argv[1], timeout=1), lambda: MilvusIndex.open(sys.argv[2]),
                lambda: MilvusIndex.create(sys.argv[2], config), lambda: MilvusIndex.create(sys.argv[2], config),
                lambda: MilvusIndex.open(sys.argv[2], collection="other"),
                lambda: MilvusIndex.drop(sys.argv[2]), lambda: MilvusIndex.drop(sys.argv[2])):
    try:
        if (index := connect()) is not None:
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


@pytest.mark.parametrize("token", ["ü:ü", "a\nb", b"root:Milvus", 5])
def test_a_malformed_token(no_variables, token):
    for connect in ways_to_connect("http://127.0.0.1:1", token=token, timeout=1):
        with refused(InvalidParameterError, "the token is not a string of printable ASCII characters"):
            connect()
