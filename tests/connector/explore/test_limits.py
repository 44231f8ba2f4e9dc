"""Test the limits of work and memory: what is too much is refused at once, and the server still answers the rest."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from semcut.connector.explore import connection_guard, health_check, request_bodies, request_guard, thumbnails
from semcut.connector.explore.http_api import create_app
from semcut.connector.explore.service import ExploreService
from semcut.connector.explore.thumbnails import Thumbnail
from semcut.connector.explore.work_queue import BusyError, WorkQueue
from tests.connector.explore.conftest import client_of

JSON = {"content-type": "application/json"}


@pytest.fixture
def idle_service(connector, digits) -> ExploreService:
    """Give a service whose methods a test may replace."""
    return ExploreService(connector.index, digits.classes, connector.encoder.encode_read)


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


def test_a_server_that_stops_drops_the_images_that_wait(idle_service, monkeypatch):
    monkeypatch.setattr(connection_guard, "STOP_SECONDS", 0.1)
    begun, end, encoded = threading.Event(), threading.Event(), []

    def encode(image: bytes) -> None:
        encoded.append(image)
        begun.set()
        end.wait(30)

    monkeypatch.setattr(idle_service, "encode", encode)
    server = connection_guard.create_server(create_app(idle_service))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    body = b'{"image": "aW1hZ2U="}'
    head = f"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with ExitStack() as stack:
        stack.callback(end.set)
        connections = []
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection((host, port), 10))
            connection.sendall(head.encode() + b"\r\n\r\n" + body)
            connections.append(connection)
        assert begun.wait(30)
        server.should_exit = True
        thread.join(20)  # the first image is still being encoded
        assert not thread.is_alive()
        assert all(connection.recv(1 << 16).startswith(b"HTTP/1.1 503") for connection in connections)
    assert len(encoded) == 1


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


def test_a_check_of_health_may_begin_before_those_who_wait_for_the_last_one_go_on(monkeypatch):
    end, checks, retrieve = threading.Event(), [], health_check._retrieve

    def check() -> None:
        checks.append(1)
        if len(checks) == 2:
            end.wait(30)

    async def run() -> None:
        health, later = health_check.HealthCheck(check), []

        def ended(future: asyncio.Future[object]) -> None:
            retrieve(future)
            if not later:
                later.append(asyncio.ensure_future(health.wait()))

        monkeypatch.setattr(health_check, "_retrieve", ended)
        await health.wait()
        end.set()
        await later[0]

    asyncio.run(asyncio.wait_for(run(), 30))
    assert checks == [1, 1]


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


def test_there_are_no_web_sockets(client):
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/stats"):
        pass
    assert (refused.value.code, refused.value.reason) == (1008, "there are no WebSockets here")


DECODE = """
import io, re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from semcut.connector.explore.image_queries import ImageEncoder
from semcut.connector.explore.thumbnails import thumbnail
from semcut.connector.models.device import keep_freed_memory

def megabytes(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

keep_freed_memory()
content = Path(sys.argv[1]).read_bytes()
encoder = ImageEncoder(lambda read: read(64).shape)
before = megabytes("VmRSS")
with ThreadPoolExecutor(12) as pool:
    encoded = [pool.submit(encoder.encode, content + bytes([number])) for number in range(6)]
    pictures = [pool.submit(thumbnail, sys.argv[1], 100 + number) for number in range(6)]
assert [one.result() for one in encoded] == [(3, 64, 64)] * 6
assert all(one.result().missing is None for one in pictures)
print(megabytes("VmHWM") - before, megabytes("VmRSS") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc/self/status to read memory from")
def test_large_images_take_no_memory_of_the_server(tmp_path):
    Image.new("RGB", (3000, 3000)).save(tmp_path / "large.png")  # 9 million pixels, 36 MB when decoded
    done = subprocess.run(
        [sys.executable, "-c", DECODE, tmp_path / "large.png"], capture_output=True, text=True, check=True
    )
    most, kept = map(int, done.stdout.split())
    assert most < 30
    assert kept < 30


def test_pictures_that_are_kept_have_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(thumbnails, "KEPT_BYTES", 14_000)
    kept = thumbnails._Pictures()
    monkeypatch.setattr(thumbnails, "_kept", kept)
    for number in range(8):
        Image.effect_noise((30, 30), 50).save(tmp_path / f"{number}.png")
    made = [thumbnails.thumbnail(str(tmp_path / f"{number}.png"), 30) for number in (0, 1, 2, 3, 4, 5, 6, 7, 7, 0)]
    assert made[-1] == made[0]
    assert made[-2] is made[-3]
    assert 0 < sum(len(one.content) for one in kept._pictures.values()) < kept._bytes <= 14_000
    assert 1 < len(kept._pictures) < 8


def test_tiny_pictures_under_long_names_are_counted_with_their_names(monkeypatch):
    monkeypatch.setattr(thumbnails, "KEPT_BYTES", 4 << 20)
    kept = thumbnails._Pictures()
    tracemalloc.start()
    try:
        for number in range(4000):
            name = f"/{number:06d}" + "\U0001f408" * 1000 if number % 2 else f"/{number}"
            kept.put((name, 16, 1 << 40, 2 << 40, 3 << 60, 4 << 40), Thumbnail(bytes(69), "image/png"))
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert thumbnails.KEPT_BYTES // 2 < taken <= thumbnails.KEPT_BYTES
    assert len(kept._pictures) > 1000


def test_files_that_are_not_regular_are_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "image.png")
    (tmp_path / "link to fifo").symlink_to(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with (tmp_path / "huge.png").open("wb") as huge:
        huge.truncate(thumbnails.MAX_FILE_BYTES + 1)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in (
            "fifo",
            "link to fifo",
            "loop",
            "huge.png",
            "socket",
            "/dev/zero",
            "/dev/tty",
            "/proc/self/mem",
            ".",
        ):
            assert thumbnails.thumbnail(str(tmp_path / name), 30).missing == "no image", name
    for name in ("none", "image.png/x", "\0"):
        assert thumbnails.thumbnail(str(tmp_path / name), 30).missing == "no such file", name
    assert thumbnails.thumbnail(str(tmp_path / "link.png"), 30).missing is None
