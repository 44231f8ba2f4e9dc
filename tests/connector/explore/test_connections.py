"""Test over sockets that connections which send no complete request never keep a request out, and end in time."""

from __future__ import annotations

import http.client
import json
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import h11
import httpx2
import pytest

from semcut.connector.explore import connection_guard
from semcut.connector.explore.service import ExploreService

HEAD = b"POST /search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SEARCH = HEAD + b"content-length: 9\r\n\r\n" + b'{"id": 3}'
NOTHING_COMPLETE = {
    "nothing": b"",
    "part of a head": b"GET /stats HTTP/1.1\r\nhost: localh",
    "no body": HEAD + b"content-length: 9\r\n\r\n",
    "part of a large body": HEAD + b"content-length: 1000000\r\n\r\n" + b'{"image": "' + b"A" * 5000,
    "a refused body": b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
    "a body without a size": HEAD + b"transfer-encoding: chunked\r\n\r\n",
    "nothing after an answer": b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a WebSocket": b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    "answers that are not read": b"GET /page/explore.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 200,
    "no HTTP": b"\x16\x03\x01\x02\x00",
}


@pytest.fixture(scope="module")
def address(serve: Callable[[ExploreService], str], service: ExploreService) -> tuple[str, int]:
    host, port = serve(service).removeprefix("http://").split(":")
    return host, int(port)


@contextmanager
def connections(address: tuple[str, int], count: int, content: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(count)]
        for connection in opened:
            with suppress(OSError):  # it had to leave its place
                connection.send(content)
        yield opened


@contextmanager
def kept_busy(address: tuple[str, int], count: int, content: bytes) -> Iterator[None]:
    """Send the same on some connections for ever, read the answers, and open another for each that is lost."""
    end, selector = threading.Event(), selectors.DefaultSelector()

    def add() -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(address)
        selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def send() -> None:
        while not end.wait(0.02):
            for key, _ in selector.select(0.1):
                connection = key.fileobj
                try:
                    with suppress(BlockingIOError):
                        if not connection.recv(1 << 16):
                            raise ConnectionError
                    with suppress(BlockingIOError):
                        connection.send(content)
                except OSError:
                    selector.unregister(connection)
                    connection.close()
                    add()

    for _ in range(count):
        add()
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        end.set()
        sender.join()
        for key in list(selector.get_map().values()):
            key.fileobj.close()


def searched(address: tuple[str, int]) -> int:
    return httpx2.post("http://{}:{}/search".format(*address), json={"id": 3}, timeout=30).status_code


