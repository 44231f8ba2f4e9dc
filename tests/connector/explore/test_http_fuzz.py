"""Send bytes, JSON values and pieces of HTTP that mean harm: the server never fails, and its log stays empty."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.thorough import THOROUGH

PATHS = ["/health", "/stats", "/search", "/records", "/records/1", "/records/1/thumbnail", "/partitions",
         "/partitions/1", "/", "/page/explore.js", "/docs", "/openapi.json", "/nothing"]  # fmt: skip
QUICK = settings(
    max_examples=400 if THOROUGH else 40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
LONG = settings(QUICK, max_examples=2000)
ATTACKS = [
    b"", b"null", b"[]", b"{}", b'"', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"[" * 5000, b'{"id":' * 5000,
    b'{"id":' + b"9" * 4000 + b"}", b'{"id":1e999}', b'{"id":-0}', b'{"cutoff":NaN,"id":1}', b'{"id":1,"id":2}',
    b'{"id":"\\ud800"}', b'{"\\ud800":1}', b'{"id":"\\u0000"}', b'{"image":"\\ud800"}', b'{"image":""}',
    b'{"image":"' + b"=" * 5000 + b'"}', b'{"id":1,"k":1e2,"cutoff":1e-400}', b'{"id":1,"ranking":"\x1b[31m"}',
]  # fmt: skip
"""Bodies that have broken parsers."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
)
fields = st.sampled_from(["id", "image", "k", "cutoff", "shortlist", "ranking", "explain", "compare"])
searches = st.dictionaries(fields | st.text(max_size=5), values | st.sampled_from([1, 3, "5", 0.5, "fused", ""]))
bodies = st.binary(max_size=300) | values.map(encode := lambda value: json.dumps(value).encode()) | searches.map(encode)


def png() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((24, 24), 50).save(stream, "PNG")
    return stream.getvalue()


WHOLE_IMAGE = png()


def check_bodies(client, caplog, examples: settings) -> None:
    @examples
    @given(path=st.sampled_from(PATHS), method=st.sampled_from(["POST", "PUT", "GET", "DELETE"]), body=bodies)
    def every_body(path: str, method: str, body: bytes) -> None:
        check(client.request(method, path, content=body, headers={"content-type": "application/json"}))

    @examples
    @given(body=bodies)
    def every_search(body: bytes) -> None:
        check(client.post("/search", content=body, headers={"content-type": "application/json"}))

    @examples
    @given(cut=st.integers(0, len(WHOLE_IMAGE)), at=st.integers(0, len(WHOLE_IMAGE) - 1), by=st.integers(0, 255))
    def every_image(cut: int, at: int, by: int) -> None:
        content = bytearray(WHOLE_IMAGE)
        content[at] ^= by
        check(client.post("/search", json={"image": base64.b64encode(content[:cut]).decode()}))

    @examples
    @given(path=st.sampled_from(PATHS), query=st.text(max_size=40), value=st.text(max_size=40))
    def every_query(path: str, query: str, value: str) -> None:
        check(client.get(path, params={query: value, "count": value, "size": value, "limit": query, "token": value}))

    with caplog.at_level(logging.WARNING):
        for test in (every_body, every_search, every_image, every_query):
            test()
    assert caplog.records == []


def check(answer) -> None:
    assert answer.status_code != 500, answer.text
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"]
        assert len(answer.text) < 2000
        assert "Traceback" not in answer.text


def test_no_body_makes_the_server_fail(client, caplog):
    check_bodies(client, caplog, QUICK)


@pytest.mark.long
def test_none_of_many_bodies_makes_the_server_fail(client, caplog):
    check_bodies(client, caplog, LONG)


@pytest.mark.parametrize("body", ATTACKS)
def test_bodies_that_have_broken_parsers_are_answered(body, client):
    answer = client.post("/search", content=body, headers={"content-type": "application/json"})
    check(answer)
    assert answer.status_code in (200, 400, 404, 422)


pieces = st.sampled_from([
    b"GET ", b"POST ", b"/stats", b"/search", b"/health", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9\r\n", b"\r\n",
    b"\n", b"\r", b"\0", b"host: localhost\r\n", b"content-length: 9\r\n", b"content-length: -1\r\n",
    b"content-length: 99999999999999999999\r\n", b"content-length: 0\r\ncontent-length: 9\r\n",
    b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n", b"content-type: application/json\r\n",
    b"expect: 100-continue\r\n", b"connection: upgrade\r\nupgrade: websocket\r\n", b"connection: close\r\n",
    b"upgrade: h2c\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b'{"id": 3}', b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b"authorization: Bearer \xff\r\n", b"cookie: a=b;;=\r\n", b"x: LONG\r\n",
])  # fmt: skip


def check_sockets(address: str, caplog, examples: settings) -> None:
    host, port = address.removeprefix("http://").split(":")

    @examples
    @given(parts=st.lists(pieces | st.binary(max_size=20), min_size=1, max_size=30))
    @example(parts=[b"GET ", b"/stats", b" HTTP/1.1\r\n", b"host: localhost\r\n", b"\r\n"] * 50)
    def every_stream(parts: list[bytes]) -> None:
        with socket.create_connection((host, int(port)), 30) as connection:
            try:
                connection.sendall(b"".join(parts).replace(b"LONG", b"y" * 70_000))
                connection.shutdown(socket.SHUT_WR)
                received = b""
                while piece := connection.recv(1 << 16):
                    received += piece
            except TimeoutError:
                raise
            except OSError:
                return  # the server has closed the connection
        assert b" 500 " not in received[:20]
        assert b"Traceback" not in received

    logging.getLogger("uvicorn").addHandler(caplog.handler)  # its messages do not reach the root logger
    try:
        every_stream()
        with socket.create_connection((host, int(port)), 30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
    finally:
        logging.getLogger("uvicorn").removeHandler(caplog.handler)
    assert caplog.records == []


def test_no_stream_of_bytes_makes_the_server_fail(serve, service, caplog):
    check_sockets(serve(service), caplog, QUICK)


@pytest.mark.long
def test_none_of_many_streams_of_bytes_makes_the_server_fail(serve, service, caplog):
    check_sockets(serve(service), caplog, LONG)
