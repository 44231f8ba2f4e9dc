"""Test the limits of work and memory: what is too much is refused at once, and the server still answers the rest."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import islice

import httpx2
import pytest

from semcut.connector.explore import health_check, request_bodies, request_guard
from semcut.connector.explore.service import ExploreService
from semcut.connector.explore.work_queue import BusyError, WorkQueue
from tests.connector.explore.conftest import client_of

JSON = {"content-type": "application/json"}


@pytest.fixture
def idle_service(connector, digits) -> ExploreService:
    """Give a service whose methods a test may replace."""
    return ExploreService(connector.index, digits.classes, connector.encoder.encode)


def test_a_queue_refuses_what_is_too_much_and_goes_on_when_work_has_ended():
    queue, end = WorkQueue("searches", threads=1, waiting=2), threading.Event()

    async def run() -> None:
        running = [queue.submit(end.wait) for _ in range(3)]
        with pytest.raises(BusyError, match="the server has 3 searches to do already: try again in a moment"):
            queue.submit(end.wait)
        running[2].cancel()
        await asyncio.sleep(0)
        while running[2] is not None:
            try:
                running[2] = queue.submit(lambda: True)  # the cancelled call has left its place
                break
            except BusyError:
                await asyncio.sleep(0.01)
        end.set()
        assert await asyncio.gather(*running) == [True, True, True]
        assert await queue.submit(lambda: 5) == 5

    asyncio.run(asyncio.wait_for(run(), 30))


def test_health_is_answered_and_searches_run_while_images_and_pictures_fill_their_queues(
    serve: Callable[[ExploreService], str], idle_service, monkeypatch
):
    end = threading.Event()
    monkeypatch.setattr(idle_service, "encode", lambda image: end.wait(60))
    monkeypatch.setattr(idle_service, "thumbnail", lambda record, size: end.wait(60))
    address = serve(idle_service)
    image = base64.b64encode(b"image").decode()
    with ThreadPoolExecutor(60) as pool, httpx2.Client(base_url=address, timeout=60) as client:
        sent = [pool.submit(httpx2.post, f"{address}/search", json={"image": image}, timeout=60) for _ in range(30)]
        sent += [pool.submit(httpx2.get, f"{address}/records/1/thumbnail", timeout=60) for _ in range(20)]
        try:
            for answer in islice(as_completed(sent), 13):  # one is read, 16 wait
                refused = answer.result()
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert refused.json()["error"] == "the server has 17 images to do already: try again in a moment"
            for _ in range(5):
                assert client.get("/health").status_code == 200
                assert client.post("/search", json={"id": 1}).status_code == 200
        finally:
            end.set()
        statuses = [answer.result().status_code for answer in sent]
        assert statuses[:30].count(503) == 13
        assert client.get("/health").status_code == 200


def test_health_says_when_reading_the_index_takes_too_long(serve, idle_service, monkeypatch):
    monkeypatch.setattr(health_check, "CHECK_SECONDS", 0.1)
    end, checks = threading.Event(), []
    monkeypatch.setattr(idle_service, "version", lambda: checks.append(1) or end.wait(60))
    address = serve(idle_service)
    try:
        for _ in range(5):
            answer = httpx2.get(f"{address}/health", timeout=30)
            assert answer.status_code == 503
            assert answer.json()["error"].startswith("the server runs, but reading the index takes longer than 0.1")
        assert checks == [1]
    finally:
        end.set()


def test_only_so_many_requests_run_at_a_time_and_health_is_not_among_them(serve, idle_service, monkeypatch):
    monkeypatch.setattr(request_guard, "MOST_RUNNING", 2)
    end, running = threading.Event(), threading.Semaphore(0)
    found = idle_service.stats()

    def wait() -> object:
        running.release()
        end.wait(60)
        return found

    monkeypatch.setattr(idle_service, "stats", wait)
    address = serve(idle_service)
    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(httpx2.get, f"{address}/stats", timeout=60) for _ in range(2)]
        try:
            assert running.acquire(timeout=30)
            assert running.acquire(timeout=30)
            answer = httpx2.get(f"{address}/records/1")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "the server answers 2 requests already" in answer.json()["error"]
            assert httpx2.get(f"{address}/health").status_code == 200
        finally:
            end.set()
        assert [one.result().status_code for one in sent] == [200, 200]
    assert httpx2.get(f"{address}/records/1").status_code == 200


def test_half_sent_bodies_hold_a_bounded_sum_which_is_given_back(serve, idle_service, monkeypatch):
    monkeypatch.setattr(request_bodies, "LARGE_BODIES", 100_000)
    address = serve(idle_service)
    host, port = address.removeprefix("http://").split(":")
    head = (
        b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 90000\r\n\r\n"
    )
    post = partial(httpx2.post, f"{address}/search", headers=JSON, timeout=30)
    image = b'{"image": "' + b"A" * 50_000 + b'"}'
    with socket.create_connection((host, int(port)), 30) as half_sent:
        half_sent.sendall(head + b'{"image": "' + b"A" * 80_000)
        answer = post(content=image)
        while answer.status_code == 400:  # what was half sent has not been read yet
            answer = post(content=image)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"] == "the server holds as many images as it can: try again in a moment"
        assert post(content=b'{"id": 1}').status_code == 200
    answer = post(content=image)
    while answer.status_code == 503:
        answer = post(content=image)
    assert answer.status_code == 400
    assert "not an image" in answer.json()["error"]


def test_a_request_without_the_token_holds_nothing(service):
    client = client_of(service, token="secret")
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/health", json={}).status_code in (400, 401)
    assert client.get("/health").status_code == 200
