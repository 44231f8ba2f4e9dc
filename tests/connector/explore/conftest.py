"""Fixtures: an index of scanned digits with its network, and clients and servers of this index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.connection_guard import create_server
from semcut.connector.explore.http_api import create_app
from semcut.connector.explore.service import ExploreService
from semcut.connector.models.checkpoint import Checkpoint
from semcut.indexes import FaissIndex


@pytest.fixture(scope="session")
def connector(stored: Path) -> Iterator[Connector]:
    with Connector.open(stored) as opened:
        yield opened


@pytest.fixture(scope="session")
def service(connector: Connector, digits: ImageSet) -> ExploreService:
    return ExploreService(connector.index, digits.classes, connector.encoder.encode_read)


@pytest.fixture(scope="session")
def client(service: ExploreService) -> Iterator[TestClient]:
    with client_of(service) as opened:
        yield opened


def client_of(service: ExploreService, **settings: object) -> TestClient:
    """Create a client that calls the application directly; an exception inside it becomes a response."""
    app = create_app(service, **settings)  # type: ignore[arg-type]
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., str]]:
    """Give a function that starts a server on loopback and returns its address."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(service: ExploreService, *, token: str | None = None) -> str:
        server = create_server(create_app(service, token=token))
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def writer_and_reader(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> Iterator[tuple[Connector, FaissIndex]]:
    """Give a writer and a reader of the same stored index of 20 digits."""
    with Connector.create(tmp_path / "index", model.path) as writer:
        writer.add_files(digits.files[:20])
        with FaissIndex.open(tmp_path / "index") as reader:
            yield writer, reader
