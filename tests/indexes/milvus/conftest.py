"""Fixtures of the tests of `MilvusIndex`.

Every test runs against milvus-lite and against a Milvus server, one for each process of tests: `make test` runs the
first of most modules, `make test-milvus` the rest. `make test-milvus-whole` runs the tests on servers with the cores of
milvus-lite 2.4 and 2.5 in place of both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from semcut.indexes import IndexConfig, SemanticIndex
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import ServerConnection
from tests.indexes import story as story_records
from tests.indexes.milvus.core_process import CoreProcess, has_core
from tests.indexes.milvus.pool import Backend
from tests.indexes.milvus.server_process import ServerProcess

ON_SERVER = pytest.param("server", marks=pytest.mark.milvus)


def skip_embedded() -> None:
    """Skip a test of an embedded file where no embedded Milvus is installed that semcut supports."""
    if has_core():
        pytest.skip("milvus-lite 2.x is installed, whose core is tested as a server; embedded files need 3.2")


def server_kind() -> type[ServerProcess | CoreProcess]:
    """Return the class of the servers that can be started here."""
    return CoreProcess if has_core() else ServerProcess


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory) -> Iterator[ServerProcess | CoreProcess]:
    """A server that no test may stop."""
    server = server_kind()(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
        yield server
    finally:
        server.delete()


@pytest.fixture(scope="session")
def token_server(tmp_path_factory, milvus_server) -> Iterator[ServerProcess]:
    """A server that needs a token. A test may stop or kill it if the test starts it again."""
    if has_core():
        pytest.skip("the core of milvus-lite has no authorization")
    server = ServerProcess(tmp_path_factory.mktemp("token"), authorization=True, binaries=milvus_server.directory)
    try:
        server.start()
        yield server
    finally:
        server.delete()


@pytest.fixture(scope="session", params=["lite", ON_SERVER])
def uri(request, tmp_path_factory) -> str:
    """The address of Milvus: an embedded file, or a server."""
    if request.param == "lite":
        skip_embedded()
        return str(tmp_path_factory.mktemp("milvus") / "milvus.db")
    return request.getfixturevalue("milvus_server").uri


@pytest.fixture(scope="session")
def backend(uri) -> Iterator[Backend]:
    """Milvus at that address, with a pool of empty indexes."""
    server = ServerConnection(uri)
    yield Backend(uri, server, {}, {})
    server.close()


@pytest.fixture
def make(backend) -> Iterator[Callable[[IndexConfig], SemanticIndex]]:
    """A function that creates empty indexes; all are closed at the end."""
    created: list[tuple[str, MilvusIndex]] = []

    def create(config: IndexConfig) -> SemanticIndex:
        name = backend.take(config)
        created.append((name, *backend.clients(name)))
        return created[-1][1]

    yield create
    for name, index in created:
        index.close()
        backend.give_back(name)


@pytest.fixture
def name(backend, config) -> Iterator[str]:
    """The name of an empty index of `config`."""
    name = backend.take(config)
    yield name
    backend.give_back(name)


@pytest.fixture
def story(backend) -> Iterator[str]:
    """The name of an empty index for the records of `tests.indexes.story`."""
    name = backend.take(story_records.CONFIG)
    yield name
    backend.give_back(name)


@pytest.fixture
def no_variables(monkeypatch) -> None:
    """An environment that names no server and no token."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


@pytest.fixture
def nothing_printed(capfd, caplog) -> Iterator[None]:
    """Fail if a test prints, or if pymilvus or milvus-lite log a warning or an error during it."""
    yield
    assert capfd.readouterr() == ("", "")
    logged = [record for record in caplog.get_records("call") if record.levelno > logging.INFO]
    assert [record for record in logged if record.name.startswith(("pymilvus", "milvus_lite"))] == []
