"""Refuses requests that the HTTP API should not handle, limits their size and duration, and secures all responses.

- Host name: a request must name this server by an IP address or by a name that the server was started with. Otherwise
  a page of another site could point a host name of its own to this server and read the answers (DNS rebinding).
- Other sites: a browser says in `Sec-Fetch-Site` which kind of site sends a request; other sites may only link to the
  page. A POST must be JSON, which a form on another site cannot send.
- Token: see `token_guard`.
- Body: see `request_bodies`. A body is read completely before it is parsed.
- Number: at most `MOST_RUNNING` complete requests that have passed all of this are answered at a time; connections are
  no requests. Whether the server runs is answered in any case.
- Connection: it ends with the answer to a request that did not pass, or that needs no token, and with the body of that
  request, see `connection_guard`. So nobody without the token has more than one answer ready at a time.
- Duration: a request that takes too long is answered with an error.
- Responses forbid browsers to load anything from other servers, and to embed the page in another site.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semcut.connector.explore.error_responses import busy_response, error_response
from semcut.connector.explore.request_bodies import BodyReader
from semcut.connector.explore.token_guard import TokenGuard

_LINKED_PATHS = ("/", "/docs", "/redoc")  # pages that other sites may link to
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_RUNNING = 256
"""Requests that are answered at a time, in all: more than all queues of work hold, so that these say what is busy."""

HOLDS_A_PLACE = "semcut.holds_a_place"
"""Key of an ASGI scope: whether the request passed, so that its connection keeps its place. Absent until that is known.
"""


class RequestGuard:
    """An ASGI application that checks each request before another application handles it.

    Args:
        app: the application.
        hosts: names of this server, in lower case; IP addresses are always accepted.
        token: see `TokenGuard`.
        max_body: maximum size of a body, in bytes.
        seconds: maximum duration of a request.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None, max_body: int, seconds: float) -> None:
        self._app, self._hosts, self._token_guard = app, frozenset(hosts), TokenGuard(token)
        self._bodies, self._seconds = BodyReader(max_body), seconds
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with an error, or let the application answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "there are no WebSockets here"})
            return
        started = False

        async def send_secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                _secure(headers, scope["path"])
                if not scope.get(HOLDS_A_PLACE, False):
                    headers["connection"] = "close"
            await send(message)

        answer = self._refusal(scope)
        if answer is not None:
            scope[HOLDS_A_PLACE] = False
        else:
            try:
                answer = await asyncio.wait_for(self._forward(scope, receive, send_secured), self._seconds)
            except asyncio.TimeoutError:
                answer = error_response(503, f"this took longer than {self._seconds:g} seconds")
            except asyncio.CancelledError:  # only the server cancels requests, when it stops
                answer = error_response(503, "the server stops")
        if answer is not None and not started:
            await answer(scope, receive, send_secured)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the response to a request that must not be handled, None for any other request."""
        headers = Headers(scope=scope)
        refused_body = self._bodies.refusal(scope, headers)
        if refused_body is not None:
            return refused_body
        if not self._is_own_name(headers.get("host", "")):
            return error_response(
                400, "this server is not known by that name: use its IP address, or start the server with --name"
            )
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] not in _LINKED_PATHS:
            return error_response(403, "pages of other sites may not use this server")
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
            return error_response(415, "send JSON, with the Content-Type application/json")
        return self._token_guard.check(scope, headers)

    def _is_own_name(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Read the body and let the application answer; return a response if it must not."""
        with self._bodies.claim() as claim:
            body = await self._bodies.read(receive, claim)
            if not isinstance(body, bytes):
                return body
            scope[HOLDS_A_PLACE] = not self._token_guard.is_open(scope) and self._running < MOST_RUNNING
            if self._token_guard.is_open(scope):
                await self._app(scope, _whole(body, receive), send)
                return None
            if self._running >= MOST_RUNNING:
                return busy_response(f"the server answers {self._running} requests already: try again in a moment")
            self._running += 1
            try:
                await self._app(scope, _whole(body, receive), send)
            finally:
                self._running -= 1
            return None


def _whole(body: bytes, receive: Receive) -> Receive:
    """Return a function of ASGI that gives a body as one message, and then what the server sends."""
    delivered = False

    async def receive_body() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


def _secure(headers: MutableHeaders, path: str) -> None:
    """Add the headers that restrict what a browser does with a response."""
    documentation = path in ("/docs", "/redoc")
    headers["content-security-policy"] = _CONTENT_POLICY.format(inline=" 'unsafe-inline'" if documentation else "")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    headers["cross-origin-resource-policy"] = "same-origin"
    headers.setdefault("cache-control", "no-cache")
