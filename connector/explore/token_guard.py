"""What stands before the API: who may ask, how much may be sent, and how long an answer may take.

- A request names this server by an address or by a name that it is known by (the Host header), so that a page of
  another site cannot have a browser ask for it under a name of its own; and browsers say when another site asks.
- Where there is a token, it comes as `Authorization: Bearer ...`, or as a cookie that `/?token=...` sets for a browser.
- A body is read before anything is made of it: up to a limit, and if it is large, one that has few fields.
- A request has so many seconds. Answers forbid browsers to load anything from elsewhere, or to embed them elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OPEN = ("/health",)
_PAGES = ("/", "/docs", "/redoc")
_POLICY = (
    "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LARGE, _QUOTES = 1 << 16, 100


class Guard:
    """An application with a guard before it.

    Args:
        app: the application.
        hosts: names that this server is known by, in lower case.
        token: what must be shown; None where only this machine can ask.
        max_body: bytes.
        seconds: that a request may take.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None, max_body: int, seconds: float) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token
        self._max_body, self._seconds = max_body, seconds
        digest = hashlib.sha256(f"semcut {token}".encode()).hexdigest()
        self._cookie = f"semcut_{digest[:8]}", digest  # a cookie is of a host, whatever the port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _secured(MutableHeaders(scope=message), scope["path"])
            await send(message)

        answer = self._refused(scope)
        if answer is None:
            try:
                answer = await asyncio.wait_for(self._passed(scope, receive, watched), self._seconds)
            except asyncio.TimeoutError:
                answer = problem(503, f"this took longer than {self._seconds:g} seconds")
        if answer is not None and not started:
            await answer(scope, receive, watched)

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Have the application answer, or say what is wrong with the body."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body:
                return self._too_large()
        if len(body) > _LARGE and body.count(b'"') > _QUOTES:
            return problem(422, "the request has more fields than there are")
        given = False

        async def read() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, read, send)
        return None

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self._known(headers.get("host", "")):
            return problem(400, "this server is not known by that name: ask for its address, or start it with --name")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] not in _PAGES:
            return problem(403, "other sites may not ask this server")
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0] != "application/json":
            return problem(415, "send JSON, with the Content-Type application/json")
        try:
            if int(headers.get("content-length", "0")) > self._max_body:
                return self._too_large()
        except ValueError:
            return problem(400, "the Content-Length is not a number")
        return self._stranger(scope, headers)

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _stranger(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None or scope["path"] in _OPEN:
            return None
        name, value = self._cookie
        if scope["path"] == "/" and (shown := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            if not _same(shown[0], self._token):
                return problem(401, "this is not the token of this server")
            answer = RedirectResponse("/", 303)
            answer.set_cookie(name, value, httponly=True, samesite="strict")
            return answer
        scheme, _, given = headers.get("authorization", "").partition(" ")
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        bearer = scheme.lower() == "bearer" and _same(given.strip(), self._token)
        if bearer or _same(cookies.get(name, ""), value):
            return None
        return problem(401, "this server wants a token: send it as Authorization: Bearer TOKEN, or open /?token=TOKEN")

    def _too_large(self) -> Response:
        return problem(413, f"the request is too large: at most {self._max_body >> 20} MB are read")


def problem(status: int, reason: str) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse({"error": reason}, status)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass"))


def _secured(headers: MutableHeaders, path: str) -> None:
    documentation = path in ("/docs", "/redoc")
    headers["content-security-policy"] = _POLICY.format(inline=" 'unsafe-inline'" if documentation else "")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    headers["cross-origin-resource-policy"] = "same-origin"
    headers.setdefault("cache-control", "no-cache")