def is_closed(connection: socket.socket, seconds: float) -> bool:
    """Return whether the server closes a connection in this time; answers are read and ignored."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def is_lost(connection: socket.socket, content: bytes, times: int, *, pause: float) -> bool:
    """Return whether the server closes a connection on which the same is sent again and again."""
    try:
        for _ in range(times):
            connection.sendall(content)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.long) if kind == "answers that are not read" else kind
        for kind in NOTHING_COMPLETE
    ],
)
def test_connections_without_a_complete_request_give_way(kind, address, monkeypatch):
    monkeypatch.setattr(connection_guard, "_MOST_CONNECTIONS", 20)
    with connections(address, 60, NOTHING_COMPLETE[kind]) as opened:
        assert [searched(address) for _ in range(5)] == [200] * 5
        assert is_closed(opened[0], 10)


def test_hundreds_of_idle_sockets_keep_no_request_out(address):
    with connections(address, 600, b""):
        assert [searched(address) for _ in range(10)] == [200] * 10


def is_address_here(host: str) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((host, 0))
        return True
    return False


@pytest.mark.skipif(not is_address_here("127.0.0.2"), reason="127.0.0.2 is not an address of this machine")
def test_an_address_with_many_connections_takes_no_place_of_another(address, monkeypatch):
    monkeypatch.setattr(connection_guard, "_MOST_CONNECTIONS", 20)
    with ExitStack() as stack:
        few = [stack.enter_context(socket.create_connection(address, 10, ("127.0.0.2", 0))) for _ in range(5)]
        with connections(address, 60, b""):
            assert searched(address) == 200
            for connection in few:
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_running_request_keeps_its_place(address, service, monkeypatch):
    monkeypatch.setattr(connection_guard, "_MOST_CONNECTIONS", 10)
    end = threading.Event()
    found = service.stats()
    monkeypatch.setattr(service, "stats", lambda: end.wait(30) and found)
    with socket.create_connection(address, 30) as running:
        running.sendall(b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(0.1)
        with connections(address, 50, b""):
            assert searched(address) == 200
        end.set()
        assert running.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kind", [kind for kind in NOTHING_COMPLETE if kind != "answers that are not read"])
def test_connections_without_a_complete_request_end_in_time(kind, address, monkeypatch):
    monkeypatch.setattr(connection_guard, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(connection_guard, "STALLED_SECONDS", 0.1)
    with connections(address, 1, NOTHING_COMPLETE[kind]) as (connection,):
        assert is_closed(connection, 20)


@pytest.mark.parametrize("piece", ["head", "body"])
def test_sending_slowly_gives_no_more_time(piece, address, monkeypatch):
    monkeypatch.setattr(connection_guard, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(connection_guard, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(connection_guard, "STALLED_SECONDS", 0.1)
    start = HEAD if piece == "head" else HEAD + b"content-length: 1000000\r\n\r\n"
    with socket.create_connection(address, 10) as connection:
        connection.sendall(start)
        assert is_lost(connection, b"a", 1000, pause=0.02)


def test_a_client_that_does_not_read_answers_loses_its_place_in_time(address, monkeypatch):
    monkeypatch.setattr(connection_guard, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(connection_guard, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(connection_guard, "STALLED_SECONDS", 0.1)
    request = b"GET /page/explore.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with socket.create_connection(address, 20) as connection:
        assert is_lost(connection, request, 1_000_000, pause=0)


def test_requests_on_one_connection_are_answered_in_order(address):
    wanted = [json.dumps({"id": number}).encode() for number in range(20)]
    requests = [HEAD + b"content-length: %d\r\n\r\n" % len(body) + body for body in wanted]
    with socket.create_connection(address, 30) as connection:
        connection.sendall(b"".join(requests))
        reader = connection.makefile("rb")
        for number in range(20):
            assert reader.readline().startswith(b"HTTP/1.1 200")
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            assert json.loads(reader.read(length))["query"]["id"] == str(number)


def test_pieces_of_a_body_are_not_parsed_after_it_was_refused(address):
    with socket.create_connection(address, 30) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 411")
        assert is_closed(connection, 10)


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n"])
@pytest.mark.parametrize("before", [b"", HEAD + b"authorization: Bearer secret\r\ncontent-length: 1\r\n\r\nx"])
def test_no_piece_of_a_chunked_body_is_ever_parsed(before, end, service, serve, monkeypatch):
    events, next_event = [], h11.Connection.next_event

    def recorded(self):
        events.append(next_event(self))
        return events[-1]

    monkeypatch.setattr(h11.Connection, "next_event", recorded)
    address = serve(service, token="secret").removeprefix("http://").split(":")
    head = HEAD + b"Transfer-Encoding:\tChunked" + end
    for cut in range(len(end) + 1):  # at the end of the head, and within it
        events.clear()
        with socket.create_connection(address, 30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = before + head[: len(head) - cut]
            connection.sendall(start)
            time.sleep(0.02)
            with suppress(ConnectionError):
                connection.sendall(head[len(head) - cut :] + b"1\r\nx\r\n" * 2600)
            assert is_closed(connection, 10)
        kinds = [type(event) for event in events]
        assert kinds.count(h11.Request) == (2 if before else 1)
        assert kinds.count(h11.Data) == (1 if before else 0)


WITH_A_BODY = b"content-length: 9\r\n\r\n" + b'{"id": 3}'


@pytest.mark.parametrize(
    "request_",
    [
        *(
            b"GET /stats HTTP/1.1\r\nhost: localhost\r\ncontent-length: %s\r\n\r\n" % zeros
            for zeros in (b"0", b"0" * 20)
        ),
        b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" + WITH_A_BODY,
        b"POST /search HTTP/1.1\r\nhost: elsewhere\r\ncontent-type: application/json\r\n" + WITH_A_BODY,
        b"POST /search HTTP/1.1\r\nhost: localhost\r\n" + WITH_A_BODY,
        b"PUT /search HTTP/1.1\r\nhost: localhost\r\n" + WITH_A_BODY,
        HEAD + WITH_A_BODY,
        HEAD + b"content-length: 9000\r\n\r\n" + b"[" * 9000,
    ],
)
def test_a_refused_request_ends_its_connection(request_, service, serve):
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request_ * 3)
        answer = read_to_the_end(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"connection: close\r\n" in answer


def read_to_the_end(connection: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


@pytest.mark.parametrize("asked", [b"HTTP/1.1\r\nconnection: close", b"HTTP/1.0"])
def test_a_client_that_asks_for_the_end_of_its_connection_reads_that_once(asked, service, serve):
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"POST /search " + asked + b"\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
        answer = read_to_the_end(connection).lower()
    assert answer.startswith(b"http/1.1 415")
    assert answer.count(b"connection: close") == 1


@pytest.mark.parametrize("size", [9, 3_000_000, 30_000_000])
def test_the_answer_to_a_refused_request_is_not_lost_while_its_body_arrives(size, service, serve):
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % size)
        answer = b""
        while not answer.endswith(b"}"):  # it does not wait for the body
            answer += connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 401" if size < 20 << 20 else b"HTTP/1.1 413")
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert head.count(b"connection: close") == 1
        connection.sendall(b" " * size)  # a connection that was closed before would be an error
        with suppress(ConnectionError):
            connection.sendall(b"GET /stats HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer secret\r\n\r\n")
        assert read_to_the_end(connection) == b""


def test_a_client_with_the_token_keeps_its_connection_in_a_flood_from_its_address(service, serve, monkeypatch):
    monkeypatch.setattr(connection_guard, "_MOST_CONNECTIONS", 20)
    monkeypatch.setattr(connection_guard, "_ACCEPTED_AT_ONCE", 20)
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    client = http.client.HTTPConnection(host, int(port), timeout=20)
    client.connect()
    client.auto_open = 0  # a connection that was closed is an error

    def ask() -> int:
        time.sleep(0.2)  # so that the connections of the flood were active later
        client.request("GET", "/records/3", headers={"authorization": "Bearer secret"})
        answer = client.getresponse()
        answer.read()
        return answer.status

    assert ask() == 200
    with kept_busy((host, int(port)), 60, b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n" * 50):
        assert [ask() for _ in range(10)] == [200] * 10
    client.close()


@pytest.mark.parametrize("path", ["/", "/health"])
def test_requests_without_the_token_hold_no_place(path, service, serve, monkeypatch):
    monkeypatch.setattr(connection_guard, "_MOST_CONNECTIONS", 20)
    monkeypatch.setattr(connection_guard, "_ACCEPTED_AT_ONCE", 20)
    most, made = [], connection_guard.GuardedConnection.connection_made

    def connection_made(self, transport):
        made(self, transport)
        most.append(len(self.connections))

    monkeypatch.setattr(connection_guard.GuardedConnection, "connection_made", connection_made)
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode() * 50
    header = {"authorization": "Bearer secret"}
    with kept_busy((host, int(port)), 60, request):
        for _ in range(3):
            assert status_of(f"http://{host}:{port}/records/3", header) == 200
    assert max(most) <= 40


def status_of(url: str, header: dict[str, str]) -> int:
    """Return the status of an answer; during a flood a new connection can be lost, and is tried again."""
    for _ in range(4):
        with suppress(httpx2.RemoteProtocolError, httpx2.NetworkError):
            return httpx2.get(url, headers=header, timeout=20).status_code
    return httpx2.get(url, headers=header, timeout=20).status_code


def test_a_refused_connection_keeps_its_place_only_after_a_request_that_passes(service, serve, monkeypatch):
    host, port = serve(service, token="secret").removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"GET /stats HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer secret\r\n\r\n")
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200")
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16)
        connection.sendall(b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in answer
        assert is_closed(connection, 10)


def test_connections_take_less_than_the_files_of_the_process(monkeypatch):
    for files in (64, 256, 1024, 20_000, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        most, at_once = connection_guard.most_connections(), connection_guard.accepted_at_once()
        assert 0 < most <= 512
        assert 0 < at_once <= 128
        assert files == resource.RLIM_INFINITY or most + 4 * at_once <= files * 3 // 4
