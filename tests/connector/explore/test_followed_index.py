"""Test that a server notices when its index is deleted or replaced, follows where that is safe, and says so if not."""

from __future__ import annotations

import faulthandler
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.explore import followed_index, health_check
from semcut.connector.explore.followed_index import FollowedIndex
from semcut.connector.explore.open_index import open_stored
from semcut.connector.retrieval.model_link import LINK
from semcut.indexes import ClosedIndexError, FaissIndex, IndexConfig
from tests.connector.explore.conftest import client_of


@pytest.fixture(autouse=True)
def attempt_every_time(monkeypatch):
    monkeypatch.setattr(followed_index, "_ATTEMPT_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def patience(monkeypatch) -> Iterator[None]:
    """Wait for a check of health as long as any busy machine takes; if it takes longer, show what every thread does."""
    monkeypatch.setattr(health_check, "CHECK_SECONDS", 25.0)
    faulthandler.dump_traceback_later(20, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def path(model, digits, tmp_path) -> Path:
    """Make an index of 20 digits."""
    return index_of_digits(tmp_path / "index", model, digits, 20)


def index_of_digits(path: Path, model, digits, count: int) -> Path:
    with Connector.create(path, model.path) as connector:
        connector.add_files(digits.files[:count])
    return path


@pytest.fixture
def followed(path: Path) -> Iterator[FollowedIndex]:
    with FollowedIndex(path, open_stored(path, None, "cpu", warn=pytest.fail)) as opened:
        yield opened


def replace(path: Path, by: Path) -> None:
    path.rename(path.with_name("before"))
    by.rename(path)


def test_a_new_index_of_the_same_network_is_served(path, followed, model, digits, tmp_path):
    client = client_of(followed)
    before = client.get("/stats").json()
    assert before["records"] == 20
    replace(path, index_of_digits(tmp_path / "new", model, digits, 20))
    assert client.get("/stats").json()["version"] != before["version"]
    (path.with_name("before")).rename(tmp_path / "first")
    replace(path, index_of_digits(tmp_path / "new", model, digits, 30))
    assert client.get("/health").status_code == 200
    assert client.get("/stats").json()["records"] == 30
    found = client.post("/search", json={"id": 25, "k": 1, "compare": True}).json()
    assert found["hits"][0]["record"]["uri"] == digits.files[25]
    assert client.get("/records/25/thumbnail").status_code == 200
    shutil.rmtree(tmp_path / "before")
    assert client.get("/stats").json()["records"] == 30


def test_a_deleted_index_is_an_error_until_it_is_there_again(path, followed, model, digits, tmp_path):
    client = client_of(followed)
    backup = shutil.copytree(path, tmp_path / "backup")
    shutil.rmtree(path)
    for path_of_api in ("/health", "/stats", "/records/1/thumbnail", "/search"):
        answer = client.post("/search", json={"id": 1}) if path_of_api == "/search" else client.get(path_of_api)
        assert answer.status_code == 503
        assert f"the index {path} was deleted or replaced" in answer.json()["error"]
        assert "put an index of the same network there, or start the server again" in answer.json()["error"]
    assert client.get("/").status_code == 200
    backup.rename(path)
    assert client.get("/health").status_code == 200
    assert client.post("/search", json={"id": 1}).status_code == 200


def test_an_index_that_was_moved_and_moved_back_is_served(path, followed, tmp_path):
    client = client_of(followed)
    path.rename(tmp_path / "elsewhere")
    assert client.get("/health").status_code == 503
    (tmp_path / "elsewhere").rename(path)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("kind", ["another shape", "another network", "no network", "damaged", "a file", "empty"])
def test_another_kind_of_index_is_not_served(kind, path, followed, model, digits, tmp_path):
    client, new = client_of(followed), tmp_path / "new"
    if kind == "another shape":
        FaissIndex.create(new, IndexConfig(classes=3, bits=32, dim=4)).close()
    elif kind == "a file":
        new.write_text("no index")
    elif kind == "empty":
        new.mkdir()
    else:
        index_of_digits(new, model, digits, 30)
        link = new / LINK
        if kind == "another network":
            link.write_text(link.read_text().replace(model.digest, "0" * 64))
        elif kind == "no network":
            link.unlink()
        else:
            next(new.glob("**/codes*")).write_bytes(b"")
    replace(path, new)
    for _ in range(2):
        answer = client.get("/health")
        assert answer.status_code == 503
        assert "what is there now cannot be served in its place" in answer.json()["error"]
    shutil.move(path, tmp_path / "other")
    (tmp_path / "before").rename(path)
    assert client.get("/health").status_code == 200


def test_a_request_that_runs_keeps_its_index_which_is_closed_afterwards(path, followed, model, digits, tmp_path):
    began, end = threading.Event(), threading.Event()

    def slow(service) -> int:
        began.set()
        assert end.wait(30)
        return service.stats().records

    before = followed.use(lambda service: service)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(followed.use, slow)
        assert began.wait(30)
        replace(path, index_of_digits(tmp_path / "new", model, digits, 30))
        assert followed.use(lambda service: service.stats().records) == 30
        end.set()
        assert running.result() == 20
    with pytest.raises(ClosedIndexError):
        before.stats()


def test_an_index_in_memory_is_always_in_place():
    with FaissIndex.create(None, IndexConfig(classes=2, bits=32, dim=2)) as index:
        assert index.in_place
