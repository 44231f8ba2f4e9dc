"""Refuses requests that the HTTP API should not handle, limits their size and duration, and secures all responses.

- Host name: a request must name this server by an IP address or by a name that the server was started with. Otherwise
  a page of another site could point a host name of its own to this server and read the answers (DNS rebinding).
- Other sites: a browser says in `Sec-Fetch-Site` which kind of site sends a request; other sites may only link to the
  page. A POST must be JSON, which a form on another site cannot send.
- Token: see `token_guard`.
- Size: a body is read completely, up to a limit, before it is parsed. A large body with many fields is refused.
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

from semcut.connector.explore.error_responses import error_response
from semcut.connector.explore.token_guard import TokenGuard

_LINKED_PATHS = ("/", "/docs", "/redoc")  # pages that other sites may link to
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LARGE_BODY = 1 << 16  # bytes above which the fields of a body are counted
_MOST_QUOTES = 100  # quotation marks in a large body; a search with an image has far fewer


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
        self._max_body, self._seconds = max_body, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with an error, or let the application answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _secure(MutableHeaders(scope=message), scope["path"])
            await send(message)

        answer = self._refusal(scope)
        if answer is None:
            try:
                answer = await asyncio.wait_for(self._forward(scope, receive, send_secured), self._seconds)
            except asyncio.TimeoutError:
                answer = error_response(503, f"this took longer than {self._seconds:g} seconds")
        if answer is not None and not started:
            await answer(scope, receive, send_secured)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the response to a request that must not be handled, None for any other request."""
        headers = Headers(scope=scope)
        if not self._is_own_name(headers.get("host", "")):
            return error_response(
                400, "this server is not known by that name: use its IP address, or start the server with --name"
            )
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] not in _LINKED_PATHS:
            return error_response(403, "pages of other sites may not use this server")
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
            return error_response(415, "send JSON, with the Content-Type application/json")
        try:
            if int(headers.get("content-length", "0")) > self._max_body:
                return self._too_large()
        except ValueError:
            return error_response(400, "the Content-Length is not a number")
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
        """Read the body and let the application answer; return a response if the body must not be parsed."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body:
                return self._too_large()
        if len(body) > _LARGE_BODY and body.count(b'"') > _MOST_QUOTES:
            return error_response(422, "the request has too many fields")
        delivered = False

        async def receive_body() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_body, send)
        return None

    def _too_large(self) -> Response:
        return error_response(413, f"the request is too large: at most {self._max_body >> 20} MiB are read")


def _secure(headers: MutableHeaders, path: str) -> None:
    """Add the headers that restrict what a browser does with a response."""
    documentation = path in ("/docs", "/redoc")
    headers["content-security-policy"] = _CONTENT_POLICY.format(inline=" 'unsafe-inline'" if documentation else "")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    headers["cross-origin-resource-policy"] = "same-origin"
    headers.setdefault("cache-control", "no-cache")
