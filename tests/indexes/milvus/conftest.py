"""Every test here runs against milvus-lite, and with `make test-milvus` against a real server, one for each process of
tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from semcut.indexes import IndexConfig, SemanticIndex
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.connection import Server
from tests.indexes.milvus.pool import Backend
from tests.indexes.milvus.server import RealServer

REAL = pytest.param("server", marks=pytest.mark.milvus)


@pytest.fixture(scope="session")
def real_server(tmp_path_factory) -> Iterator[RealServer]:
    """A server that nobody ends."""
    server = RealServer(tmp_path_factory.mktemp("milvus"))
    try:
        server.start()
        yield server
    finally:
        server.delete()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory, real_server) -> Iterator[RealServer]:
    """A server that wants a token, and that a test may stop or kill if it starts it again."""
    server = RealServer(tmp_path_factory.mktemp("guarded"), authorization=True, binaries=real_server.directory)
    try:
        server.start()
        yield server
    finally:
        server.delete()


@pytest.fixture(scope="session", params=["lite", REAL])
def uri(request, tmp_path_factory) -> str:
    """Where Milvus is: an embedded file, or a server."""
    if request.param == "lite":
        return str(tmp_path_factory.mktemp("milvus") / "milvus.db")
    return request.getfixturevalue("real_server").uri


@pytest.fixture(scope="session")
def backend(uri) -> Iterator[Backend]:
    """That Milvus, with empty indexes to take."""
    server = Server(uri)
    yield Backend(uri, server, {}, {})
    server.close()


@pytest.fixture
def make(backend) -> Iterator[Callable[[IndexConfig], SemanticIndex]]:
    """Gives empty indexes; all are closed at the end."""
    made: list[tuple[str, MilvusIndex]] = []

    def create(config: IndexConfig) -> SemanticIndex:
        name = backend.take(config)
        made.append((name, *backend.clients(name)))
        return made[-1][1]

    yield create
    for name, index in made:
        index.close()
        backend.give_back(name)


@pytest.fixture
def name(backend, config) -> Iterator[str]:
    """The name of an empty index of `config`."""
    name = backend.take(config)
    yield name
    backend.give_back(name)
